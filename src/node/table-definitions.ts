import { parseCidr, parseIpv4 } from '../core/address.ts';
import { parseIpv6Cidr } from '../core/cidr.ts';
import { type Ip, parseIp, parseIpv6 } from '../core/ip.ts';
import type { DataPlaneCommand } from '../dataplane/commands.ts';
import type { NetworkAssignment, ServiceAssignment } from '../manager/session-protocol.ts';
import { HOST_SCOPE } from '../routing-mesh/verdict.ts';
import { toVni } from '../vxlan/vni.ts';

/** What the manager says that tables follow from. */
export interface TableSources {
  readonly networks: readonly NetworkAssignment[];
  /** Those that are to be balanced. */
  readonly services: readonly ServiceAssignment[];
}

/** How a network is made. */
export type SetNetwork = Extract<DataPlaneCommand, { kind: 'setNetwork' }>;

/** A service's address in one scope and family: a dual-stack service has two in each scope. */
export interface VipDefinition {
  /** Tells it from all others. */
  readonly key: string;
  readonly serviceId: string;
  readonly scope: number;
  readonly vip: Ip;
  readonly gateway: Ip;
  /** The network whose endpoints may be behind it; absent: it is each task's first attachment. */
  readonly networkId?: string;
}

/** What the manager has said, read once. */
export interface TableDefinitions {
  /** By id, in the order in which they are to be made. */
  readonly networks: ReadonlyMap<string, SetNetwork>;
  /** By key. */
  readonly vips: ReadonlyMap<string, VipDefinition>;
}

/** Nothing at all. */
export const NO_DEFINITIONS: TableDefinitions = { networks: new Map(), vips: new Map() };

/** @throws {RangeError} if an address or VNI is none */
export function readDefinitions({ networks, services }: TableSources): TableDefinitions {
  const byId = new Map(networks.map((network) => [network.id, network]));
  const vips = services.flatMap((service) => [
    ...internalVips(service, byId),
    ...ingressVips(service, networks),
  ]);
  return {
    networks: new Map(networks.map((network) => [network.id, setNetwork(network)])),
    vips: new Map(vips.map((vip) => [vip.key, vip])),
  };
}

function setNetwork(network: NetworkAssignment): SetNetwork {
  const { vni, subnet, gateway, subnet6, gateway6, encrypted } = network;
  const ipv6 =
    subnet6 === undefined || gateway6 === undefined
      ? {}
      : { subnet6: parseIpv6Cidr(subnet6), gateway6: parseIpv6(gateway6) };
  return {
    kind: 'setNetwork',
    vni: toVni(vni),
    subnet: parseCidr(subnet),
    gateway: parseIpv4(gateway),
    ...ipv6,
    ...(encrypted === true ? { encrypted } : {}),
  };
}

function internalVips(
  { id: serviceId, vips }: ServiceAssignment,
  networks: ReadonlyMap<string, NetworkAssignment>,
): VipDefinition[] {
  return vips.flatMap(({ networkId, address, address6 }) => {
    const network = networks.get(networkId);
    if (network === undefined) return [];
    const { vni: scope, gateway, gateway6 } = network;
    const common = { serviceId, scope, networkId };
    const vips = [vipDefinition({ ...common, vip: address, gateway })];
    if (address6 === undefined || gateway6 === undefined) return vips;
    return [...vips, vipDefinition({ ...common, vip: address6, gateway: gateway6 })];
  });
}

function ingressVips(
  { id: serviceId, ingressVip, ingressVip6 }: ServiceAssignment,
  networks: readonly NetworkAssignment[],
): VipDefinition[] {
  if (ingressVip === undefined) return [];
  const { gateway = '0.0.0.0', gateway6 = '::' } = networks.find(({ ingress }) => ingress) ?? {};
  const common = { serviceId, scope: HOST_SCOPE };
  const vips = [vipDefinition({ ...common, vip: ingressVip, gateway })];
  if (ingressVip6 === undefined) return vips;
  return [...vips, vipDefinition({ ...common, vip: ingressVip6, gateway: gateway6 })];
}

function vipDefinition(
  text: Omit<VipDefinition, 'key' | 'vip' | 'gateway'> & {
    readonly vip: string;
    readonly gateway: string;
  },
): VipDefinition {
  const vip = parseIp(text.vip);
  return { ...text, vip, gateway: parseIp(text.gateway), key: `${text.scope}/${vip}` };
}
