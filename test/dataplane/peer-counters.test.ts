import { test } from 'tap';
import {
  makePeerCounterMemory,
  PEER_COUNTERS,
  PEER_SLOTS,
  PeerCounters,
  peerCounterIndex,
  SLOT_OF_OTHERS,
} from '../../src/dataplane/peer-counters.ts';

test('each peer has its own counters, which another thread reads', (t) => {
  const memory = makePeerCounterMemory(1);
  const written = new PeerCounters(memory);
  const read = new PeerCounters(memory);
  const last = PEER_SLOTS - 1;
  for (const [index, name] of PEER_COUNTERS.entries()) {
    t.equal(peerCounterIndex(name), index);
    written.add(last, index, index + 1);
    written.add(last, index, 2 ** 40);
    written.add(SLOT_OF_OTHERS, index, 7);
  }
  const expected = PEER_COUNTERS.map((name, index) => [name, 2 ** 40 + index + 1]);
  t.same(read.read(last), Object.fromEntries(expected));
  const none = Object.fromEntries(PEER_COUNTERS.map((name) => [name, 0]));
  t.same(read.read(1), none);
  t.same(read.read(last - 1), none);
  read.clear(last);
  t.same(written.read(last), none);
  t.equal(written.read(SLOT_OF_OTHERS)['bytes-in'], 7, 'the others keep theirs');
  t.end();
});

test('counters of a peer are those of all threads together', (t) => {
  const memory = makePeerCounterMemory(3);
  const bytesIn = peerCounterIndex('bytes-in');
  const threads = [0, 1, 2].map((thread) => new PeerCounters(memory, thread));
  for (const [thread, counters] of threads.entries()) {
    for (const slot of [SLOT_OF_OTHERS, 5, PEER_SLOTS - 1]) {
      counters.add(slot, bytesIn, 10 ** thread * (slot + 1));
    }
  }
  const reader = new PeerCounters(memory);
  t.match(reader.read(5), { 'bytes-in': 111 * 6, 'bytes-out': 0 });
  t.match(reader.read(PEER_SLOTS - 1), { 'bytes-in': 111 * PEER_SLOTS });
  reader.clear(5);
  t.match(reader.read(5), { 'bytes-in': 0 });
  t.match(reader.read(SLOT_OF_OTHERS), { 'bytes-in': 111 });
  t.end();
});
