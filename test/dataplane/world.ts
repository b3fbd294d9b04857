import {
  formatIpv4,
  GATEWAY_MAC,
  macOfIpv4,
  parseCidr,
  parseIpv4,
} from '../../src/core/address.ts';
import { formatIpPort } from '../../src/core/ip.ts';
import { ETHERTYPE_ARP, PROTO_ICMP, readMac, writeMac } from '../../src/core/packet.ts';
import { DROP_REASONS } from '../../src/dataplane/counters.ts';
import { PeerCounters } from '../../src/dataplane/peer-counters.ts';
import { type Peer, Peers } from '../../src/dataplane/peers.ts';
import { Port } from '../../src/dataplane/port.ts';
import { type Decision, Switch } from '../../src/dataplane/switch.ts';
import { flowTableBytes } from '../../src/routing-mesh/flow-table.ts';
import { Mesh } from '../../src/routing-mesh/mesh.ts';
import { Endpoint, Network } from '../../src/vxlan/fdb.ts';
import { ethernetFrame, type FrameSpec } from './frames.ts';

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
  readonly ports: Readonly<Record<'alice' | 'bob' | 'carol' | 'host', Port>>;
  /** Where frames go, and where the switch makes its own. */
  readonly start: number;
  readonly scratch: number;

  /**
   * @param view - All of it is overwritten by `send()`; whoever decides by hand may share it.
   * @param base - Of 2 KiB that are the world's.
   * @param frameAt - Where frames start, from `base`.
   */
  constructor(view: DataView = new DataView(new ArrayBuffer(2048)), base = 0, frameAt = 98) {
    this.view = view;
    this.scratch = base + 34;
    this.start = base + frameAt;
    this.bytes = new Uint8Array(view.buffer);
    const capacity = 4096;
    const memory = new Uint8Array(flowTableBytes(capacity));
    this.mesh = new Mesh({ memory, capacity, hashKey: Uint8Array.of(1, 9, 2, 8, 3, 7, 4, 6) });
    const { mesh, peers, scratch } = this;
    this.decide = new Switch({ view, mesh, peers, scratch });
    this.ports = {
      alice: makePort(1, 'alice', BLUE),
      bob: makePort(2, 'bob', BLUE),
      carol: makePort(3, 'carol', RED),
      host: makePort(4, 'host', HOST_SCOPE),
    };
    const { alice, bob, carol, host } = this.ports;
    const blue = new Network<Port, Peer>(BLUE, parseCidr('240.0.1.0/24'), parseIpv4(GATEWAY));
    for (const port of [alice, bob]) blue.set(new Endpoint(port.address, port.mac, { port }));
    const remote = address('remote');
    const peer = this.peers.add(VTEP, VTEP_PORT);
    blue.set(new Endpoint<Port, Peer>(remote, macOfIpv4(remote), { peer }));
    const red = new Network<Port, Peer>(RED, parseCidr('240.0.2.0/24'), parseIpv4('240.0.2.1'));
    red.set(new Endpoint(carol.address, carol.mac, { port: carol }));
    this.decide.networks.set(BLUE, blue).set(RED, red);
    this.decide.hostPort = host;
    this.decide.origin.vtep.setIpv4(VTEP | 0);
    this.decide.origin.vtepPort = VTEP_PORT;
    this.#addServices();
  }

  /** Decides about a frame that `from` sent: a port, or the VTEP under a network's VNI. */
  send(from: keyof World['ports'] | number, spec: FrameSpec): string {
    return this.sendBytes(from, ethernetFrame(spec));
  }

  /** The same for any bytes. What is behind them must not be touched. */
  sendBytes(from: keyof World['ports'] | number, frame: Uint8Array): string {
    const { start } = this;
    this.bytes.fill(0xee);
    this.bytes.set(frame, start);
    let decision: Decision;
    if (typeof from === 'number') {
      const network = this.decide.networks.get(from);
      if (network === undefined) throw new Error(`There is no network ${from}`);
      decision = this.decide.fromVtep(network, start, frame.length, false, NOW_MS);
    } else {
      decision = this.decide.fromPort(this.ports[from], start, frame.length, false, NOW_MS);
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
      this.mesh.setService({
        scope,
        vip: parseIpv4(vip),
        gateway: parseIpv4(GATEWAY),
        backends: addresses.map((one) => ({
          id: `task-${one}`,
          address: one,
          scope: BLUE,
          weight: 1,
          state: 'active',
        })),
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
    const hasPorts =
      view.getUint8(start + 23) !== PROTO_ICMP && (view.getUint16(start + 20) & 0x1fff) === 0;
    const end = (at: number, port: number): string =>
      `${formatIpv4(view.getUint32(at))}${hasPorts ? `:${view.getUint16(port)}` : ''}`;
    return `${macs} ${end(start + 26, start + 34)}>${end(start + 30, start + 36)}`;
  }
}

function makePort(id: number, name: Name, scope: number): Port {
  return new Port({ id, fd: -1, scope, address: address(name), mac: macOfIpv4(address(name)) });
}

function macName(mac: number): string {
  if (mac === GATEWAY_MAC) return 'gateway';
  const found = Object.entries(ADDRESSES).find(([, text]) => macOfIpv4(parseIpv4(text)) === mac);
  return found?.[0] ?? mac.toString(16).padStart(12, '0');
}

/** Who has `target`? Asked by `sender` (RFC 826). */
export function arpRequest(sender: string, target: string): Uint8Array {
  const bytes = new Uint8Array(42);
  const view = new DataView(bytes.buffer);
  const mac = macOfIpv4(parseIpv4(sender));
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
