// Half an hour of flows in virtual time: what is over leaves nothing behind.
import { test } from 'tap';
import { parseIp } from '../../src/core/ip.ts';
import {
  Packet,
  PROTO_ICMP,
  PROTO_TCP,
  PROTO_UDP,
  parseFrame,
  TCP_ACK,
  TCP_FIN,
  TCP_RST,
  TCP_SYN,
} from '../../src/core/packet.ts';
import { flowTableBytes } from '../../src/routing-mesh/flow-table.ts';
import { Mesh } from '../../src/routing-mesh/mesh.ts';
import { Verdict } from '../../src/routing-mesh/verdict.ts';
import { frame, type PacketSpec } from './packets.ts';

const SCOPE = 4096;
const START_MS = 1_790_000_000_000;
const SECOND_MS = 1_000;
const MINUTES = 30;
/** Ten times the entries that live at once: no set of the table is ever full. */
const CAPACITY = 32_768;
/** Fragmented datagrams under way: a part of those that there is room for. */
const DATAGRAMS = 200;
/** When a flow that was established and then fell silent is over, and then some. */
const LONGEST_IDLE_MS = 5 * 24 * 3_600_000 + SECOND_MS;
const VIP = '10.1.0.100';
const VIP6 = 'fd01::100';

/** A mesh with a service of each family, whose clients' packets are given to it. */
class Clients {
  readonly mesh = new Mesh({
    memory: new Uint8Array(flowTableBytes(CAPACITY)),
    capacity: CAPACITY,
    hashKey: Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8),
  });
  nowMs = START_MS;
  readonly #packet = new Packet();
  readonly #verdict = new Verdict();
  #next = 0;

  constructor() {
    for (const [vip, gateway, backend] of [
      [VIP, '10.1.0.1', '10.1.0.12'],
      [VIP6, 'fd01::1', 'fd01::12'],
    ] as const) {
      const address = parseIp(backend);
      this.mesh.setService({
        ...{ scope: SCOPE, vip: parseIp(vip), gateway: parseIp(gateway) },
        backends: [{ id: backend, address, scope: SCOPE, weight: 1, state: 'active' }],
      });
    }
  }

  /** All entries of the table, and the flows that are counted. */
  get size(): readonly [entries: number, ...flows: number[]] {
    const counted = [PROTO_TCP, PROTO_UDP, PROTO_ICMP].map((one) => this.mesh.activeFlows(one));
    return [[...this.mesh.flows(this.nowMs)].length, ...counted];
  }

  /** Gives a packet to the mesh, and says what becomes of it. */
  send(spec: PacketSpec): string {
    const view = frame(spec);
    parseFrame(view, 0, view.byteLength, this.#packet);
    this.mesh.fromLocal(this.#packet, view, SCOPE, false, this.nowMs, this.#verdict);
    const { kind, dropReason } = this.#verdict;
    return kind === 'drop' ? dropReason : kind;
  }

  /** A client's address and port that were not used for long. */
  client(isV6 = false): string {
    this.#next += 1;
    const host = (this.#next >>> 14) & 0xff;
    const port = 1_024 + (this.#next & 0x3fff);
    return isV6 ? `[fd01::${(0x200 + host).toString(16)}]:${port}` : `10.1.1.${host}:${port}`;
  }

  /** A second passes: the table is swept, as the packet loop does. */
  tick(): void {
    this.nowMs += SECOND_MS;
    this.mesh.sweep(CAPACITY, this.nowMs);
  }
}

/** One flow of each kind that ends, or is given up. */
function oneOfEach(clients: Clients): void {
  for (const isV6 of [false, true]) {
    const vip = isV6 ? `[${VIP6}]:80` : `${VIP}:80`;
    const backend = isV6 ? '[fd01::12]:80' : '10.1.0.12:80';
    const closed = clients.client(isV6);
    clients.send({ from: closed, to: vip, tcpFlags: TCP_SYN });
    clients.send({ from: backend, to: closed, tcpFlags: TCP_SYN | TCP_ACK });
    clients.send({ from: closed, to: vip, tcpFlags: TCP_ACK });
    clients.send({ from: closed, to: vip, tcpFlags: TCP_FIN | TCP_ACK });
    clients.send({ from: backend, to: closed, tcpFlags: TCP_FIN | TCP_ACK });
    clients.send({ from: closed, to: vip, tcpFlags: TCP_ACK });
    const reset = clients.client(isV6);
    clients.send({ from: reset, to: vip, tcpFlags: TCP_SYN });
    clients.send({ from: backend, to: reset, tcpFlags: TCP_RST });
    clients.send({ from: clients.client(isV6), to: vip, tcpFlags: TCP_SYN });
    clients.send({ from: clients.client(isV6), to: vip, protocol: PROTO_UDP });
  }
}

test('flows come and go, and the table is as large as those that live', (t) => {
  const clients = new Clients();
  const empty = clients.size;
  t.same(empty, [0, 0, 0, 0]);
  const sizes: number[] = [];
  for (let second = 1; second <= MINUTES * 60; second += 1) {
    oneOfEach(clients);
    clients.tick();
    if (second % 300 === 0) sizes.push(clients.size[0]);
  }
  t.equal(clients.mesh.evictions, 0, 'none had to make room');
  const [first = 0] = sizes;
  t.ok(first > 1_000, `${first} entries after five minutes`);
  t.same(new Set(sizes), new Set([first]), 'as many ever after');
  clients.nowMs += 181 * SECOND_MS;
  clients.tick();
  t.same(clients.size, empty, 'all are over three minutes after the last packet');
  t.end();
});

test('connections that were never closed are forgotten in the end', (t) => {
  const clients = new Clients();
  for (let flow = 0; flow < 1_000; flow += 1) {
    const client = clients.client();
    clients.send({ from: client, to: `${VIP}:80`, tcpFlags: TCP_SYN });
    clients.send({ from: '10.1.0.12:80', to: client, tcpFlags: TCP_SYN | TCP_ACK });
    clients.send({ from: client, to: `${VIP}:80`, tcpFlags: TCP_ACK });
  }
  clients.nowMs += 600 * SECOND_MS;
  clients.tick();
  t.same(clients.size, [2_000, 1_000, 0, 0], 'they are idle, and stay');
  clients.nowMs += LONGEST_IDLE_MS;
  clients.tick();
  t.same(clients.size, [0, 0, 0, 0]);
  t.end();
});

test('a fragmented datagram is followed, and then forgotten', (t) => {
  const clients = new Clients();
  const datagram = (identification: number, rest: Partial<PacketSpec>): PacketSpec => ({
    ...{ from: '10.1.1.1:5000', to: `${VIP}:80`, protocol: PROTO_UDP, identification },
    ...{ payload: new Uint8Array(64), ...rest },
  });
  const fates = (): Record<string, number> => {
    const count: Record<string, number> = {};
    for (let number = 0; number < DATAGRAMS; number += 1) {
      const fate = clients.send(datagram(number, { fragmentOffset: 72 }));
      count[fate] = (count[fate] ?? 0) + 1;
    }
    return count;
  };
  for (let number = 0; number < DATAGRAMS; number += 1) {
    clients.send(datagram(number, { moreFragments: true }));
  }
  t.same(fates(), { forward: DATAGRAMS });
  clients.nowMs += 31 * SECOND_MS;
  clients.tick();
  t.same(fates(), { 'fragment-without-first': DATAGRAMS });
  t.end();
});
