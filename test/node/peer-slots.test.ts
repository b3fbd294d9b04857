import { test } from 'tap';
import { formatIp, parseIp } from '../../src/core/ip.ts';
import { PEER_SLOTS, PeerCounters, SLOT_OF_OTHERS } from '../../src/dataplane/peer-counters.ts';
import { peerReports } from '../../src/node/peer-report.ts';
import { PeerSlots } from '../../src/node/peer-slots.ts';

function peersAt(...addresses: readonly string[]) {
  return addresses.map((address) => ({ address: parseIp(address) }));
}

/** Addresses and their slots, as `192.0.2.1=1`. */
function placed(slots: PeerSlots, ...addresses: readonly string[]): string[] {
  const peers = slots.place(peersAt(...addresses));
  return peers.map(({ address, slot }) => `${formatIp(address)}=${slot}`);
}

test('each peer keeps a slot of its own, also while it is away', (t) => {
  const counters = new PeerCounters();
  const slots = new PeerSlots(counters);
  t.same(placed(slots, '192.0.2.1', 'fd00::2'), ['192.0.2.1=1', 'fd00::2=2']);
  counters.add(1, 0, 7);
  t.same(placed(slots, 'fd00::2', '192.0.2.3'), ['fd00::2=2', '192.0.2.3=3']);
  t.same(placed(slots, '192.0.2.1'), ['192.0.2.1=1']);
  t.equal(counters.read(1)['datagrams-in'], 7);
  t.equal(slots.slotOf(parseIp('192.0.2.9')), SLOT_OF_OTHERS, 'a stranger has none');
  t.end();
});

test('when all slots are taken, the peer that went first makes room', (t) => {
  const counters = new PeerCounters();
  const slots = new PeerSlots(counters);
  const all = Array.from({ length: PEER_SLOTS - 1 }, (_, index) => formatIp(0x0a00_0000 + index));
  t.equal(new Set(placed(slots, ...all)).size, PEER_SLOTS - 1);
  t.same(placed(slots, ...all, '192.0.2.1').at(-1), `192.0.2.1=${SLOT_OF_OTHERS}`, 'none is free');
  const [first = '', second = '', ...rest] = all;
  placed(slots, first, ...rest); // the second one goes
  placed(slots, ...rest); // then the first one
  for (const slot of [1, 2]) counters.add(slot, 0, 7);
  t.same(placed(slots, ...rest, '192.0.2.1').at(-1), '192.0.2.1=2');
  t.equal(counters.read(2)['datagrams-in'], 0, 'it starts at zero');
  t.equal(counters.read(1)['datagrams-in'], 7);
  t.equal(slots.slotOf(parseIp(second)), SLOT_OF_OTHERS);
  t.same(placed(slots, ...rest, '192.0.2.1', first).at(-1), `${first}=1`, 'back in its own');
  t.end();
});

test('peerReports() names the peers that are counted apart', (t) => {
  const counters = new PeerCounters();
  for (const index of [0, 1, 2, 3, 4, 5]) counters.add(2, index, 10 + index);
  const peer = { port: 4789 };
  const reports = peerReports(
    [
      { ...peer, node: 'n3', hostname: 'host3', address: parseIp('192.0.2.3'), slot: 3 },
      { ...peer, node: 'n2', hostname: 'host2', address: parseIp('192.0.2.2'), slot: 2 },
      { ...peer, node: 'n0', address: parseIp('192.0.2.4'), slot: SLOT_OF_OTHERS },
      { ...peer, node: 'n1', address: parseIp('fd00::1'), slot: 1 },
    ],
    counters,
  );
  t.same(
    reports.map(({ id, name, address }) => [id, name, address]),
    [
      ['n2', 'host2', '192.0.2.2'],
      ['n3', 'host3', '192.0.2.3'],
      ['n1', 'n1', 'fd00::1'],
    ],
  );
  t.same(reports[0], {
    id: 'n2',
    name: 'host2',
    address: '192.0.2.2',
    port: 4789,
    datagrams: { in: 10, out: 12 },
    bytes: { in: 11, out: 13 },
    drops: { in: 14, out: 15 },
  });
  t.end();
});
