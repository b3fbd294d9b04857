import { formatMac, macOfIpv4, parseCidr, parseIpv4 } from '../core/address.ts';
import type { ClusterState } from './cluster-state.ts';
import { recordKey, type TableName } from './keys.ts';
import { taskName } from './lookup.ts';
import { VNI_OPTION } from './network-spec.ts';
import type { NetworkRecord, NodeRecord, ServiceRecord, TaskRecord } from './records.ts';
import { isGlobal, replicasOf } from './service-spec.ts';
import { isLive } from './task-states.ts';

/** A Docker Engine API object (v1.54), ready for JSON. */
export type DockerObject = Readonly<Record<string, unknown>>;

/** RFC 3339, as Docker writes times. */
export function timestamp(epochMs: number): string {
  return new Date(epochMs).toISOString();
}

/** What all of Docker's swarm objects begin with; `Index` is what an update must give back. */
export function objectHeader(
  state: ClusterState,
  table: TableName,
  record: { readonly id: string; readonly createdAtMs: number; readonly updatedAtMs: number },
): DockerObject {
  return {
    ID: record.id,
    Version: { Index: state.revisionOf(recordKey(table, record.id)) },
    CreatedAt: timestamp(record.createdAtMs),
    UpdatedAt: timestamp(record.updatedAtMs),
  };
}

/** Docker's `Node`. */
export function nodeObject(
  state: ClusterState,
  node: NodeRecord,
  managerPort: number,
): DockerObject {
  const { description } = node;
  return {
    ...objectHeader(state, 'nodes', node),
    Spec: { Labels: node.labels, Role: node.role, Availability: node.availability },
    Description: {
      Hostname: description.hostname,
      Platform: {
        Architecture: description.platform.architecture,
        OS: description.platform.os,
      },
      Resources: {
        NanoCPUs: description.resources.nanoCpus,
        MemoryBytes: description.resources.memoryBytes,
      },
      Engine: {
        EngineVersion: description.agentVersion,
        Labels: description.labels ?? {},
        Plugins: [{ Type: 'Network', Name: 'overlay' }],
      },
    },
    Status: {
      State: node.state,
      ...(messageOf(node) === '' ? {} : { Message: messageOf(node) }),
      Addr: node.advertiseAddress,
    },
    ...(node.role === 'manager'
      ? {
          ManagerStatus: {
            Leader: true, // One manager for now: it leads.
            Reachability: node.state === 'down' ? 'unreachable' : 'reachable',
            Addr: `${node.advertiseAddress}:${managerPort}`,
          },
        }
      : {}),
  };
}

/** Why a node is as it is, published ports that it cannot serve included. */
function messageOf(node: NodeRecord): string {
  const conflicts = node.portConflicts.map(
    ({ protocol, port, holder }) =>
      `cannot serve published port ${port}/${protocol}: ${holder} holds it`,
  );
  return [node.message, ...conflicts].filter((text) => text !== '').join('; ');
}

function ipamOf(network: NetworkRecord): DockerObject {
  const config = network.spec.IPAM?.Config?.[0];
  return {
    Driver: 'default',
    Options: null,
    Config: [
      {
        Subnet: network.subnet,
        ...(config?.IPRange ? { IPRange: config.IPRange } : {}),
        Gateway: network.gateway,
        ...(config?.AuxiliaryAddresses ? { AuxiliaryAddresses: config.AuxiliaryAddresses } : {}),
      },
    ],
  };
}

/** Docker's `NetworkSummary`. */
export function networkSummary(network: NetworkRecord): DockerObject {
  return {
    Name: network.name,
    Id: network.id,
    Created: timestamp(network.createdAtMs),
    Scope: 'swarm',
    Driver: 'overlay',
    EnableIPv4: true,
    EnableIPv6: false,
    IPAM: ipamOf(network),
    Internal: network.spec.Internal ?? false,
    Attachable: network.spec.Attachable ?? false,
    Ingress: network.ingress,
    ConfigFrom: { Network: '' },
    ConfigOnly: false,
    Options: { [VNI_OPTION]: String(network.vni) },
    Labels: network.spec.Labels ?? {},
  };
}

/** Docker's `NetworkInspect`; `Containers` are the tasks on it, of all nodes. */
export function networkObject(state: ClusterState, network: NetworkRecord): DockerObject {
  const { prefix } = parseCidr(network.subnet);
  const Containers: Record<string, DockerObject> = {};
  for (const task of state.all('tasks')) {
    const attachment = task.attachments.find(({ networkId }) => networkId === network.id);
    if (!task.holdsAddresses || task.nodeId === undefined || attachment === undefined) continue;
    Containers[task.id] = {
      Name: taskName(task),
      EndpointID: task.id,
      MacAddress: formatMac(macOfIpv4(parseIpv4(attachment.address))),
      IPv4Address: `${attachment.address}/${prefix}`,
      IPv6Address: '',
    };
  }
  const ready = [...state.all('nodes')].filter((node) => node.state === 'ready');
  const Peers = ready.map((node) => ({ Name: node.id, IP: node.advertiseAddress }));
  return { ...networkSummary(network), Containers, Peers };
}

/** `address` with the prefix length of the network that it is on. */
function withPrefix(state: ClusterState, networkId: string, address: string): string {
  const network = state.find('networks', networkId);
  return network === undefined ? address : `${address}/${parseCidr(network.subnet).prefix}`;
}

/** Docker's `Service`. @param withStatus - Whether to count its tasks, as lists do when asked. */
export function serviceObject(
  state: ClusterState,
  service: ServiceRecord,
  withStatus = false,
): DockerObject {
  const { spec } = service;
  const isVip = spec.EndpointSpec?.Mode !== 'dnsrr';
  return {
    ...objectHeader(state, 'services', service),
    Spec: { ...spec, Labels: spec.Labels ?? {} },
    Endpoint: {
      Spec: { Mode: isVip ? 'vip' : 'dnsrr', Ports: spec.EndpointSpec?.Ports ?? [] },
      Ports: service.ports,
      VirtualIPs: service.vips.map(({ networkId, address }) => ({
        NetworkID: networkId,
        Addr: withPrefix(state, networkId, address),
      })),
    },
    ...(withStatus ? { ServiceStatus: serviceStatus(state, service) } : {}),
  };
}

function serviceStatus(state: ClusterState, service: ServiceRecord): DockerObject {
  const tasks = [...state.tasksOfService(service.id)];
  const desired = tasks.filter(isLive).length;
  return {
    RunningTasks: tasks.filter((task) => isLive(task) && task.status.state === 'running').length,
    DesiredTasks: isGlobal(service.spec) ? desired : replicasOf(service.spec),
    CompletedTasks: tasks.filter((task) => task.status.state === 'complete').length,
  };
}

/** Docker's `Task`. */
export function taskObject(state: ClusterState, task: TaskRecord): DockerObject {
  return {
    ...objectHeader(state, 'tasks', task),
    Name: taskName(task),
    Labels: task.serviceLabels,
    Spec: currentSpec(state, task),
    ServiceID: task.serviceId,
    ...(task.slot === 0 ? {} : { Slot: task.slot }),
    ...(task.nodeId === undefined ? {} : { NodeID: task.nodeId }),
    Status: taskStatus(task),
    DesiredState: task.desiredState,
    NetworksAttachments: task.attachments.map(({ networkId, address }) => ({
      Network: attachedNetwork(state, networkId),
      Addresses: [withPrefix(state, networkId, address)],
    })),
  };
}

/** Placement and restart policy hold for the tasks that are there, without new ones being made. */
function currentSpec(state: ClusterState, task: TaskRecord): TaskRecord['spec'] {
  const service = state.find('services', task.serviceId);
  return service?.taskVersion === task.taskVersion ? service.spec.TaskTemplate : task.spec;
}

function taskStatus(task: TaskRecord): DockerObject {
  const { state, message, err, timestampMs, pid, exitCode } = task.status;
  return {
    Timestamp: timestamp(timestampMs),
    State: state,
    Message: message,
    ...(err === undefined ? {} : { Err: err }),
    ContainerStatus: {
      ContainerID: task.id,
      PID: pid ?? 0,
      ExitCode: exitCode ?? 0,
    },
    PortStatus: task.hostPorts.length === 0 ? {} : { Ports: task.hostPorts },
  };
}

function attachedNetwork(state: ClusterState, networkId: string): DockerObject {
  const network = state.find('networks', networkId);
  if (network === undefined) return { ID: networkId };
  const Configs = [{ Subnet: network.subnet, Gateway: network.gateway }];
  return {
    ...objectHeader(state, 'networks', network),
    Spec: { Name: network.name, Labels: network.spec.Labels ?? {}, Ingress: network.ingress },
    DriverState: { Name: 'overlay', Options: { [VNI_OPTION]: String(network.vni) } },
    IPAMOptions: { Driver: { Name: 'default' }, Configs },
  };
}
