import { formatIpv4, formatMac, macOfIpv4 } from '../src/core/address.ts';
import type { Json } from '../src/core/store.ts';
import type { EndpointChange } from '../src/gossip/effects.ts';
import type { NetworkAssignment, ServiceAssignment } from '../src/manager/session-protocol.ts';
import { endpointKey, VTEP_KEY } from '../src/node/endpoint-record.ts';
import type { VisibleEntry } from '../src/node/endpoint-view.ts';

/** A cluster as large as weft is made for: what its manager says, and what its nodes announce. */
export const SIZE = { networks: 100, services: 1_000, nodes: 200, endpoints: 100_000 } as const;

const FIRST_VNI = 4_096;
const ENDPOINTS_PER_NETWORK = SIZE.endpoints / SIZE.networks;
const SERVICES_PER_NETWORK = SIZE.services / SIZE.networks;
/** Addresses below it are the gateway's and those of the services. */
const FIRST_HOST = 256;

/** All networks: a /16 each. */
export function networks(): NetworkAssignment[] {
  return Array.from({ length: SIZE.networks }, (_, index) => ({
    id: networkId(index),
    name: `network-${index}`,
    vni: FIRST_VNI + index,
    subnet: `${formatIpv4(networkAddress(index))}/16`,
    gateway: formatIpv4(networkAddress(index) + 1),
    ingress: false,
  }));
}

/** All services: each on one network, behind one VIP. */
export function services(): ServiceAssignment[] {
  return Array.from({ length: SIZE.services }, (_, index) => {
    const network = Math.floor(index / SERVICES_PER_NETWORK);
    const address = formatIpv4(networkAddress(network) + 2 + (index % SERVICES_PER_NETWORK));
    return {
      id: serviceId(index),
      name: `service-${index}`,
      vips: [{ networkId: networkId(network), address }],
      ports: [],
    };
  });
}

/** What each node announces when all of it is new: its VTEP and its share of the endpoints. */
export function firstChanges(): EndpointChange[] {
  const indexes = Array.from({ length: SIZE.endpoints }, (_, index) => index);
  const byNode = Map.groupBy(indexes, (index) => index % SIZE.nodes);
  return Array.from(byNode, ([node, endpoints]) => ({
    node: nodeId(node),
    added: [
      {
        key: VTEP_KEY,
        value: {
          address: formatIpv4(0xc612_0000 + 1 + node),
          port: 4789,
          hostname: `host-${node}`,
        },
      },
      ...endpoints.map((index) => endpoint(index, 'active')),
    ],
    changed: [],
    removed: [],
  }));
}

/** One endpoint that says something else than before. */
export function oneChange(index: number, state: 'active' | 'draining'): EndpointChange {
  const node = nodeId(index % SIZE.nodes);
  return { node, added: [], changed: [endpoint(index, state)], removed: [] };
}

/** What changes say, as a list. */
export function entriesOf(changes: readonly EndpointChange[]): VisibleEntry[] {
  return changes.flatMap(({ node, added, changed }) =>
    [...added, ...changed].map(({ key, value }) => ({ node, key, value })),
  );
}

function endpoint(index: number, state: 'active' | 'draining'): { key: string; value: Json } {
  const network = Math.floor(index / ENDPOINTS_PER_NETWORK);
  const place = index % ENDPOINTS_PER_NETWORK;
  const address = networkAddress(network) + FIRST_HOST + place;
  const service = network * SERVICES_PER_NETWORK + (place % SERVICES_PER_NETWORK);
  return {
    key: endpointKey(networkId(network), formatIpv4(address)),
    value: {
      networkId: networkId(network),
      address: formatIpv4(address),
      mac: formatMac(macOfIpv4(address)),
      serviceId: serviceId(service),
      taskId: id(3, index),
      state,
      primary: true,
    },
  };
}

function networkAddress(index: number): number {
  return 0x0a00_0000 + index * 0x1_0000;
}

function networkId(index: number): string {
  return id(1, index);
}

function serviceId(index: number): string {
  return id(2, index);
}

function nodeId(index: number): string {
  return id(4, index);
}

/** As long as the manager's. */
function id(kind: number, index: number): string {
  return `${kind}${index.toString(36).padStart(7, '0')}abcdefghijklmnopq`;
}
