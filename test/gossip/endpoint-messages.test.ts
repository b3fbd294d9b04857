import { test } from 'tap';
import { decodeEndpointMessage } from '../../src/gossip/endpoint-decoder.ts';
import { encodeEndpointMessage, encodeEndpointPayload } from '../../src/gossip/endpoint-encoder.ts';
import type { EndpointMessage } from '../../src/gossip/endpoint-messages.ts';
import { packDigests, packWindows } from '../../src/gossip/endpoint-packing.ts';
import { SUM_BYTES, TREE_FANOUT, TREE_LEAVES } from '../../src/gossip/endpoint-tree.ts';
import { content, copy, newTable } from '../support/endpoint-tables.ts';

/** Versions as a table with these nodes lists them. */
function versionsOf(nodes: readonly string[]) {
  const table = newTable('self');
  for (const node of nodes) {
    copy(newTable(node), table, node);
    table.setOwner(node, 'live', 0);
  }
  const versions = table.versionsIn(0, TREE_LEAVES);
  return versions.map((version) => ({ ...version, isLive: true }));
}

test('windows cover their range without a hole, and each digest fits in its packet', (t) => {
  const nodes = Array.from({ length: 400 }, (_, index) => `node-${index}`);
  const versions = versionsOf(nodes);
  const range = { first: 0, last: TREE_LEAVES };
  for (const bytesMax of [300, 1_384]) {
    const { windows, rest } = packWindows(range, versions, bytesMax, 1_000);
    t.equal(rest, undefined);
    let next = 0;
    for (const { first, last, versions: inside } of windows) {
      t.equal(first, next);
      next = last;
      const expected = versions.filter(({ leaf }) => leaf >= first && leaf < last);
      t.same(
        inside,
        expected.map(({ leaf: _, ...version }) => version),
      );
    }
    t.equal(next, TREE_LEAVES);
    const digests = packDigests(windows, bytesMax);
    t.same(digests.flat(), windows);
    for (const some of digests) {
      const message = { kind: 'digest', windows: some, answer: false } as const;
      t.ok(encodeEndpointMessage(message).length <= bytesMax);
    }
    const cut = packWindows(range, versions, bytesMax, 2);
    t.same([...cut.windows, cut.rest?.first], [...windows.slice(0, 2), windows[2]?.first]);
  }
  t.same(packWindows({ first: 7, last: 9 }, [], 300, 1), {
    windows: [{ first: 7, last: 9, versions: [] }],
    rest: undefined,
  });
  t.end();
});

test('a leaf that does not fit in a packet is left to a stream', (t) => {
  const [some] = versionsOf(['a']);
  const crowd = Array.from({ length: 40 }, (_, index) => ({
    ...some!,
    leaf: 5,
    node: `n${index}`,
  }));
  const range = { first: 3, last: 8 };
  const packed = packWindows(range, [{ ...some!, leaf: 4 }, ...crowd], 300, 9);
  t.match(packed.windows, [{ first: 3, last: 5, versions: [{ node: some!.node }] }]);
  t.same(packed.rest, { first: 5, last: 8 });
  t.end();
});

const DELTA = {
  ...{ node: 'a', generation: 1, since: 0, version: 2, atMs: 7, full: false },
  entries: [
    { key: 'k', version: 1, content: content(1) },
    { key: 'gone', version: 2, content: undefined },
  ],
};
const VERSION = { node: 'a', generation: 1, version: 2, isLive: true };
const WINDOW = { first: 0, last: TREE_LEAVES, versions: [VERSION] };

test('what is said of endpoints is read as it was written', (t) => {
  const messages: readonly EndpointMessage[] = [
    { kind: 'delta', delta: DELTA },
    { kind: 'repair', delta: { ...DELTA, full: true } },
    { kind: 'summary', summary: '0123456789abcdef' },
    {
      kind: 'digest',
      windows: [
        { ...WINDOW, last: 3 },
        { first: 3, last: 4, versions: [] },
      ],
      answer: true,
    },
    { kind: 'branches', sums: new Uint8Array(TREE_FANOUT * SUM_BYTES).fill(3) },
    { kind: 'leaves', branch: 63, sums: new Uint8Array(TREE_FANOUT * SUM_BYTES) },
    { kind: 'behind', first: 1, last: 2 },
    { kind: 'pull', ...WINDOW },
    { kind: 'pull', ...WINDOW, resume: { node: 'a', until: 9 } },
    { kind: 'pulled', deltas: [DELTA], next: TREE_LEAVES },
    { kind: 'pulled', deltas: [], next: 0, resume: { node: 'a', until: 9 } },
  ];
  for (const message of messages) {
    const payload = encodeEndpointPayload(message);
    t.same(decodeEndpointMessage(payload), message, message.kind);
    t.same(encodeEndpointMessage(message), [8, ...payload]);
    const cut = payload.subarray(0, payload.length - 1);
    t.equal(decodeEndpointMessage(cut), 'malformed', `${message.kind}, cut short`);
  }
  t.end();
});

test('messages that are not ours, or broken, are told apart', (t) => {
  t.equal(decodeEndpointMessage(Uint8Array.of(2, 0x80)), 'foreign');
  t.equal(decodeEndpointMessage(Uint8Array.of(0)), 'foreign');
  t.equal(decodeEndpointMessage(new Uint8Array()), 'foreign');
  t.equal(decodeEndpointMessage(Uint8Array.of(0x57, 5)), 'malformed');
  t.match(decodeEndpointMessage(Uint8Array.of(0x57, 4, 0x80)), { windows: [] }, 'an empty one');
  t.equal(decodeEndpointMessage(Uint8Array.of(0x57, 10, 0x80)), 'malformed');
  const [entry] = DELTA.entries;
  for (const wrong of [
    { ...DELTA, entries: [{ ...entry!, version: 3 }] }, // outside of the delta
    { ...DELTA, since: 2, entries: [] },
    { ...DELTA, node: '', entries: [] },
    { ...DELTA, entries: [{ ...entry!, content: '{' }] },
    { ...DELTA, entries: [{ ...entry!, content: '['.repeat(50) + ']'.repeat(50) }] },
  ]) {
    for (const message of [
      { kind: 'delta', delta: wrong },
      { kind: 'pulled', deltas: [wrong], next: 0 },
    ] as const) {
      t.equal(decodeEndpointMessage(encodeEndpointPayload(message)), 'malformed');
    }
  }
  for (const message of [
    { kind: 'branches', sums: new Uint8Array(8) },
    { kind: 'leaves', branch: 64, sums: new Uint8Array(TREE_FANOUT * SUM_BYTES) },
    { kind: 'behind', first: 2, last: 2 },
    { kind: 'behind', first: 0, last: TREE_LEAVES + 1 },
    { kind: 'pull', ...WINDOW, versions: [{ ...VERSION, node: '' }] },
    { kind: 'pulled', deltas: [], next: TREE_LEAVES + 1 },
  ] as const) {
    t.equal(decodeEndpointMessage(encodeEndpointPayload(message)), 'malformed');
  }
  t.end();
});
