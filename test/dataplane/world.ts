import {
  formatIpv4,
  GATEWAY_MAC,
  macOfIpv4,
  parseCidr,
  parseIpv4,
} from '../../src/core/address.ts';
import { AddressWords } from '../../src/core/address-words.ts';
import { formatIpPort, type Ip, type Ipv6, ipFromWords, isIpv6 } from '../../src/core/ip.ts';
import {
  ETHERTYPE_ARP,
  PROTO_ICMP,
  PROTO_ICMPV6,
  readMac,
  writeMac,
} from '../../src/core/packet.ts';
import { DROP_REASONS } from '../../src/dataplane/counters.ts';
import type { Decision } from '../../src/dataplane/decision.ts';
import { PeerCounters } from '../../src/dataplane/peer-counters.ts';
import { type Peer, Peers } from '../../src/dataplane/peers.ts';
import { Port } from '../../src/dataplane/port.ts';
import { Switch } from '../../src/dataplane/switch.ts';
import { flowTableBytes } from '../../src/routing-mesh/flow-table.ts';
import { Mesh } from '../../src/routing-mesh/mesh.ts';
import { Endpoint, type EndpointNames, Network } from '../../src/vxlan/fdb.ts';
import { endpoint, endpointText } from '../routing-mesh/packets.ts';
import { ethernetFrame, type FrameSpec, parsedAt } from './frames.ts';

export const NOW_MS = 1_790_000_000_000;
export const BLUE = 4096;
export const RED = 4097;
const HOST_SCOPE = 0;

// Addresses above 128.0.0.0 do not fit V8's small integers: those would show an allocation.
const ADDRESSES = {
  alice: '240.0.1.11',
  bob: '240.0.1.12',
  carol: '240.0.2.11',
  remote: '240.0.1.13',
  host: '240.255.0.2',
} as const;
type Name = keyof typeof ADDRESSES;
export const GATEWAY = '240.0.1.1';
export const VTEP: number = parseIpv4('198.51.100.2');
export const VTEP_PORT = 4789;
/** VIPs on the blue network by what is behind them, and VIPs of published ports. */
export const VIPS = {
  bob: '240.0.1.100',
  remote: '240.0.1.101',
  nobody: '240.0.1.102',
  stranger: '240.0.1.103',
  publishedBob: '240.255.0.100',
  publishedRemote: '240.255.0.101',
} as const;

function address(name: Name): number {
  return parseIpv4(ADDRESSES[name]);
}

/** Families that the world speaks; tests name everything in IPv4. */
export type Family = 4 | 6;
export const FAMILIES: readonly Family[] = [4, 6];
const PREFIX6 = 0xfdff_0000 | 0;

/** The IPv6 address with the same last four bytes. */
export function toIpv6(address: Ip): Ipv6 {
  const ip = isIpv6(address) ? address : ipFromWords(PREFIX6, 0, 0, address | 0);
  if (!isIpv6(ip)) throw new Error(`No IPv6 address for ${address}`);
  return ip;
}

/** `240.0.1.11:80` in a family: itself, or `[fdff::f000:10b]:80`. */
export function inFamily(family: Family, text: string): string {
  const { address: ip, port } = endpoint(text);
  return family === 4 ? text : endpointText(toIpv6(ip), port);
}

/** The other way round. */
function named(words: AddressWords): Ip {
  return words.w0 === PREFIX6 ? words.w3 >>> 0 : words.toIp();
}

/** A frame in a family. */
export function frameIn(family: Family, spec: FrameSpec): FrameSpec {
  if (family === 4) return spec;
  const { protocol, icmpType } = spec;
  const types = { icmpType: icmpType === 0 ? 129 : 128 };
  const icmp = protocol === PROTO_ICMP ? { protocol: PROTO_ICMPV6, ...types } : {};
  return { ...spec, from: inFamily(6, spec.from), to: inFamily(6, spec.to), ...icmp };
}

/**
 * One host with a switch: alice and bob on the blue network, carol on the red one, the host's own port, and a
 * remote task on the blue network behind a VTEP.
 */
export class World {
  readonly view: DataView;
  readonly bytes: Uint8Array;
  readonly decide: Switch;
  readonly mesh: Mesh;
  readonly peerCounters: PeerCounters = new PeerCounters();
  readonly peers: Peers = new Peers(undefined, this.peerCounters);
  /** The flow table's memory. */
  readonly flows: Uint8Array;
  readonly ports: Readonly<Record<'alice' | 'bob' | 'carol' | 'host', Port>>;
  /** Where frames go, and where the switch makes its own. */
  readonly start: number;
  readonly scratch: number;

  /**
   * @param view - All of it is overwritten by `send()`; whoever decides by hand may share it.
   * @param base - Of 2 KiB that are the world's.
   * @param frameAt - Where frames start, from `base`.
   */
  constructor(view: DataView = new DataView(new ArrayBuffer(2048)), base = 0, frameAt = 146) {
    this.view = view;
    this.scratch = base + 34;
    this.start = base + frameAt;
    this.bytes = new Uint8Array(view.buffer);
    const capacity = 4096;
    this.flows = new Uint8Array(flowTableBytes(capacity));
    this.mesh = new Mesh({
      memory: this.flows,
      capacity,
      hashKey: Uint8Array.of(1, 9, 2, 8, 3, 7, 4, 6),
    });
    const { mesh, peers, scratch } = this;
    this.decide = new Switch({ view, mesh, peers, scratch });
    this.ports = {
      alice: makePort(1, 'alice', BLUE),
      bob: makePort(2, 'bob', BLUE),
      carol: makePort(3, 'carol', RED),
      host: makePort(4, 'host', HOST_SCOPE),
    };
    const { alice, bob, carol, host } = this.ports;
    const blue = makeNetwork(BLUE, '240.0.1.0/24', GATEWAY);
    for (const port of [alice, bob]) blue.set(new Endpoint(port, { port }));
    const peer = this.peers.add(VTEP, VTEP_PORT);
    blue.set(new Endpoint<Port, Peer>(namesOf('remote'), { peer }));
    const red = makeNetwork(RED, '240.0.2.0/24', '240.0.2.1');
    red.set(new Endpoint(carol, { port: carol }));
    this.decide.networks.set(BLUE, blue).set(RED, red);
    this.decide.hostPort = host;
    this.decide.origin.vtep.setIpv4(VTEP | 0);
    this.decide.origin.vtepPort = VTEP_PORT;
    this.#addServices();
  }

  /**
   * Decides about a frame that `from` sent, a port, or the VTEP under a network's VNI; and tells it in IPv4. The
   * host sends all by its own MAC.
   */
  send(from: keyof World['ports'] | number, spec: FrameSpec, family: Family = 4): string {
    const host = from === 'host' ? { fromMac: this.ports.host.mac } : {};
    return this.sendBytes(from, ethernetFrame(frameIn(family, { ...host, ...spec })));
  }

  /** The same for any bytes. What is behind them must not be touched. */
  sendBytes(
    from: keyof World['ports'] | number,
    frame: Uint8Array,
    nowMs: number = NOW_MS,
  ): string {
    const { start } = this;
    this.bytes.fill(0xee);
    this.bytes.set(frame, start);
    let decision: Decision;
    if (typeof from === 'number') {
      const network = this.decide.networks.get(from);
      if (network === undefined) throw new Error(`There is no network ${from}`);
      decision = this.decide.fromVtep(network, start, frame.length, false, nowMs);
    } else {
      decision = this.decide.fromPort(this.ports[from], start, frame.length, false, nowMs);
    }
    if (this.bytes.subarray(start + frame.length).some((byte) => byte !== 0xee)) {
      throw new Error('The switch wrote behind the frame');
    }
    return this.#tell(decision);
  }

  #addServices(): void {
    const stranger = parseIpv4('240.0.1.99');
    for (const [scope, vip, addresses] of [
      [BLUE, VIPS.bob, [address('bob')]],
      [BLUE, VIPS.remote, [address('remote')]],
      [BLUE, VIPS.nobody, []],
      [BLUE, VIPS.stranger, [stranger]],
      [HOST_SCOPE, VIPS.publishedBob, [address('bob')]],
      [HOST_SCOPE, VIPS.publishedRemote, [address('remote')]],
    ] as const) {
      const backends = addresses.map((one) => ({
        id: `task-${one}`,
        address: one,
        scope: BLUE,
        weight: 1,
        state: 'active' as const,
      }));
      const gateway = parseIpv4(GATEWAY);
      this.mesh.setService({ scope, vip: parseIpv4(vip), gateway, backends });
      this.mesh.setService({
        scope,
        vip: toIpv6(parseIpv4(vip)),
        gateway: toIpv6(gateway),
        backends: backends.map((one) => ({ ...one, address: toIpv6(one.address) })),
      });
    }
  }

  /** A decision and the frame that it is about, in one line. */
  #tell(decision: Decision): string {
    const { action, port, vni, peer } = decision;
    switch (action) {
      case 'drop':
        return `drop ${DROP_REASONS[decision.drop]}`;
      case 'port': {
        const name = Object.entries(this.ports).find(([, one]) => one === port)?.[0];
        return `port ${name}: ${this.#frameAt(this.start)}`;
      }
      case 'vtep':
        return `vtep ${formatIpPort(peer?.address ?? 0, peer?.port ?? 0)}/${vni}: ${this.#frameAt(this.start)}`;
      case 'back':
        return `${decision.answer}: ${this.#frameAt(decision.answerStart)}`;
    }
  }

  #frameAt(start: number): string {
    const { view } = this;
    const macs = `${macName(readMac(view, start + 6))}>${macName(readMac(view, start))}`;
    if (view.getUint16(start + 12) === ETHERTYPE_ARP) {
      const owner = formatIpv4(view.getUint32(start + 28));
      return `${macs} ${owner} is ${macName(readMac(view, start + 22))}`;
    }
    const packet = parsedAt(view, start, this.bytes.length - start);
    const words = new AddressWords();
    const end = (at: number, port: number): string => {
      words.read(view, at, packet.family);
      return endpointText(named(words), packet.isIcmp ? 0 : port);
    };
    const { sourceStart, sourcePort, destinationStart, destinationPort } = packet;
    return `${macs} ${end(sourceStart, sourcePort)}>${end(destinationStart, destinationPort)}`;
  }
}

/** What names a task or the host on its network. */
export function namesOf(name: Name): Required<EndpointNames> {
  const one = address(name);
  return { address: one, address6: toIpv6(one), mac: macOfIpv4(one) };
}

function makePort(id: number, name: Name, scope: number): Port {
  return new Port({ id, fd: -1, scope, ...namesOf(name) });
}

function makeNetwork(vni: number, subnet: string, gateway: string): Network<Port, Peer> {
  const address = parseIpv4(gateway);
  const addresses = { subnet: parseCidr(subnet), gateway: address, gateway6: toIpv6(address) };
  return new Network<Port, Peer>(vni, addresses);
}

function macName(mac: number): string {
  if (mac === GATEWAY_MAC) return 'gateway';
  const found = Object.entries(ADDRESSES).find(([, text]) => macOfIpv4(parseIpv4(text)) === mac);
  return found?.[0] ?? mac.toString(16).padStart(12, '0');
}

/** Who has `target`? Asked by `sender` (RFC 826), whose MAC follows from his address when absent. */
export function arpRequest(
  sender: string,
  target: string,
  mac: number = macOfIpv4(parseIpv4(sender)),
): Uint8Array {
  const bytes = new Uint8Array(42);
  const view = new DataView(bytes.buffer);
  bytes.fill(0xff, 0, 6);
  writeMac(view, 6, mac);
  view.setUint16(12, ETHERTYPE_ARP);
  view.setUint32(14, 0x0001_0800);
  view.setUint32(18, 0x0604_0001);
  writeMac(view, 22, mac);
  view.setUint32(28, parseIpv4(sender));
  view.setUint32(38, parseIpv4(target));
  return bytes;
}
