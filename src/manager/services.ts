import type { Random } from '../core/capabilities.ts';
import { IpamError } from '../ipam/errors.ts';
import type { AddressPair } from '../ipam/pool.ts';
import { claimAddress, releaseAddresses } from './addresses.ts';
import { invalid, ManagerError } from './errors.ts';
import { newId } from './ids.ts';
import { nameKey, recordKey } from './keys.ts';
import { findNetwork } from './lookup.ts';
import { ingressNetworkOf } from './networks.ts';
import { claimPorts, type PortName, releasePorts, resolvePorts } from './published-ports.ts';
import type { NetworkAddress, ServiceRecord } from './records.ts';
import { randomServiceName } from './service-names.ts';
import { checkServiceSpec, checkServiceUpdate, needsNewTasks } from './service-rules.ts';
import {
  isGlobal,
  isIngressPort,
  type PortConfig,
  replicasOf,
  type ServiceSpec,
} from './service-spec.ts';
import type { Draft } from './state-writer.ts';
import { retireTask } from './task-lifecycle.ts';

/** What a new or changed service depends on besides its spec. */
export interface ServiceContext {
  readonly random: Random;
  /** Milliseconds since the Unix epoch. */
  readonly nowMs: number;
  /** Ports that something else than a service holds on this node. */
  readonly heldPorts: ReadonlySet<PortName>;
}

/**
 * Creates a service with its VIPs and published ports. Its tasks follow by reconciliation.
 *
 * @throws {ManagerError} NAME_CONFLICT, NOT_FOUND for a network, or INVALID
 */
export function createService(
  draft: Draft,
  asked: ServiceSpec,
  context: ServiceContext,
): ServiceRecord {
  checkServiceSpec(asked);
  const name = asked.Name || randomServiceName(draft, context.random);
  if (draft.get(nameKey('services', name)) !== undefined) {
    throw new ManagerError(
      { code: 'NAME_CONFLICT', kind: 'service', name },
      `name conflicts with an existing object: service ${name} already exists`,
    );
  }
  const id = newId(context.random);
  const spec = withNetworkIds(draft, withDefaults(asked, name));
  const ports = resolvePorts(draft, { spec, previous: undefined, avoid: context.heldPorts });
  const record: ServiceRecord = {
    id,
    createdAtMs: context.nowMs,
    updatedAtMs: context.nowMs,
    spec,
    taskVersion: 1,
    ports,
    vips: claimVips(draft, id, { spec, ports, previous: [] }),
    networkIds: networkIdsOf(draft, spec),
  };
  claimPorts(draft, record, undefined);
  draft.put(nameKey('services', name), id);
  draft.save('services', record);
  return record;
}

/**
 * Replaces a service's spec. Tasks are replaced only when what they run has changed, not for another
 * number of them.
 *
 * @param service - The service as it is in `draft`.
 * @throws {ManagerError} INVALID, NOT_FOUND for a network, or NOT_SUPPORTED for a change of what a
 *   service is: its name, mode or runtime
 */
export function updateService(
  draft: Draft,
  service: ServiceRecord,
  asked: ServiceSpec,
  context: ServiceContext,
): ServiceRecord {
  checkServiceSpec(asked);
  checkServiceUpdate(service, asked);
  const spec = withNetworkIds(draft, withDefaults(asked, service.spec.Name ?? ''));
  const ports = resolvePorts(draft, { spec, previous: service, avoid: context.heldPorts });
  const updated: ServiceRecord = {
    ...service,
    updatedAtMs: context.nowMs,
    spec,
    ports,
    vips: claimVips(draft, service.id, { spec, ports, previous: service.vips }),
    networkIds: networkIdsOf(draft, spec),
  };
  claimPorts(draft, updated, service);
  const taskVersion = service.taskVersion + (needsNewTasks(service, updated) ? 1 : 0);
  draft.save('services', { ...updated, taskVersion });
  return updated;
}

/** Deletes a service: its name, ports and VIPs are free at once, its tasks end and go. */
export function deleteService(draft: Draft, service: ServiceRecord, nowMs: number): void {
  for (const task of [...draft.tasksOfService(service.id)]) {
    retireTask(draft, task, 'remove', nowMs);
  }
  for (const vip of service.vips) releaseAddresses(draft, vip.networkId, service.id);
  releasePorts(draft, service);
  draft.delete(nameKey('services', service.spec.Name ?? ''));
  draft.drop('services', service.id);
}

function withDefaults(spec: ServiceSpec, Name: string): ServiceSpec {
  const Replicated = { Replicas: replicasOf(spec) };
  return { ...spec, Name, Mode: isGlobal(spec) ? { Global: {} } : { Replicated } };
}

/** `spec` with the ids of its networks: names may be given to other networks later. */
function withNetworkIds(draft: Draft, spec: ServiceSpec): ServiceSpec {
  const networks = spec.TaskTemplate.Networks;
  if (networks === undefined) return spec;
  const Networks = networks.map((attachment) => {
    const network = findNetwork(draft, attachment.Target);
    if (network.ingress) {
      throw invalid(
        `Service cannot be explicitly attached to the ingress network "${network.name}"`,
        'TaskTemplate.Networks',
      );
    }
    // Read as a condition: the network must still exist when this is committed.
    draft.get(recordKey('networks', network.id));
    return { ...attachment, Target: network.id };
  });
  const targets = new Set(Networks.map((attachment) => attachment.Target));
  if (targets.size < Networks.length) {
    throw invalid(
      'Invalid TaskTemplate.Networks: a network is given twice',
      'TaskTemplate.Networks',
    );
  }
  return { ...spec, TaskTemplate: { ...spec.TaskTemplate, Networks } };
}

/**
 * The service's own networks, or else the ingress network. Published ports need no interface on the
 * ingress network: the mesh leads them to the first network of the tasks.
 */
function networkIdsOf(draft: Draft, spec: ServiceSpec): readonly string[] {
  const own = (spec.TaskTemplate.Networks ?? []).map((attachment) => attachment.Target);
  return own.length === 0 ? [ingressNetworkOf(draft).id] : own;
}

/** Keeps, claims and releases VIPs so that the service has one on each network that calls for it. */
function claimVips(
  draft: Draft,
  serviceId: string,
  wish: {
    readonly spec: ServiceSpec;
    readonly ports: readonly PortConfig[];
    readonly previous: readonly NetworkAddress[];
  },
): NetworkAddress[] {
  const { spec, ports, previous } = wish;
  const own = (spec.TaskTemplate.Networks ?? []).map((attachment) => attachment.Target);
  const ingress = ports.some(isIngressPort) ? [ingressNetworkOf(draft).id] : [];
  const wanted = spec.EndpointSpec?.Mode === 'dnsrr' ? [] : [...own, ...ingress];
  for (const vip of previous) {
    if (!wanted.includes(vip.networkId)) releaseAddresses(draft, vip.networkId, serviceId);
  }
  return wanted.map((networkId) => {
    const kept = previous.find((vip) => vip.networkId === networkId);
    return kept ?? { networkId, ...claimVip(draft, serviceId, networkId) };
  });
}

function claimVip(draft: Draft, serviceId: string, networkId: string): AddressPair {
  try {
    return claimAddress(draft, networkId, { holder: serviceId, kind: 'vip' });
  } catch (error) {
    if (!(error instanceof IpamError)) throw error;
    throw invalid(error.message, undefined, error);
  }
}
