import { test } from 'tap';
import {
  PEER_COUNTERS,
  PEER_SLOTS,
  PeerCounters,
  peerCounterIndex,
  SLOT_OF_OTHERS,
} from '../../src/dataplane/peer-counters.ts';

test('each peer has its own counters, which another thread reads', (t) => {
  const written = new PeerCounters();
  const read = new PeerCounters(written.shared);
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
