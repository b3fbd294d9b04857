import { formatMac, macOfIpv4, parseIpv4 } from '../core/address.ts';
import { formatHostPort } from '../core/ip.ts';
import type { ClusterState } from './cluster-state.ts';
import { recordKey, type TableName } from './keys.ts';
import { taskName } from './lookup.ts';
import { ENCRYPTED_OPTION, type IpamConfig, ipamConfigsOf, VNI_OPTION } from './network-spec.ts';
import type {
  NetworkAddress,
  NetworkRecord,
  NodeRecord,
  ServiceRecord,
  TaskRecord,
} from './records.ts';
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
            Addr: formatHostPort(node.advertiseAddress, managerPort),
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
  const { subnet, gateway, subnet6, gateway6, spec } = network;
  const { ipv4, ipv6 } = ipamConfigsOf(spec);
  const Config = [ipamConfig(subnet, gateway, ipv4)];
  if (subnet6 !== undefined) Config.push(ipamConfig(subnet6, gateway6, ipv6));
  return { Driver: 'default', Options: null, Config };
}

function ipamConfig(
  Subnet: string,
  Gateway: string | undefined,
  asked: IpamConfig = {},
): DockerObject {
  return {
    Subnet,
    ...(asked.IPRange ? { IPRange: asked.IPRange } : {}),
    Gateway,
    ...(asked.AuxiliaryAddresses ? { AuxiliaryAddresses: asked.AuxiliaryAddresses } : {}),
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
    EnableIPv6: network.subnet6 !== undefined,
    IPAM: ipamOf(network),
    Internal: network.spec.Internal ?? false,
    Attachable: network.spec.Attachable ?? false,
    Ingress: network.ingress,
    ConfigFrom: { Network: '' },
    ConfigOnly: false,
    Options: driverOptions(network),
    Labels: network.spec.Labels ?? {},
  };
}

/** Docker's `NetworkInspect`; `Containers` are the tasks on it, of all nodes. */
export function networkObject(state: ClusterState, network: NetworkRecord): DockerObject {
  const Containers: Record<string, DockerObject> = {};
  for (const task of state.all('tasks')) {
    const attachment = task.attachments.find(({ networkId }) => networkId === network.id);
    if (!task.holdsAddresses || task.nodeId === undefined || attachment === undefined) continue;
    const [IPv4Address, IPv6Address = ''] = withPrefixes(network, attachment);
    Containers[task.id] = {
      Name: taskName(task),
      EndpointID: task.id,
      MacAddress: formatMac(macOfIpv4(parseIpv4(attachment.address))),
      IPv4Address,
      IPv6Address,
    };
  }
  const ready = [...state.all('nodes')].filter((node) => node.state === 'ready');
  const Peers = ready.map((node) => ({ Name: node.id, IP: node.advertiseAddress }));
  return { ...networkSummary(network), Containers, Peers };
}

/** The addresses on `network`, IPv4 first, with its prefix lengths; without if it is gone. */
function withPrefixes(
  network: NetworkRecord | undefined,
  { address, address6 }: NetworkAddress,
): string[] {
  const withPrefix = (text: string, subnet: string | undefined): string =>
    subnet === undefined ? text : text + subnet.slice(subnet.indexOf('/'));
  const addresses = [withPrefix(address, network?.subnet)];
  if (address6 !== undefined) addresses.push(withPrefix(address6, network?.subnet6));
  return addresses;
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
      VirtualIPs: service.vips.flatMap((vip) =>
        withPrefixes(state.find('networks', vip.networkId), vip).map((Addr) => ({
          NetworkID: vip.networkId,
          Addr,
        })),
      ),
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
    NetworksAttachments: task.attachments.map((attachment) => ({
      Network: attachedNetwork(state, attachment.networkId),
      Addresses: withPrefixes(state.find('networks', attachment.networkId), attachment),
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

/** The options that an overlay has in the end: those it was made with, and its VNI. */
function driverOptions({ spec, vni }: NetworkRecord): Readonly<Record<string, string>> {
  const encrypted = spec.Options?.[ENCRYPTED_OPTION];
  return {
    ...(encrypted === undefined ? {} : { [ENCRYPTED_OPTION]: encrypted }),
    [VNI_OPTION]: String(vni),
  };
}

function attachedNetwork(state: ClusterState, networkId: string): DockerObject {
  const network = state.find('networks', networkId);
  if (network === undefined) return { ID: networkId };
  const { subnet, gateway, subnet6, gateway6 } = network;
  const Configs = [{ Subnet: subnet, Gateway: gateway }];
  if (subnet6 !== undefined && gateway6 !== undefined) {
    Configs.push({ Subnet: subnet6, Gateway: gateway6 });
  }
  return {
    ...objectHeader(state, 'networks', network),
    Spec: { Name: network.name, Labels: network.spec.Labels ?? {}, Ingress: network.ingress },
    DriverState: { Name: 'overlay', Options: driverOptions(network) },
    IPAMOptions: { Driver: { Name: 'default' }, Configs },
  };
}
