import { test } from 'tap';
import { Gossip } from '../../src/gossip/gossip.ts';
import type { Alive, Message } from '../../src/gossip/messages.ts';
import { encodeMessage } from '../../src/gossip/messages.ts';
import { encodePacket } from '../../src/gossip/packet.ts';
import { StreamReader } from '../../src/gossip/push-pull.ts';
import { seededRandom } from '../support/gossip-sim.ts';

const SEED = Number(process.env.GOSSIP_SEED ?? 1);
const PACKETS = 100_000;
const MEMBERS_MAX = 64;

/** Every message type, about nodes that exist. */
function validMessages(): Message[] {
  const source = { address: '10.0.0.2', port: 7946, node: 'n2' };
  const target = { address: '10.0.0.3', port: 7946 };
  const alive: Alive = {
    kind: 'alive',
    ...{ incarnation: 2, node: 'n3', ...target, meta: Uint8Array.of(1, 2, 3) },
    versions: Uint8Array.of(1, 5, 2, 2, 5, 5),
  };
  return [
    { kind: 'ping', sequence: 1, node: 'self', source },
    { kind: 'indirectPing', sequence: 2, target, node: 'n3', nackWanted: true, source },
    { kind: 'ack', sequence: 3 },
    { kind: 'nack', sequence: 4 },
    { kind: 'suspect', incarnation: 2, node: 'self', from: 'n2' },
    { kind: 'dead', incarnation: 3, node: 'n3', from: 'n2' },
    alive,
  ];
}

/** Packets that a live node sends, its endpoint messages among them. */
function validPackets(): Uint8Array[] {
  const messages = validMessages().map(encodeMessage);
  const random = seededRandom(SEED);
  const config = { name: 'n2', address: '10.0.0.2', port: 7946, generation: 3 };
  const other = new Gossip({ random }, config, 0);
  other.packet(messages[6]!, { address: '10.0.0.3', port: 7946 }, 0);
  for (let entry = 0; entry < 10; entry++) other.table.setLocal(`key-${entry}`, { entry });
  const sent: Uint8Array[] = [];
  for (let nowMs = 0; nowMs < 5_000; nowMs += 100) {
    for (const effect of other.tick(nowMs)) if (effect.kind === 'send') sent.push(effect.bytes);
  }
  return [...messages, encodePacket(messages, true), encodePacket(messages, false), ...sent];
}

test(`${PACKETS} mutated packets: nothing thrown, all tables within bounds`, (t) => {
  const random = seededRandom(SEED);
  const below = (limit: number): number => Math.floor(random.next() * limit);
  const tuning = { membersMax: MEMBERS_MAX, queueMax: 128 };
  const config = { name: 'self', address: '10.0.0.1', port: 7946, generation: 1, tuning };
  const gossip = new Gossip({ random }, config, 0);
  const valid = validPackets();
  t.ok(
    valid.some((bytes) => bytes.includes(0x57)),
    'endpoint messages are among them',
  );
  let effects = 0;
  for (let index = 0; index < PACKETS; index++) {
    const bytes = Uint8Array.from(valid[below(valid.length)]!);
    for (let flips = below(4); flips >= 0; flips--) {
      bytes[below(bytes.length)] =
        flips === 3 ? below(256) : bytes[below(bytes.length)]! ^ (1 << below(8));
    }
    const cut = random.next() < 0.2 ? bytes.subarray(0, below(bytes.length)) : bytes;
    effects += gossip.packet(cut, { address: '10.0.0.9', port: 7946 }, index).length;
    if (index % 50 === 0) effects += gossip.tick(index).length;
    const reader = new StreamReader();
    reader.push(cut);
  }
  const members = gossip.members();
  const live = members.filter(({ state }) => state !== 'dead').length;
  t.ok(live <= MEMBERS_MAX && members.length <= MEMBERS_MAX * 2, `${members.length} members`);
  t.ok(gossip.table.digest().length <= MEMBERS_MAX);
  t.equal(members[0]?.name, 'self');
  t.equal(members[0]?.state, 'alive');
  t.ok(effects < PACKETS * 12, `${effects} effects`);
  t.ok((gossip.counters().packet_malformed ?? 0) > 1_000, 'and they were counted');
  t.end();
});

test('random bytes are dropped and never answered', (t) => {
  const random = seededRandom(SEED);
  const config = { name: 'self', address: '10.0.0.1', port: 7946, generation: 1 };
  const gossip = new Gossip({ random }, config, 0);
  for (let index = 0; index < 20_000; index++) {
    const bytes = random.bytes(Math.floor(random.next() * 64));
    const isUser = bytes[0] === 8; // which any bytes are
    const effects = gossip.packet(bytes, { address: '10.0.0.9', port: 7946 }, 0);
    if (effects.length > 0 && !isUser) t.fail(`Answered ${Buffer.from(bytes).toString('hex')}`);
  }
  t.equal(gossip.members().length, 1);
  t.end();
});
