import { type Test, test } from 'tap';
import { parseIpv4 } from '../../src/core/address.ts';
import { AddressWords } from '../../src/core/address-words.ts';
import type { PathEvent } from '../../src/dataplane/commands.ts';
import { PathProbes } from '../../src/dataplane/path-probes.ts';
import { Peers } from '../../src/dataplane/peers.ts';
import { kernelPathMtu } from '../../src/io/linux/udp-socket.ts';
import { PROBE_HEADER_BYTES } from '../../src/vxlan/path-probe.ts';
import { LOOPBACK, LoopbackUnderlay, makePacketMemory } from './frames.ts';

const NOW_MS = 1_790_000_000_000;
const NONCE = 0xfedc_ba98_7654_3210n;

/** A node that is its own peer, on the loopback. */
function makeNode(t: Test) {
  const { arena } = makePacketMemory();
  const underlay = new LoopbackUnderlay(arena);
  const peers = new Peers();
  const peer = peers.add(LOOPBACK, underlay.port);
  const events: PathEvent[] = [];
  const probes = new PathProbes({
    arena,
    peers,
    address: LOOPBACK,
    post: (event) => events.push(event),
  });
  t.teardown(() => {
    probes.close();
    underlay.close();
  });
  /** Receives one datagram and hands it over; gives its size. */
  function receive(nowMs = NOW_MS): number {
    let bytes = 0;
    underlay.drain(1, (at, _stride, end) => {
      bytes = end - at;
      t.equal(probes.receive(peer, at, bytes, nowMs), true);
    });
    return bytes;
  }
  const probe = (sizeBytes: number): void =>
    probes.send({ kind: 'probe', to: LOOPBACK, sequence: 1, nonce: NONCE, sizeBytes });
  return { arena, underlay, peers, peer, probes, probe, receive, events };
}

test('a probe is answered by its head, and the answer is timed', (t) => {
  const { probe, receive, events } = makeNode(t);
  for (const sizeBytes of [PROBE_HEADER_BYTES, 1472, 60_000]) {
    probe(sizeBytes);
    t.equal(receive(), sizeBytes, 'the probe');
    t.equal(receive(), PROBE_HEADER_BYTES, 'its answer');
    const event = events.pop();
    t.match(event, { kind: 'probeReply', from: LOOPBACK, nonce: NONCE, sizeBytes });
    const rttUs = event?.kind === 'probeReply' ? event.rttUs : -1;
    t.ok(rttUs > 0 && rttUs < 1_000_000, `${rttUs} us`);
  }
  t.end();
});

test('strangers are not probed', (t) => {
  const { probes, peers, receive, probe } = makeNode(t);
  const stranger = parseIpv4('127.0.0.2');
  peers.at(stranger);
  for (const to of [stranger, parseIpv4('127.0.0.3')]) {
    probes.send({ kind: 'probe', to, sequence: 1, nonce: NONCE, sizeBytes: 100 });
  }
  probe(24);
  t.equal(receive(), 24, 'the one to the peer is the first to arrive');
  t.end();
});

test('what is no probe is left to others', (t) => {
  const { arena, probes, peer, events } = makeNode(t);
  const at = arena.allocate(64);
  for (const [first, length] of [
    [8, 64],
    [1, 64],
    [5, 23],
    [6, 64],
    [5, 64],
  ] as const) {
    arena.bytes.fill(0, at, at + 64);
    arena.bytes[at] = first;
    t.equal(probes.receive(peer, at, length, NOW_MS), false, `${first}, ${length} bytes`);
  }
  t.same(events, []);
  t.end();
});

test('an answer from the future, or from long ago, is no measurement', (t) => {
  const { arena, probes, peer, events } = makeNode(t);
  const at = arena.allocate(64);
  const nowUs = process.hrtime.bigint() / 1000n;
  for (const [sentUs, isMeasured] of [
    [nowUs - 1000n, true],
    [nowUs + 1_000_000_000n, false],
    [nowUs - 61_000_000n, false],
    [0xffff_ffff_ffff_ffffn, false],
  ] as const) {
    arena.view.setUint32(at, 0x0601_0018);
    arena.view.setUint32(at + 4, 1);
    arena.view.setBigUint64(at + 8, NONCE);
    arena.view.setBigUint64(at + 16, sentUs);
    t.equal(probes.receive(peer, at, 24, NOW_MS), true);
    t.equal(events.splice(0).length, isMeasured ? 1 : 0, `${sentUs}`);
  }
  t.end();
});

test('probes are answered at a bounded rate', (t) => {
  const { arena, probes, peer, underlay } = makeNode(t);
  const at = arena.allocate(64);
  for (let count = 0; count < 1_000; count += 1) {
    arena.view.setUint32(at, 0x0501_0018);
    probes.receive(peer, at, 24, NOW_MS);
  }
  let answers = 0;
  underlay.drain(400, (start, stride, end) => {
    answers += Math.ceil((end - start) / stride);
  });
  t.equal(answers, 400);
  t.ok(underlay.receiver.receive() < 0, 'and no more');
  t.end();
});

test('a refusal of the kernel is told with what it takes, ten times a second', (t) => {
  const { probes, peer, events } = makeNode(t);
  for (const nowMs of [0, 50, 99, 100, 150, 200]) probes.refused(peer, NOW_MS + nowMs);
  const event = { kind: 'pathTooBig', to: LOOPBACK, limitBytes: kernelPathMtu(LOOPBACK) };
  t.same(events, [event, event, event]);
  const stranger = { words: AddressWords.of(parseIpv4('0.0.0.1')), port: 1 };
  probes.refused(stranger, NOW_MS + 1000);
  t.equal(events.length, 3);
  t.end();
});

test('kernelPathMtu() is that of the route', (t) => {
  t.equal(kernelPathMtu(LOOPBACK), 65_535);
  t.equal(kernelPathMtu(parseIpv4('255.255.255.255')), undefined, 'there is no way');
  t.end();
});
