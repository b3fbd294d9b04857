import fc from 'fast-check';
import { test } from 'tap';
import {
  conforms,
  firstRing,
  GOSSIP_KEYS_MAX,
  type GossipKey,
  type GossipKeyRing,
  type KeyHolder,
  ringAssignment,
  rotationDueMs,
  STEP_MS_MAX,
  scaledRotationMs,
  stepRing,
  withKey,
  withNext,
  withoutKey,
} from '../../src/manager/gossip-key-ring.ts';
import type { GossipKeysReport } from '../../src/manager/gossip-protocol.ts';

function key(id: string): GossipKey {
  return { id, key: `secret-${id}`, createdAtMs: 0 };
}

function ringOf(ids: string, rest: Partial<GossipKeyRing> = {}): GossipKeyRing {
  return { keys: [...ids].map(key), mode: 'strict', ...rest };
}

function holder(nodeId: string, mode: GossipKeysReport['mode'], ids: string): KeyHolder {
  return { nodeId, report: { mode, ids: [...ids] } };
}

/** `ab>c` is keys a and b, c being next; the primary one is a capital. */
function show({ keys, primaryId, nextId, mode, stepSinceMs }: GossipKeyRing): string {
  const ids = keys.map(({ id }) => (id === primaryId ? id.toUpperCase() : id)).join('');
  const next = nextId === undefined ? '' : `>${nextId}`;
  return `${mode} ${ids}${next}${stepSinceMs === undefined ? '' : ` since ${stepSinceMs}`}`;
}

test('the key to seal by is told first', (t) => {
  const told = ringAssignment(ringOf('abc', { primaryId: 'b' }));
  t.same(
    told.keys.map(({ id }) => id),
    ['b', 'a', 'c'],
  );
  t.equal(told.keys[0]?.key, 'secret-b');
  t.end();
});

test('a node conforms if it holds the very keys, the primary first, in the same mode', (t) => {
  const ring = ringOf('abc', { primaryId: 'b' });
  const cases: readonly (readonly [GossipKeysReport | undefined, boolean])[] = [
    [{ mode: 'strict', ids: ['b', 'a', 'c'] }, true],
    [{ mode: 'strict', ids: ['a', 'b', 'c'] }, false],
    [{ mode: 'seal', ids: ['b', 'a', 'c'] }, false],
    [{ mode: 'strict', ids: ['b', 'a'] }, false],
    [{ mode: 'strict', ids: ['b', 'a', 'c', 'd'] }, false],
    [{ mode: 'strict', ids: [] }, false],
    [undefined, false],
  ];
  for (const [report, expected] of cases) t.equal(conforms(ring, report), expected);
  t.end();
});

const NOW = 1_000_000;
for (const { name, ring, holders, expected, skipped = [], wakeAtMs } of [
  {
    name: 'nothing is done at rest, whatever nodes hold',
    ring: ringOf('a', { primaryId: 'a' }),
    holders: [{ nodeId: 'n1' }],
    expected: 'strict A',
  },
  {
    name: 'a new key is not used while a node lacks it',
    ring: ringOf('ab', { primaryId: 'a', nextId: 'b', stepSinceMs: NOW - 10 }),
    holders: [holder('n1', 'strict', 'ab'), holder('n2', 'strict', 'a')],
    expected: `strict Ab>b since ${NOW - 10}`,
    wakeAtMs: NOW + STEP_MS_MAX - 10,
  },
  {
    name: 'nor while a node has confirmed nothing yet',
    ring: ringOf('ab', { primaryId: 'a', nextId: 'b', stepSinceMs: NOW }),
    holders: [{ nodeId: 'n1' }],
    expected: `strict Ab>b since ${NOW}`,
    wakeAtMs: NOW + STEP_MS_MAX,
  },
  {
    name: 'it is used when all hold it',
    ring: ringOf('ab', { primaryId: 'a', nextId: 'b', stepSinceMs: NOW - 10 }),
    holders: [holder('n1', 'strict', 'ab'), holder('n2', 'strict', 'ab')],
    expected: `strict aB since ${NOW}`,
  },
  {
    name: 'a node that does not confirm is waited for no longer than the bound',
    ring: ringOf('ab', { primaryId: 'a', nextId: 'b', stepSinceMs: NOW - STEP_MS_MAX }),
    holders: [holder('n1', 'strict', 'ab'), holder('n2', 'strict', 'a'), { nodeId: 'n3' }],
    expected: `strict aB since ${NOW}`,
    skipped: ['n2', 'n3'],
  },
  {
    name: 'a clock that was set far back ends the wait, too',
    ring: ringOf('ab', { primaryId: 'a', nextId: 'b', stepSinceMs: NOW + 2 * STEP_MS_MAX }),
    holders: [{ nodeId: 'n1' }],
    expected: `strict aB since ${NOW}`,
    skipped: ['n1'],
  },
  {
    name: 'the change ends when all use it',
    ring: ringOf('ab', { primaryId: 'b', stepSinceMs: NOW - 10 }),
    holders: [holder('n1', 'strict', 'ba')],
    expected: 'strict aB',
  },
  {
    name: 'the oldest key goes when there are too many',
    ring: ringOf('abcd', { primaryId: 'd', stepSinceMs: NOW - 10 }),
    holders: [holder('n1', 'strict', 'dabc')],
    expected: `strict bcD since ${NOW}`,
  },
  {
    name: 'the primary one does not go, however old it is',
    ring: ringOf('abcd', { primaryId: 'a', stepSinceMs: NOW - 10 }),
    holders: [holder('n1', 'strict', 'abcd')],
    expected: `strict Acd since ${NOW}`,
  },
  {
    name: 'no key goes while a node still seals by another one',
    ring: ringOf('abcd', { primaryId: 'd', stepSinceMs: NOW }),
    holders: [holder('n1', 'strict', 'cabd')],
    expected: `strict abcD since ${NOW}`,
    wakeAtMs: NOW + STEP_MS_MAX,
  },
  {
    name: 'from plaintext, a key alone changes nothing',
    ring: ringOf('a', { mode: 'accept', stepSinceMs: NOW - 10 }),
    holders: [holder('n1', 'accept', 'a')],
    expected: 'accept a',
  },
  {
    name: 'from plaintext, all seal first and still take plaintext',
    ring: ringOf('a', { mode: 'accept', nextId: 'a', stepSinceMs: NOW - 10 }),
    holders: [holder('n1', 'accept', 'a')],
    expected: `seal A since ${NOW}`,
  },
  {
    name: 'plaintext is taken while a node may still send it',
    ring: ringOf('a', { mode: 'seal', primaryId: 'a', stepSinceMs: NOW }),
    holders: [holder('n1', 'seal', 'a'), holder('n2', 'accept', 'a')],
    expected: `seal A since ${NOW}`,
    wakeAtMs: NOW + STEP_MS_MAX,
  },
  {
    name: 'it is not taken any more when all seal',
    ring: ringOf('a', { mode: 'seal', primaryId: 'a', stepSinceMs: NOW - 10 }),
    holders: [holder('n1', 'seal', 'a'), holder('n2', 'seal', 'a')],
    expected: `strict A since ${NOW}`,
  },
  {
    name: 'a cluster without nodes waits for nobody',
    ring: ringOf('ab', { primaryId: 'a', nextId: 'b', stepSinceMs: NOW }),
    holders: [],
    expected: `strict aB since ${NOW}`,
  },
] satisfies readonly {
  readonly name: string;
  readonly ring: GossipKeyRing;
  readonly holders: readonly KeyHolder[];
  readonly expected: string;
  readonly skipped?: readonly string[];
  readonly wakeAtMs?: number;
}[]) {
  test(name, (t) => {
    const step = stepRing(ring, holders, NOW);
    t.equal(show(step.ring), expected);
    t.same(step.skipped, skipped);
    t.equal(step.wakeAtMs, wakeAtMs);
    if (expected === show(ring)) t.equal(step.ring, ring, 'the same object');
    t.end();
  });
}

test('a key is rotated when its time is up, unless a change is under way', (t) => {
  const ring = firstRing(key('a')); // since 0
  const HOUR = 3_600_000;
  for (const [given, rotationMs, nowMs, expected] of [
    [ring, HOUR, 5, HOUR],
    [ring, HOUR, 2 * HOUR, HOUR],
    [ring, 0, 2 * HOUR, undefined],
    [{ ...ring, primarySinceMs: 5 * HOUR }, HOUR, HOUR, HOUR],
    [{ ...ring, primarySinceMs: 2 * HOUR }, HOUR, HOUR, 3 * HOUR],
    [{ ...ring, stepSinceMs: 1 }, HOUR, 2 * HOUR, undefined],
    [{ ...ring, mode: 'seal' }, HOUR, 2 * HOUR, undefined],
    [ringOf('a', { mode: 'accept' }), HOUR, 2 * HOUR, undefined],
  ] as const) {
    t.equal(rotationDueMs(given, rotationMs, nowMs), expected);
  }
  t.end();
});

test('a key seals no more packets than random nonces are good for, however large the cluster', (t) => {
  const HOUR = 3_600_000;
  for (const [wantedMs, nodes, expected] of [
    [12 * HOUR, 0, 12 * HOUR],
    [12 * HOUR, 776, 12 * HOUR],
    [12 * HOUR, 777, 43_184_597],
    [12 * HOUR, 4_096, 8_192_000],
    [60_000, 4_096, 60_000],
    [0, 4_096, 0],
  ] as const) {
    const rotationMs = scaledRotationMs(wantedMs, nodes);
    t.equal(rotationMs, expected, `${nodes} nodes`);
    t.ok((rotationMs / 1_000) * 128 * nodes <= 2 ** 32);
  }
  t.end();
});

/** A node of the model: what it was told last, and what it has confirmed of that. */
interface ModelNode {
  told: GossipKeyRing | undefined;
  report: GossipKeysReport | undefined;
}

/** Whether what `from` sends can be read by `to`, by what both do now. */
function isHeard(from: ModelNode, to: ModelNode): boolean {
  const sender = from.told && ringAssignment(from.told);
  const receiver = to.told && ringAssignment(to.told);
  if (sender === undefined || sender.mode === 'accept') return receiver?.mode !== 'strict';
  return receiver?.keys.some(({ id }) => id === sender.keys[0]?.id) === true;
}

test('whatever changes are asked for, and whenever nodes hear of them, all nodes hear each other', (t) => {
  const action = fc.oneof(
    { weight: 6, arbitrary: fc.record({ kind: fc.constant('tell'), node: fc.nat(2) }) },
    { weight: 3, arbitrary: fc.record({ kind: fc.constant('step'), node: fc.nat(2) }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('rotate'), node: fc.nat(2) }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('install'), node: fc.nat(2) }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('use'), node: fc.nat(3) }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('remove'), node: fc.nat(3) }) },
  );
  let strict = 0;
  fc.assert(
    fc.property(
      fc.boolean(),
      fc.array(action, { minLength: 20, maxLength: 120 }),
      (fromPlain, actions) => {
        let ring = fromPlain ? undefined : firstRing(key('a'));
        let serial = 0;
        const start = { told: ring, report: undefined };
        const nodes: ModelNode[] = [{ ...start }, { ...start }, { ...start }];
        for (const { kind, node: at } of actions) {
          const node = nodes[at % nodes.length] as ModelNode;
          const isAtRest = ring?.stepSinceMs === undefined;
          if (kind === 'tell') {
            node.told = ring;
            const { mode = 'accept', keys = [] } = ring === undefined ? {} : ringAssignment(ring);
            node.report = { mode, ids: keys.map(({ id }) => id) };
          } else if (kind === 'step' && ring !== undefined) {
            const holders = nodes.map(({ report }, index) => ({ nodeId: String(index), report }));
            ring = stepRing(ring, holders, NOW).ring;
          } else if (kind === 'rotate' && isAtRest) {
            serial += 1;
            ring = withNext(withKey(ring, key(`r${serial}`), NOW), `r${serial}`, NOW);
          } else if (kind === 'install' && (ring?.keys.length ?? 0) < GOSSIP_KEYS_MAX) {
            serial += 1;
            ring = withKey(ring, key(`i${serial}`), NOW);
          } else if (kind === 'use' && ring !== undefined && ring.nextId === undefined) {
            const chosen = ring.keys[at % Math.max(1, ring.keys.length)];
            if (chosen !== undefined && chosen.id !== ring.primaryId) {
              ring = withNext(ring, chosen.id, NOW);
            }
          } else if (kind === 'remove' && ring !== undefined && isAtRest) {
            const chosen = ring.keys[at % Math.max(1, ring.keys.length)];
            if (chosen !== undefined && chosen.id !== ring.primaryId) {
              ring = withoutKey(ring, chosen.id, NOW);
            }
          }
          if ((ring?.keys.length ?? 0) > GOSSIP_KEYS_MAX + 1) return false;
          if (ring?.mode === 'strict' && fromPlain) strict += 1;
          for (const from of nodes) {
            for (const to of nodes) if (!isHeard(from, to)) return false;
          }
        }
        return true;
      },
    ),
    { numRuns: 2_000 },
  );
  t.ok(strict > 100, 'clusters came from plaintext all the way');
  t.end();
});
