// Random lives of a few nodes, whose messages come late, twice, out of order or not at all, against oracles.
import fc from 'fast-check';
import { test } from 'tap';
import { BroadcastQueue } from '../../src/gossip/broadcast-queue.ts';
import { LAN_TUNING } from '../../src/gossip/config.ts';
import { type EndpointChange, Outbox } from '../../src/gossip/effects.ts';
import { EndpointSync } from '../../src/gossip/endpoint-sync.ts';
import { EndpointTable } from '../../src/gossip/endpoint-table.ts';
import { EndpointTree, TREE_FANOUT } from '../../src/gossip/endpoint-tree.ts';
import { MESSAGE_TYPE } from '../../src/gossip/messages.ts';
import type { OwnerState } from '../../src/gossip/record-store.ts';
import { seededRandom } from '../support/gossip-sim.ts';

const NAMES = ['a', 'b', 'c', 'd'];
/** All of one letter: what entries take can then be counted. */
const KEYS = ['k', 'l', 'm', 'n', 'o'];
/** Small, several to a packet, and one that no packet holds. */
const SIZES = [1, 1, 2, 500, 700, 3_000];
const ENTRY_BYTES = 161;
const { tombstoneMs, streamTimeoutMs } = LAN_TUNING;

type Step = readonly [what: number, who: number, at: number, chance: number];

/** A message on its way; `ask` and `answer` are a stream's. */
interface Letter {
  readonly kind: 'packet' | 'ask' | 'answer';
  readonly from: string;
  readonly to: string;
  readonly payload: Uint8Array;
}

class Node {
  readonly name: string;
  readonly queue = new BroadcastQueue(100);
  readonly outbox = new Outbox();
  readonly table: EndpointTable;
  readonly sync: EndpointSync;
  /** What all changes that were reported add up to. */
  readonly shown = new Map<string, string>();

  constructor(name: string, generation: number, nowMs: number, post: (letter: Letter) => void) {
    this.name = name;
    this.table = new EndpointTable(name, generation, { tuning: LAN_TUNING }, nowMs);
    this.table.collect(nowMs);
    const peer = (to: { readonly address: string }): { from: string; to: string } => {
      return { from: name, to: to.address };
    };
    this.sync = new EndpointSync({
      ...{ tuning: LAN_TUNING, random: seededRandom(generation), table: this.table },
      ...{ outbox: this.outbox, queue: this.queue, epochMs: () => 0, hasten: () => {} },
      send: (to, messages) => {
        for (const bytes of messages) {
          if (bytes.length > LAN_TUNING.packetBytesMax) throw new Error('Larger than a packet');
          post({ kind: 'packet', ...peer(to), payload: bytes.subarray(1) });
        }
      },
      tellOf: () => {},
      isPeer: () => true,
      ask: (to, payload) => post({ kind: 'ask', ...peer(to), payload }),
    });
  }

  write(key: string, value: string | undefined): void {
    if (value === undefined) this.table.deleteLocal(key);
    else this.table.setLocal(key, value);
    const added = value === undefined ? [] : [{ key, value }];
    this.fold({ node: this.name, added, changed: [], removed: value === undefined ? [key] : [] });
  }

  setOwner(name: string, state: OwnerState, nowMs: number): void {
    this.foldEvents(); // which came before
    this.fold(this.table.setOwner(name, state, nowMs));
  }

  fold(change: EndpointChange | undefined): void {
    if (change === undefined) return;
    const { node, added, changed, removed } = change;
    for (const { key, value } of added) {
      if (node !== this.name && this.shown.has(`${node}/${key}`)) throw new Error('Added twice');
      this.shown.set(`${node}/${key}`, String(value));
    }
    for (const { key, value } of changed) {
      if (!this.shown.has(`${node}/${key}`)) throw new Error('Changed before it was added');
      this.shown.set(`${node}/${key}`, String(value));
    }
    for (const key of removed) {
      if (!this.shown.delete(`${node}/${key}`) && node !== this.name) throw new Error('Not there');
    }
  }

  foldEvents(): void {
    for (const effect of this.outbox.drain()) {
      if (effect.kind === 'event' && effect.event.kind === 'endpoints') this.fold(effect.event);
    }
  }

  /** Compares what is kept in step with what it is made from. */
  check(): void {
    this.foldEvents();
    const visible = [...this.table.visible()].map(
      ({ node, key, value }) => [`${node}/${key}`, String(value)] as const,
    );
    require(same(new Map(visible), this.shown), 'what was reported adds up to what is visible');
    require(sameTree(this.table), 'sums are those of the visible records');
    const all = new EndpointTable(this.name, 0, { tuning: LAN_TUNING }, 0);
    all.adopt(this.table);
    for (const { node } of all.digest()) all.setOwner(node, 'live', 0);
    require(sameTree(all), 'sums are those of all records when all are shown');
    let bytes = 0;
    let count = 0;
    for (const record of all.records()) {
      count++;
      bytes += record.entryCount * ENTRY_BYTES;
      for (const { content } of record.live()) bytes += content.length;
    }
    require(bytes === this.table.bytes, `${bytes} bytes are counted as ${this.table.bytes}`);
    require(count === this.table.recordCount, 'records are counted');
  }
}

function require(condition: boolean, message: string): void {
  if (!condition) throw new Error(`Does not hold: ${message}`);
}

function same(a: ReadonlyMap<string, string>, b: ReadonlyMap<string, string>): boolean {
  return a.size === b.size && [...a].every(([key, value]) => b.get(key) === value);
}

function sameTree(table: EndpointTable): boolean {
  const tree = new EndpointTree();
  for (const record of table.records()) tree.add(record.clone().fingerprint);
  const bytesOf = (one: EndpointTable['tree']): Buffer => {
    const leaves = Array.from({ length: TREE_FANOUT }, (_, branch) => one.leaves(branch));
    return Buffer.concat([one.branches(), ...leaves]);
  };
  return tree.root === table.tree.root && bytesOf(tree).equals(bytesOf(table.tree));
}

class World {
  readonly nodes = new Map<string, Node>();
  letters: Letter[] = [];
  nowMs = 0;
  #newest = 1_000;
  readonly #setBack = new Set<string>();

  constructor() {
    for (const name of NAMES) this.start(name, this.#newest);
  }

  start(name: string, generation: number): void {
    const node = new Node(name, generation, this.nowMs, (letter) => this.letters.push(letter));
    this.nodes.set(name, node);
  }

  node(index: number): Node {
    const node = this.nodes.get(NAMES[index % NAMES.length] ?? '');
    if (node === undefined) throw new Error('No such node');
    return node;
  }

  /** A new life with nothing of the last one; once the clock may have been set back before it. */
  restart(old: Node, setBack: boolean): void {
    this.#newest = Math.max(this.#newest, old.table.ownVersion.generation) + 10;
    const isBack = setBack && !this.#setBack.has(old.name);
    if (isBack) this.#setBack.add(old.name);
    this.start(old.name, isBack ? this.#setBack.size : this.#newest);
  }

  deliver({ kind, from, to, payload }: Letter): void {
    const node = this.nodes.get(to);
    const peer = { address: from, port: 1 };
    if (kind === 'packet') node?.sync.receive(payload, peer, this.nowMs);
    else if (kind === 'answer') node?.sync.answered(peer, payload, this.nowMs);
    else {
      const answer = node?.sync.serve(payload);
      const back = { kind: 'answer', from: to, to: from } as const;
      if (answer !== undefined) this.letters.push({ ...back, payload: answer });
    }
  }

  /** One round of broadcasts, to all. */
  flush(node: Node): void {
    node.sync.flush(this.nowMs);
    const messages = node.queue.take(100_000, 0, 1, 255);
    for (const to of NAMES) {
      if (to === node.name) continue;
      for (const bytes of messages) {
        if (bytes[0] !== MESSAGE_TYPE.user) throw new Error('Not a user message');
        this.letters.push({ kind: 'packet', from: node.name, to, payload: bytes.subarray(1) });
      }
    }
  }

  step([what, who, at, chance]: Step): void {
    const [node, peer] = [this.node(who), this.node(at)];
    if (what < 6) {
      const size = SIZES[chance % SIZES.length] ?? 1;
      node.write(KEYS[at % KEYS.length] ?? 'k', `${chance}${'x'.repeat(size)}`);
    } else if (what < 9) node.write(KEYS[at % KEYS.length] ?? 'k', undefined);
    else if (what < 13) this.flush(node);
    else if (what < 26) this.#deliverSome(chance, at);
    else if (what < 30) node.sync.sendSummaries([{ address: peer.name, port: 1 }]);
    else if (what < 32) node.sync.pullFrom({ address: peer.name, port: 1 }, this.nowMs);
    else if (what < 36 && node !== peer) {
      const states: OwnerState[] = ['live', 'live', 'failed', 'left'];
      node.setOwner(peer.name, states[chance % states.length] ?? 'live', this.nowMs);
    } else if (what < 38) {
      this.nowMs += (chance % 3) * (tombstoneMs / 2 + 1);
      for (const one of this.nodes.values()) if (chance % 2 === 0) one.table.collect(this.nowMs);
    } else if (what < 39) node.table.collect(this.nowMs);
    else this.restart(node, chance % 4 === 0);
  }

  /** Some one of those on their way: it may stay for another time, or get lost. */
  #deliverSome(chance: number, fate: number): void {
    const place = chance % Math.max(1, this.letters.length);
    const letter = this.letters[place];
    if (letter === undefined) return;
    if (fate % 8 !== 0) this.letters.splice(place, 1);
    if (fate % 8 !== 1) this.deliver(letter);
  }

  /** All hear of all, and nothing is lost any more, until nobody has anything to say. */
  settle(): void {
    this.nowMs += streamTimeoutMs;
    for (const node of this.nodes.values()) {
      for (const name of NAMES) {
        if (name !== node.name) node.setOwner(name, 'live', this.nowMs);
      }
    }
    for (let round = 0; round < 12; round++) {
      this.nowMs += streamTimeoutMs;
      for (const node of this.nodes.values()) {
        const others = NAMES.filter((name) => name !== node.name);
        node.sync.sendSummaries(others.map((address) => ({ address, port: 1 })));
      }
      for (let letter = this.letters.shift(); letter !== undefined; letter = this.letters.shift()) {
        this.deliver(letter);
      }
    }
  }
}

const steps = fc.array(fc.tuple(fc.nat(39), fc.nat(3), fc.nat(19), fc.nat(9_999)), {
  minLength: 20,
  maxLength: 250,
  size: 'max',
});

test('whatever happens to messages, tables are what they report, and become equal', (t) => {
  let checked = 0;
  fc.assert(
    fc.property(steps, (all) => {
      const world = new World();
      for (const step of all) {
        world.step(step);
        // One of those that the step may have changed: all of them each time take minutes.
        world.node(checked % 2 === 0 ? step[1] : step[2]).check();
        checked++;
      }
      world.settle();
      const truth = new Map<string, string>();
      for (const node of world.nodes.values()) {
        node.check();
        for (const { node: owner, key, value } of node.table.visible()) {
          if (owner === node.name) truth.set(`${owner}/${key}`, String(value));
        }
      }
      const sums = new Set([...world.nodes.values()].map(({ table }) => table.summary()));
      require(sums.size === 1, 'all have the same sums');
      for (const { shown } of world.nodes.values()) {
        require(same(shown, truth), 'all see what the owners say');
      }
    }),
    { numRuns: Number(process.env.MODEL_RUNS ?? 40) },
  );
  t.ok(checked > 500, `${checked} steps`);
  t.end();
});
