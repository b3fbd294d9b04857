// What people and their programs write: command lines, requests, and the logs of tasks.

import { parseDurationNs } from '../../../src/cli/durations.ts';
import { LogDemultiplexer, LogFrameError, parseLogLine } from '../../../src/cli/log-frames.ts';
import { publishedPorts } from '../../../src/cli/published-ports.ts';
import * as values from '../../../src/cli/values.ts';
import { parseCidr, parseIpv4, parseMac } from '../../../src/core/address.ts';
import { formatIp, parseIp } from '../../../src/core/ip.ts';
import { parseListeners } from '../../../src/io/linux/listeners.ts';
import { parseProcessStat } from '../../../src/io/process.ts';
import { networkCreateSchema } from '../../../src/manager/network-spec.ts';
import { parseBody } from '../../../src/manager/request-body.ts';
import { serviceSpecSchema } from '../../../src/manager/service-schema.ts';
import { parseExitFile, parseProcessFile } from '../../../src/runtime/supervisor.ts';
import { bytesOf, type FuzzTarget, type Outcome, require, textOf } from '../target.ts';

/** Names of errors that a reader of texts may refuse with: their messages are for people. */
const REFUSALS: ReadonlySet<string> = new Set([
  'CliError',
  'InvalidArgumentError',
  'ManagerError',
  'RangeError',
]);

/** What `parse` made of the text, or why it refused. Any other error is a failure of the target. */
function attempt(parse: () => unknown): Outcome {
  try {
    const value = JSON.stringify(parse()) ?? 'nothing';
    return { kind: 'read', detail: value };
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    const name = error.constructor.name;
    if (!REFUSALS.has(name) || error.message === '') throw error;
    require(!/Maximum call stack|Invalid array length|Invalid string length/.test(
      error.message,
    ), error.message);
    return { kind: 'refused', detail: error.message };
  }
}

const PARSERS: Readonly<Record<string, (text: string) => unknown>> = {
  ipv4: parseIpv4,
  ip: (text) => formatIp(parseIp(text)),
  cidr: parseCidr,
  mac: parseMac,
  port: values.port,
  duration: values.duration,
  durationNs: parseDurationNs,
  subnet: values.subnet,
  ipAddress: values.ipAddress,
  pair: values.pair,
  label: values.label,
  constraint: values.constraint,
  hostAndPort: values.hostAndPort,
  addressOrInterface: values.addressOrInterface,
  publishedPorts,
};

/** Every value that a flag or a field may have, tried with every parser. */
export const flags: FuzzTarget = {
  name: 'values',
  isCopied: true,
  bytesMax: 64,
  dictionary: ['/', ':', '-', '=', '==', '!=', 'ms', 'node.', 'published=', 'target=', '[::1]'].map(
    bytesOf,
  ),
  seeds: () =>
    [
      ...['10.0.0.1', '10.0.0.0/8', 'fd00::1', '::ffff:1.2.3.4', '02:57:45:46:54:01', '8080'],
      ...['1m30s', '500ms', 'a=b', 'node.role==manager', '[::1]:80', 'host:80', 'eth0'],
      ...['8080:80', '80/udp', '1-3:4-6/tcp', 'published=80,target=8080,protocol=udp,mode=ingress'],
    ].map(bytesOf),
  run(input) {
    const text = textOf(input);
    const all = Object.entries(PARSERS).map(
      ([name, parse]) => [name, attempt(() => parse(text))] as const,
    );
    const read = all.filter(([, { kind }]) => kind === 'read').map(([name]) => name);
    return { kind: read.join(), detail: all.map(([, { detail }]) => detail).join('\n') };
  },
};

function body(
  name: string,
  parse: (text: string) => unknown,
  seeds: readonly object[],
): FuzzTarget {
  return {
    name,
    isCopied: true,
    bytesMax: 1_024,
    dictionary: [
      ...['null', '[]', '{}', '-1', '1e400', '""', '"__proto__":', '[[[[[[[[[[[[[[[[[[', 'true'],
      ...['"Name":', '"Labels":', '"Mode":', '"Replicas":', '"Ports":', '"Networks":', '"Config":'],
    ].map(bytesOf),
    seeds: () => seeds.map((seed) => bytesOf(JSON.stringify(seed))),
    run: (input) => attempt(() => parse(textOf(input))),
  };
}

export const service: FuzzTarget = body(
  'service-body',
  (text) => parseBody(serviceSpecSchema, text),
  [
    {
      Name: 'web',
      TaskTemplate: {
        ContainerSpec: { Image: 'x', Command: ['sleep', '1'], Env: ['A=b'] },
        RestartPolicy: { Condition: 'any', Delay: 5_000_000_000 },
        Placement: { Constraints: ['node.role==manager'] },
        Networks: [{ Target: 'app' }],
      },
      Mode: { Replicated: { Replicas: 3 } },
      EndpointSpec: {
        Mode: 'vip',
        Ports: [{ Protocol: 'tcp', TargetPort: 80, PublishedPort: 80 }],
      },
    },
    { Name: 'all', Mode: { Global: {} }, TaskTemplate: {} },
  ],
);

export const network: FuzzTarget = body(
  'network-body',
  (text) => parseBody(networkCreateSchema, text),
  [
    {
      Name: 'app',
      Driver: 'overlay',
      IPAM: { Driver: 'default', Config: [{ Subnet: '10.1.0.0/16', Gateway: '10.1.0.1' }] },
      Options: { encrypted: '' },
      Labels: { a: 'b' },
    },
  ],
);

export const logFrames: FuzzTarget = {
  name: 'log-frames',
  bytesMax: 512,
  dictionary: [Uint8Array.of(1, 0, 0, 0, 0, 0, 0, 5), bytesOf('com.docker.swarm.task.id=')],
  seeds: () => [
    Buffer.concat([Uint8Array.of(1, 0, 0, 0, 0, 0, 0, 3), bytesOf('one')]),
    Buffer.concat([
      Uint8Array.of(2, 0, 0, 0, 0, 0, 0, 59),
      bytesOf('2026-01-01T00:00:00Z com.docker.swarm.task.id=t,node.id=n me'),
    ]),
  ],
  run(input) {
    const whole = demultiplexed(input, input.length);
    require(whole ===
      demultiplexed(input, 3), 'how the stream is cut makes no difference to the frames');
    return { kind: whole.slice(0, 6).replaceAll(/[^a-z]/g, ''), detail: whole };
  },
};

function demultiplexed(input: Uint8Array, chunkBytes: number): string {
  const reader = new LogDemultiplexer();
  const frames: unknown[] = [];
  try {
    for (let at = 0; at < input.length; at += chunkBytes) {
      for (const { stream, text } of reader.push(input.subarray(at, at + chunkBytes))) {
        frames.push(stream, text, parseLogLine(text, true), parseLogLine(text, false));
      }
    }
    reader.end();
  } catch (error) {
    // What came before a bad frame in the same chunk is not shown; that depends on the chunks.
    if (error instanceof LogFrameError) return 'bad';
    throw error;
  }
  return `good ${JSON.stringify(frames)}`;
}

/** Small files that a crash may have cut short, and what the kernel shows. */
export const files: FuzzTarget = {
  name: 'process-files',
  isCopied: true,
  bytesMax: 256,
  seeds: () =>
    [
      '12 34567 0a1b-2c3d\n',
      '137\n',
      '12 (a (b) c) S 1 12 12 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 34567 1 1',
      '  sl  local_address rem_address   st\n   0: 0100007F:1F90 00000000:0000 0A 0:0 0:0 0 0 0 123 1\n',
    ].map(bytesOf),
  run(input) {
    const text = textOf(input);
    const read = [
      parseProcessFile(text),
      parseExitFile(text),
      parseProcessStat(text),
      parseListeners('tcp', text),
    ];
    return { kind: read.map((value) => typeof value).join(), detail: JSON.stringify(read) };
  },
};
