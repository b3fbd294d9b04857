import type { Clock, Random } from '../../src/core/capabilities.ts';
import { formatIpPort, type Ip } from '../../src/core/ip.ts';
import { NODE_NOISE_CRYPTO as crypto } from '../../src/io/noise-crypto.ts';
import type { KeyPair } from '../../src/noise/crypto.ts';
import type { Endpoint, HandshakeDrop, SecureEffect } from '../../src/noise/effects.ts';
import type { Keypair } from '../../src/noise/keypairs.ts';
import { SecureChannels } from '../../src/noise/secure-channels.ts';
import type { PeerSpec, SessionActivity } from '../../src/noise/secure-peer.ts';

const PORT = 4789;
const START_EPOCH_MS = 1_790_000_000_000;
const SECOND_MS = 1_000;

/** Random numbers from a seed (mulberry32). */
function seeded(seed: number): Random {
  let state = seed;
  const next = (): number => {
    state = (state + 0x6d2b_79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  return { next, bytes: (length) => Uint8Array.from({ length }, () => next() * 256) };
}

interface Session {
  readonly peerId: string;
  readonly keypair: Keypair;
  isConfirmed: boolean;
  sent: number;
  received: number;
  keepalivesSent: number;
  keepalivesReceived: number;
}

/** A node: the channels under test, and a data plane that moves no bytes but keeps the rules. */
export class SimNode {
  readonly id: string;
  readonly keys: KeyPair;
  readonly channels: SecureChannels;
  /** What was refused here, in order. */
  readonly drops: HandshakeDrop[] = [];
  /** Effects of all kinds, in order. */
  readonly log: SecureEffect[] = [];
  readonly sessions: Map<number, Session> = new Map();
  /** Session that data is sent by, per peer. */
  readonly sending: Map<string, Session> = new Map();
  endpoint: Endpoint;

  constructor(id: string, address: Ip, sim: NoiseSim, seed: number) {
    this.id = id;
    this.keys = crypto.generateKeyPair();
    this.endpoint = { address, port: PORT };
    this.channels = new SecureChannels({
      identity: { crypto, staticKeys: this.keys, prologue: new Uint8Array() },
      clock: sim.clock,
      random: seeded(seed),
      timestampFloorMs: 0,
    });
  }

  get spec(): PeerSpec {
    return { id: this.id, publicKey: this.keys.publicKey, endpoint: this.endpoint };
  }
}

/** Nodes on a network without delay, on a clock that the test moves. */
export class NoiseSim {
  #nowMs = 0;
  readonly clock: Clock = {
    nowMs: () => this.#nowMs,
    epochMs: () => START_EPOCH_MS + this.#nowMs,
  };
  readonly nodes: SimNode[] = [];
  /** Says whether a datagram is lost. */
  loses: (from: SimNode, to: SimNode | undefined, bytes: Uint8Array) => boolean = () => false;
  readonly #wire: { from: SimNode; at: Endpoint; to: Endpoint; bytes: Uint8Array }[] = [];

  /** @param count - How many nodes, all of which know all others. */
  constructor(count: number, seed = 1) {
    for (let index = 0; index < count; index += 1) {
      this.nodes.push(new SimNode(`n${index}`, 0x0a00_0001 + index, this, seed + index));
    }
    for (const node of this.nodes) this.introduce(node, this.nodes);
  }

  /** Tells `node` who its peers are. */
  introduce(node: SimNode, others: readonly SimNode[]): void {
    const peers = others.filter((other) => other !== node).map((other) => other.spec);
    this.perform(node, node.channels.setPeers(peers));
  }

  /** Does what `node` was told to do; delivers nothing yet. */
  perform(node: SimNode, effects: readonly SecureEffect[]): void {
    node.log.push(...effects);
    for (const effect of effects) {
      switch (effect.kind) {
        case 'send':
          this.#wire.push({ from: node, at: node.endpoint, to: effect.to, bytes: effect.bytes });
          break;
        case 'install':
          install(node, effect.peerId, effect.keypair, effect.isConfirmed);
          break;
        case 'remove':
          remove(node, effect.peerId, effect.localIndex);
          break;
        case 'keepalive':
          this.send(node, this.node(effect.peerId), true);
          break;
        case 'drop':
          node.drops.push(effect.reason);
          break;
        default:
          break;
      }
    }
  }

  /** Delivers datagrams until none is on its way. */
  deliver(): void {
    for (let next = this.#wire.shift(); next !== undefined; next = this.#wire.shift()) {
      const { from, at, to, bytes } = next;
      const key = formatIpPort(to.address, to.port);
      const target = this.nodes.find(
        ({ endpoint }) => formatIpPort(endpoint.address, endpoint.port) === key,
      );
      if (this.loses(from, target, bytes) || target === undefined) continue;
      this.perform(target, target.channels.receive(at, bytes));
    }
  }

  /**
   * Sends data, or an empty message, as the data plane would: wanting a session where there is none.
   *
   * @returns whether it arrived and was authentic
   */
  send(from: SimNode, to: SimNode, isEmpty = false): boolean {
    const session = from.sending.get(to.id);
    if (session === undefined) {
      this.perform(from, from.channels.wantSession(to.id));
      return false;
    }
    if (isEmpty) session.keepalivesSent += 1;
    else session.sent += 1;
    if (this.loses(from, to, Uint8Array.of(4))) return false;
    return this.#receive(to, from, session.keypair, isEmpty);
  }

  #receive(node: SimNode, from: SimNode, keypair: Keypair, isEmpty: boolean): boolean {
    const session = node.sessions.get(keypair.remoteIndex);
    if (session === undefined) return false;
    if (Buffer.compare(session.keypair.receiveKey, keypair.sendKey) !== 0) return false;
    if (isEmpty) session.keepalivesReceived += 1;
    else session.received += 1;
    const { localIndex } = session.keypair;
    if (!session.isConfirmed) {
      session.isConfirmed = true;
      node.sending.set(session.peerId, session);
      this.perform(node, node.channels.confirmed(localIndex));
    }
    this.perform(node, node.channels.moved(localIndex, from.endpoint.address));
    return true;
  }

  /** Lets time pass in steps of a second, with `each` at every step. */
  run(seconds: number, each: () => void = () => {}): void {
    for (let second = 0; second < seconds; second += 1) {
      this.advance(SECOND_MS);
      each();
      this.deliver();
    }
  }

  /** Moves the clock and does what is due: the data planes' reports first, as each second brings them. */
  advance(ms: number): void {
    this.#nowMs += ms;
    for (const node of this.nodes) {
      this.perform(node, node.channels.active(takeActivities(node)));
      this.perform(node, node.channels.tick());
    }
    this.deliver();
  }

  node(id: string): SimNode {
    const found = this.nodes.find((node) => node.id === id);
    if (found === undefined) throw new Error(`no node ${id}`);
    return found;
  }
}

function install(node: SimNode, peerId: string, keypair: Keypair, isConfirmed: boolean): void {
  const counts = { sent: 0, received: 0, keepalivesSent: 0, keepalivesReceived: 0 };
  const session: Session = { peerId, keypair, isConfirmed, ...counts };
  node.sessions.set(keypair.localIndex, session);
  if (isConfirmed) node.sending.set(peerId, session);
}

function remove(node: SimNode, peerId: string, localIndex: number): void {
  if (node.sending.get(peerId)?.keypair.localIndex === localIndex) node.sending.delete(peerId);
  node.sessions.delete(localIndex);
}

function takeActivities(node: SimNode): SessionActivity[] {
  const activities = Array.from(node.sessions, ([localIndex, session]) => {
    const { sent, received, keepalivesSent, keepalivesReceived } = session;
    Object.assign(session, { sent: 0, received: 0, keepalivesSent: 0, keepalivesReceived: 0 });
    return { localIndex, sent, received, keepalivesSent, keepalivesReceived };
  });
  return activities.filter(
    (a) => a.sent + a.received + a.keepalivesSent + a.keepalivesReceived > 0,
  );
}
