import { z } from 'zod';
import {
  countSchema,
  cStringSchema,
  labelsSchema,
  nameSchema,
  nanosecondsSchema,
} from './common-spec.ts';
import { parseConstraint } from './constraints.ts';
import type { ServiceSpec } from './service-spec.ts';
import { parseSignal } from './signals.ts';

/** Replicas beyond this are a slip of the finger: they would not fit into any subnet. */
const REPLICAS_MAX = 65_536;
/** Of a policy's MaxAttempts: what a task remembers of its slot's past is bounded by it. */
const ATTEMPTS_MAX = 1_000;

const portSchema = z
  .number('expected a port number')
  .int('expected a whole number')
  .max(65_535, 'expected a port of 65535 at most');

const portConfigSchema = z.strictObject({
  Name: z.string('expected a string').exactOptional(),
  Protocol: z.enum(['tcp', 'udp'], 'expected "tcp" or "udp"').default('tcp'),
  TargetPort: portSchema.min(1, 'expected a port of 1 or more'),
  /** 0: the manager chooses one. */
  PublishedPort: portSchema.min(0, 'expected a port of 1 or more, or 0 for any').default(0),
  PublishMode: z.enum(['ingress', 'host'], 'expected "ingress" or "host"').default('ingress'),
});

const endpointSpecSchema = z.strictObject({
  Mode: z.enum(['vip', 'dnsrr', ''], 'expected "vip" or "dnsrr"').exactOptional(),
  Ports: z.array(portConfigSchema).exactOptional(),
});

const containerSpecSchema = z.strictObject({
  /** What runs is Command and Args; an image is the docker runtime's. Kept as it came. */
  Image: cStringSchema.exactOptional(),
  Labels: labelsSchema.exactOptional(),
  Command: z.array(cStringSchema).exactOptional(),
  Args: z.array(cStringSchema).exactOptional(),
  Env: z.array(cStringSchema.regex(/^[^=]+=/, 'expected NAME=value')).exactOptional(),
  Dir: cStringSchema.exactOptional(),
  User: cStringSchema.exactOptional(),
  Hostname: cStringSchema.exactOptional(),
  StopSignal: z
    .string('expected a signal name')
    .refine((signal) => parseSignal(signal) !== undefined, 'expected a signal such as SIGTERM')
    .exactOptional(),
  StopGracePeriod: nanosecondsSchema.exactOptional(),
  Isolation: z.enum(['default', ''], 'expected "default"').exactOptional(),
});

const restartPolicySchema = z.strictObject({
  Condition: z
    .enum(['none', 'on-failure', 'any', ''], 'expected "none", "on-failure" or "any"')
    .exactOptional(),
  Delay: nanosecondsSchema.exactOptional(),
  MaxAttempts: countSchema.max(ATTEMPTS_MAX, `expected ${ATTEMPTS_MAX} at most`).exactOptional(),
  Window: nanosecondsSchema.exactOptional(),
});

const placementSchema = z.strictObject({
  Constraints: z
    .array(
      z
        .string('expected a string')
        .refine(
          (text) => parseConstraint(text) !== undefined,
          'expected <attribute>==<value> or <attribute>!=<value>, where the attribute is node.id, ' +
            'node.hostname, node.role, node.platform.os, node.platform.arch, node.labels.<name> or ' +
            'engine.labels.<name>',
        ),
    )
    .exactOptional(),
  MaxReplicas: countSchema.exactOptional(),
  /** What an image was built for; the docker CLI fills it in from the registry. */
  Platforms: z
    .array(
      z.strictObject({
        Architecture: z.string('expected a string').exactOptional(),
        OS: z.string('expected a string').exactOptional(),
      }),
    )
    .exactOptional(),
});

const networkAttachmentSchema = z.strictObject({
  Target: z.string('expected the id or name of a network').min(1, 'expected an id or a name'),
  Aliases: z.array(nameSchema).exactOptional(),
});

const taskSpecSchema = z.strictObject(
  {
    ContainerSpec: containerSpecSchema,
    RestartPolicy: restartPolicySchema.exactOptional(),
    Placement: placementSchema.exactOptional(),
    Networks: z.array(networkAttachmentSchema).exactOptional(),
    ForceUpdate: countSchema.exactOptional(),
    Runtime: z.enum(['container', ''], 'expected "container"').exactOptional(),
  },
  'expected an object',
);

const updateConfigSchema = z.strictObject({
  /** Slots replaced at a time; 0: all at once. */
  Parallelism: countSchema.exactOptional(),
  FailureAction: z.enum(['pause', ''], 'expected "pause"').exactOptional(),
  Monitor: nanosecondsSchema.exactOptional(),
  Order: z.enum(['stop-first', ''], 'expected "stop-first"').exactOptional(),
});

/** Reads a {@link ServiceSpec}: shapes only; service-rules.ts has what fields mean to each other. */
export const serviceSpecSchema: z.ZodType<ServiceSpec> = z.strictObject(
  {
    Name: nameSchema.or(z.literal('')).exactOptional(),
    Labels: labelsSchema.exactOptional(),
    TaskTemplate: taskSpecSchema,
    Mode: z
      .strictObject({
        Replicated: z
          .strictObject({
            Replicas: countSchema
              .max(REPLICAS_MAX, `expected ${REPLICAS_MAX} at most`)
              .exactOptional(),
          })
          .exactOptional(),
        Global: z.strictObject({}).exactOptional(),
      })
      .refine(
        (mode) => mode.Replicated === undefined || mode.Global === undefined,
        'expected either Replicated or Global',
      )
      .exactOptional(),
    UpdateConfig: updateConfigSchema.exactOptional(),
    EndpointSpec: endpointSpecSchema.exactOptional(),
  },
  'expected a JSON object',
);
