import { isDeepStrictEqual } from 'node:util';
import fc from 'fast-check';
import { type Test, test } from 'tap';
import { type Log, SILENT_LOG } from '../../src/core/capabilities.ts';
import type {
  Json,
  Store,
  StoreCondition,
  StoreEntry,
  StoreEvent,
  StoreOp,
} from '../../src/core/store.ts';
import { StoreError } from '../../src/io/store/errors.ts';

/** Makes an empty store, which logs to `log`. The suite closes it. */
export type OpenStore = (t: Test, log: Log) => Store | Promise<Store>;

const put = (key: string, value: Json): StoreOp => ({ kind: 'put', key, value });
const remove = (key: string): StoreOp => ({ kind: 'delete', key });

/** One event in a line, for transcripts. */
function line(event: StoreEvent): string {
  const before = event.previous === undefined ? '' : ` was ${JSON.stringify(event.previous.value)}`;
  return event.kind === 'put'
    ? `${event.entry.revision} put ${event.entry.key}=${JSON.stringify(event.entry.value)}${before}`
    : `${event.revision} delete ${event.key}${before}`;
}

/** Keys of the store in the order that it lists them. */
async function keysOf(store: Store, prefix: string): Promise<string[]> {
  return (await store.list(prefix)).entries.map(({ key }) => key);
}

/** The contract the slow way: a map, its order by the bytes of the keys. */
class Oracle {
  revision = 0;
  readonly entries = new Map<string, StoreEntry>();

  transact(conditions: readonly StoreCondition[], ops: readonly StoreOp[]): boolean {
    const holds = ({ key, revision }: StoreCondition): boolean =>
      (this.entries.get(key)?.revision ?? 0) === revision;
    if (!conditions.every(holds)) return false;
    const revision = this.revision + 1;
    for (const op of ops) {
      const createRevision = this.entries.get(op.key)?.createRevision ?? revision;
      const isChange = op.kind === 'put' || this.entries.has(op.key);
      if (isChange) this.revision = revision;
      if (op.kind === 'delete') this.entries.delete(op.key);
      else this.entries.set(op.key, { key: op.key, value: op.value, revision, createRevision });
    }
    return true;
  }

  list(prefix: string): StoreEntry[] {
    const bytes = (text: string): Buffer => Buffer.from(text, 'utf8');
    return [...this.entries.values()]
      .filter(({ key }) => bytes(key).subarray(0, bytes(prefix).length).equals(bytes(prefix)))
      .sort((a, b) => Buffer.compare(bytes(a.key), bytes(b.key)));
  }
}

/**
 * What every store must do. Registers tap tests.
 *
 * @param name - Of the implementation, for the names of the tests.
 */
export function testStoreCompliance(name: string, open: OpenStore): void {
  const storeTest = (title: string, run: (t: Test, store: Store) => Promise<void>): void => {
    test(`${name}: ${title}`, async (t) => {
      const store = await open(t, SILENT_LOG);
      t.teardown(() => store.close());
      await run(t, store);
    });
  };

  storeTest('an empty store has nothing, at revision 0', async (t, store) => {
    t.equal(await store.get('a'), undefined);
    t.same(await store.list(''), { entries: [], revision: 0 });
  });

  storeTest('revisions count as in etcd', async (t, store) => {
    t.same(await store.transact([], [put('a', 1), put('b', 1)]), { ok: true, revision: 1 });
    t.same(await store.transact([], [put('a', 2)]), { ok: true, revision: 2 });
    t.same(await store.get('a'), { key: 'a', value: 2, revision: 2, createRevision: 1 });
    t.same(await store.get('b'), { key: 'b', value: 1, revision: 1, createRevision: 1 });
    t.same(await store.transact([], [put('a', 2)]), { ok: true, revision: 3 }, 'same value');
    t.same(await store.transact([], [remove('a')]), { ok: true, revision: 4 });
    t.equal(await store.get('a'), undefined);
    t.same(await store.transact([], [put('a', 9)]), { ok: true, revision: 5 });
    t.same(await store.get('a'), { key: 'a', value: 9, revision: 5, createRevision: 5 });
    t.same(await store.transact([], [remove('nothing')]), { ok: true, revision: 5 }, 'no change');
    t.same(await store.transact([], []), { ok: true, revision: 5 });
    t.equal((await store.list('')).revision, 5);
  });

  storeTest('conditions: all must hold, the first that does not is named', async (t, store) => {
    await store.transact([], [put('a', 1)]);
    await store.transact([], [put('b', 1)]);
    for (const [conditions, conflict] of [
      [[{ key: 'a', revision: 2 }], 'a'],
      [[{ key: 'a', revision: 0 }], 'a'],
      [[{ key: 'c', revision: 1 }], 'c'],
      [
        [
          { key: 'a', revision: 1 },
          { key: 'b', revision: 1 },
          { key: 'c', revision: 7 },
        ],
        'b',
      ],
    ] as const) {
      const ops = [put('a', 'lost'), remove('b'), put('new', 1)];
      t.same(await store.transact(conditions, ops), { ok: false, conflict, revision: 2 });
    }
    t.same(
      (await store.list('')).entries.map(({ key, value }) => [key, value]),
      [
        ['a', 1],
        ['b', 1],
      ],
      'nothing was written',
    );
    const holding = [
      { key: 'a', revision: 1 },
      { key: 'b', revision: 2 },
      { key: 'c', revision: 0 },
    ];
    t.same(await store.transact(holding, [put('c', 1)]), { ok: true, revision: 3 });
  });

  storeTest('of transactions on one revision, one wins', async (t, store) => {
    const attempts = Array.from({ length: 8 }, (_, i) =>
      store.transact([{ key: 'lock', revision: 0 }], [put('lock', i)]),
    );
    const results = await Promise.all(attempts);
    t.same(
      results.map(({ ok }) => ok),
      [true, ...Array.from({ length: 7 }, () => false)],
      'calls take effect in their order',
    );
    t.equal((await store.get('lock'))?.value, 0);
  });

  storeTest('what cannot be a transaction is refused whole', async (t, store) => {
    const cyclic: { self?: Json } = {};
    cyclic.self = cyclic;
    for (const [title, ops, error] of [
      ['a key twice', [put('a', 1), remove('a')], RangeError],
      ['an empty key', [put('a', 1), put('', 1)], RangeError],
      ['a lone surrogate', [put('a', 1), put('\ud800', 1)], RangeError],
      ['no value', [put('a', 1), put('b', undefined as unknown as Json)], TypeError],
      ['a cycle', [put('a', 1), put('b', cyclic)], TypeError],
    ] as const) {
      await t.rejects(store.transact([], ops), error, title);
    }
    await t.rejects(store.transact([{ key: '', revision: 0 }], [put('a', 1)]), RangeError);
    t.same(await store.list(''), { entries: [], revision: 0 });
    t.same(await store.transact([], [put('a', 1)]), { ok: true, revision: 1 });
  });

  storeTest('values come back equal, and are nobody else’s', async (t, store) => {
    const value = {
      text: 'ü\u0000\u{1f433}"\\',
      numbers: [0, -1.5, 1e300, 2 ** 53 - 1],
      none: null,
      deep: { list: [{}, [], [true]] },
    };
    const changing: { list: number[] } = { list: [1] };
    await store.transact([], [put('v', value), put('c', changing)]);
    changing.list.push(2);
    t.same((await store.get('v'))?.value, value);
    const read = (await store.get('c'))?.value as { list: number[] };
    t.same(read, { list: [1] }, 'a later change of what was put is not stored');
    read.list.push(3);
    t.same((await store.get('c'))?.value, { list: [1] }, 'nor one of what was read');
  });

  storeTest('prefixes mean bytes: no wildcards, no collation', async (t, store) => {
    const keys = [
      ...'a a% a%b a_ a_b a/ a/1 a/10 a/2 aa ab A A/1 b a\\ a\' a" a* a? a[ ä a\u0308'.split(' '),
      ...['a\u0000', 'a\u0000b', 'a b'],
      // The ends of the code point ranges, where UTF-16 and UTF-8 disagree on the order.
      ...['\ud7ff', '\ue000', '\uffff', '\u{10000}', '\u{10ffff}', '\u{10ffff}x'],
    ];
    const puts = keys.map((key) => put(key, key));
    const oracle = new Oracle();
    oracle.transact([], puts);
    await store.transact([], puts);
    for (const prefix of ['', ...keys, 'a/3', 'B', '\u{10ffff}\u{10ffff}']) {
      t.same(
        await keysOf(store, prefix),
        oracle.list(prefix).map(({ key }) => key),
        JSON.stringify(prefix),
      );
    }
  });

  storeTest('any sequence of transactions does what the contract says', async (t, store) => {
    const key = fc.constantFrom('a', 'a/1', 'a/2', 'b', 'a%', '\uffff', '\u{10000}');
    const op = fc.oneof(
      fc.record({ kind: fc.constant('put' as const), key, value: fc.nat(9) }),
      fc.record({ kind: fc.constant('delete' as const), key }),
    );
    const transaction = fc.record({
      ops: fc.uniqueArray(op, { maxLength: 4, selector: (each) => each.key }),
      /** Keys whose revision is checked, and how far off the expected one is. */
      checks: fc.array(fc.tuple(key, fc.constantFrom(0, 0, 0, 0, 1)), { maxLength: 2 }),
    });
    const oracle = new Oracle();
    const followed = new Map<string, StoreEntry>();
    /** Events whose `previous` is not what was told before. */
    const unfollowed: string[] = [];
    let calls = 0;
    store.watch('a', (events) => {
      calls += 1;
      for (const event of events) {
        const { key } = event.kind === 'put' ? event.entry : event;
        if (!isDeepStrictEqual(followed.get(key), event.previous)) unfollowed.push(line(event));
        if (event.kind === 'put') followed.set(event.entry.key, event.entry);
        else followed.delete(key);
      }
    });
    let expectedCalls = 0;
    // One store for all runs: each begins where the last one ended.
    await fc.assert(
      fc.asyncProperty(fc.array(transaction, { maxLength: 8 }), async (transactions) => {
        for (const { ops, checks } of transactions) {
          const conditions = checks.map(([checked, off]) => ({
            key: checked,
            revision: (oracle.entries.get(checked)?.revision ?? 0) + off,
          }));
          const before = JSON.stringify(oracle.list('a'));
          const ok = oracle.transact(conditions, ops);
          if (JSON.stringify(oracle.list('a')) !== before) expectedCalls += 1;
          const result = await store.transact(conditions, ops);
          if (result.ok !== ok || result.revision !== oracle.revision) {
            throw new Error(`Result ${JSON.stringify(result)}, expected ${ok} ${oracle.revision}`);
          }
          for (const prefix of ['', 'a', 'a/']) {
            const expected = { entries: oracle.list(prefix), revision: oracle.revision };
            const listed = await store.list(prefix);
            if (!isDeepStrictEqual(listed, expected)) {
              throw new Error(`${JSON.stringify(listed)}, expected ${JSON.stringify(expected)}`);
            }
          }
        }
      }),
      { numRuns: 60 },
    );
    t.same(
      [...followed.values()].sort((a, b) => (a.key < b.key ? -1 : 1)),
      oracle.list('a'),
    );
    t.same(unfollowed, []);
    t.equal(calls, expectedCalls, 'one call per transaction that changes the prefix');
  });

  storeTest('a watch tells of each later transaction, once and in order', async (t, store) => {
    const transcript: string[] = [];
    await store.transact([], [put('n/1', 'before')]);
    const end = store.watch('n/', (events) => {
      transcript.push(events.map(line).join(', '));
    });
    await store.transact([], [put('n/1', 'a'), put('n/2', 'b'), put('other', 1)]);
    await store.transact([], [put('other', 2)]);
    await store.transact([{ key: 'n/1', revision: 1 }], [put('n/1', 'conflict')]);
    await store.transact([], [remove('n/1'), remove('n/9')]);
    await store.transact([], [remove('n/9')]);
    t.same(transcript, ['2 put n/1="a" was "before", 2 put n/2="b"', '4 delete n/1 was "a"']);
    end();
    end();
    await store.transact([], [put('n/1', 'unheard')]);
    t.equal(transcript.length, 2, 'an ended watch is silent');
  });

  storeTest('watchers have heard of a transaction when it resolves', async (t, store) => {
    let heard = 0;
    store.watch('', (events) => {
      const [event] = events;
      heard = event?.kind === 'put' ? event.entry.revision : heard;
    });
    for (let revision = 1; revision <= 3; revision += 1) {
      await store.transact([], [put('a', revision)]);
      t.equal(heard, revision);
    }
  });

  storeTest('a watcher may write, watch and end watches: all see one order', async (t, store) => {
    const transcript: string[] = [];
    const pending: Promise<unknown>[] = [];
    let endSecond = (): void => {};
    let endThird = (): void => {};
    store.watch('', (events) => {
      transcript.push(...events.map((event) => `first ${line(event)}`));
      const [event] = events;
      if (event?.kind !== 'put' || event.entry.key !== 'ask') return;
      endThird();
      pending.push(store.transact([], [put('answer', event.entry.value)]));
      store.watch('', (later) => transcript.push(...later.map((each) => `late ${line(each)}`)));
      pending.push(store.transact([], [put('end', true)]));
    });
    endSecond = store.watch('', (events) => {
      transcript.push(...events.map((event) => `second ${line(event)}`));
      if (events.some((event) => event.kind === 'put' && event.entry.key === 'answer')) endSecond();
    });
    endThird = store.watch('', () => transcript.push('third, though ended by the first'));
    await store.transact([], [put('ask', 7)]);
    await Promise.all(pending);
    t.same(transcript, [
      'first 1 put ask=7',
      'second 1 put ask=7',
      'first 2 put answer=7',
      'second 2 put answer=7',
      'first 3 put end=true',
      'late 3 put end=true',
    ]);
  });

  test(`${name}: a watcher that throws is logged and harms nobody`, async (t) => {
    const logged: unknown[] = [];
    const log: Log = { ...SILENT_LOG, error: (fields) => logged.push(fields) };
    const store = await open(t, log);
    t.teardown(() => store.close());
    const heard: number[] = [];
    const error = new Error('of the watcher');
    store.watch('a', () => {
      throw error;
    });
    store.watch('', (events) => heard.push(events.length));
    t.same(await store.transact([], [put('a', 1)]), { ok: true, revision: 1 });
    t.same(await store.transact([], [put('a', 2), put('b', 1)]), { ok: true, revision: 2 });
    t.same(heard, [1, 2]);
    t.strictSame(logged, [
      { error, prefix: 'a' },
      { error, prefix: 'a' },
    ]);
  });

  storeTest('a closed store refuses everything, and its watchers are silent', async (t, store) => {
    await store.transact([], [put('a', 1)]);
    let calls = 0;
    store.watch('', () => {
      calls += 1;
    });
    await store.close();
    await store.close();
    const closed = new StoreError({ code: 'STORE_CLOSED' });
    await t.rejects(store.get('a'), closed);
    await t.rejects(store.list(''), closed);
    await t.rejects(store.transact([], [put('a', 2)]), closed);
    t.throws(() => store.watch('', () => {}), closed);
    t.equal(calls, 0);
  });
}
