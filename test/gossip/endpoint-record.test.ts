import fc from 'fast-check';
import { test } from 'tap';
import { decodeEndpointMessage } from '../../src/gossip/endpoint-decoder.ts';
import type { Delta } from '../../src/gossip/endpoint-delta.ts';
import { encodeDeltas } from '../../src/gossip/endpoint-packing.ts';
import { EndpointRecord, RECORD_ENTRIES_MAX } from '../../src/gossip/endpoint-record.ts';
import { content } from '../support/endpoint-tables.ts';

/** Everything that `record` holds, to compare. */
function dump(record: EndpointRecord): string {
  const entries = [...record.live()].map((entry) => `${entry.key}=${entry.content}`);
  return `${record.version}: ${entries.sort().join(' ')}`;
}

const writes = fc.array(
  fc.record({ key: fc.constantFrom('a', 'b', 'c', 'd'), value: fc.option(fc.nat(99)) }),
  { minLength: 1, maxLength: 40 },
);

test('a copy that gets all deltas, in any order and more than once, equals the record', (t) => {
  fc.assert(
    fc.property(
      writes,
      fc.integer({ min: 1, max: 7 }),
      fc.infiniteStream(fc.nat()),
      (all, step, chance) => {
        const record = new EndpointRecord('n', 1);
        const deltas: Delta[] = [];
        let since = 0;
        for (const [index, { key, value }] of all.entries()) {
          record.write(key, value === null ? undefined : content(value), 0);
          if (index % step === 0) {
            deltas.push(record.deltaSince(since));
            since = record.version;
          }
        }
        deltas.push(record.deltaSince(since));
        const order = deltas
          .filter(({ version }) => version > 0)
          .flatMap((delta) => [delta, delta]);
        order.sort(() => ((chance.next().value ?? 0) % 3) - 1);
        const mirror = new EndpointRecord('n', 1);
        for (const delta of order)
          if (delta.version > delta.since) mirror.apply(delta, 0, new Map());
        // Many gaps at once may be forgotten: the last word comes from a repair.
        if (mirror.version < record.version)
          mirror.apply(record.deltaSince(mirror.version), 0, new Map());
        t.equal(dump(mirror), dump(record));
      },
    ),
    { numRuns: 200 },
  );
  t.end();
});

test('a copy from before forgotten deletions gets them by a full delta, in parts too', (t) => {
  fc.assert(
    fc.property(writes, writes, fc.integer({ min: 150, max: 400 }), (before, after, bytesMax) => {
      const record = new EndpointRecord('n', 1);
      const write = ({ key, value }: { key: string; value: number | null }): void =>
        record.write(key, value === null ? undefined : content(value), 0);
      before.forEach(write);
      const mirror = new EndpointRecord('n', 1);
      mirror.apply(record.deltaSince(0), 0, new Map());
      after.forEach(write);
      record.forgetDeletions(1);
      const { messages, whole } = encodeDeltas(
        record.deltaSince(mirror.version),
        'repair',
        bytesMax,
        99,
      );
      t.ok(whole);
      for (const bytes of messages) {
        t.ok(bytes.length <= bytesMax);
        const decoded = decodeEndpointMessage(bytes.subarray(1));
        if (typeof decoded === 'string' || decoded.kind !== 'repair')
          throw new Error('Not a repair');
        mirror.apply(decoded.delta, 0, new Map());
      }
      t.equal(dump(mirror), dump(record));
    }),
    { numRuns: 200 },
  );
  t.end();
});

test('deltaSince() gives what changed, however long ago and however often', (t) => {
  const keys = fc.integer({ min: 0, max: 40 });
  const changes = fc.array(fc.tuple(keys, fc.option(fc.nat(9))), { minLength: 1, maxLength: 60 });
  fc.assert(
    fc.property(changes, fc.constantFrom(1, 20), fc.nat(999), (all, rounds, permille) => {
      const record = new EndpointRecord('n', 1);
      const latest = new Map<string, { version: number; content: string | undefined }>();
      for (let round = 0; round < rounds; round++) {
        for (const [index, value] of all) {
          const text = value === null ? undefined : content(value + round);
          record.write(`k${index}`, text, 0);
          latest.set(`k${index}`, { version: record.version, content: text });
        }
      }
      const since = Math.floor((record.version * permille) / 1_000);
      const expected = Array.from(latest, ([key, entry]) => ({ key, ...entry }))
        .filter(({ version }) => version > since)
        .sort((a, b) => a.version - b.version);
      for (const one of [record, record.clone()]) t.same(one.deltaSince(since).entries, expected);
    }),
    { numRuns: 100 },
  );
  t.end();
});

test('a record that has as many entries as may be can be changed, and all of it replaced', (t) => {
  const record = new EndpointRecord('n', 1);
  const count = RECORD_ENTRIES_MAX;
  for (let index = 0; index < count; index++) record.write(`old${index}`, content(index), 0);
  const mirror = new EndpointRecord('n', 1);
  const update = (): string => mirror.apply(record.deltaSince(mirror.version), 0, new Map());
  t.equal(update(), 'applied');
  record.write('old7', content('new'), 0);
  t.equal(update(), 'applied');
  t.equal(mirror.get('old7'), content('new'));
  const tooMany = { ...record.deltaSince(count), since: count + 1, version: count + 2 };
  const more = [{ key: 'more', version: count + 2, content: content(1) }];
  t.equal(mirror.apply({ ...tooMany, entries: more }, 0, new Map()), 'full');
  for (let index = 0; index < count; index++) record.write(`old${index}`, undefined, 0);
  record.forgetDeletions(1);
  for (let index = 0; index < count; index++) record.write(`new${index}`, content(index), 0);
  t.equal(update(), 'applied');
  t.equal(dump(mirror), dump(record));
  t.end();
});

test('apply() says what a delta did', (t) => {
  const record = new EndpointRecord('n', 1);
  for (let index = 1; index <= 6; index++) record.write(`k${index}`, content(index), 0);
  const part = (since: number, version: number): Delta => {
    const delta = record.deltaSince(since);
    const entries = delta.entries.filter((entry) => entry.version <= version);
    return { ...delta, version, entries };
  };
  const mirror = new EndpointRecord('n', 1);
  for (const [since, version, result, reached] of [
    [0, 1, 'applied', 1],
    [0, 1, 'stale', 1],
    [2, 3, 'gap', 1],
    [4, 5, 'gap', 1],
    [1, 2, 'applied', 3], // closes the first gap
    [0, 6, 'applied', 6],
    [2, 3, 'stale', 6],
  ] as const) {
    t.equal(mirror.apply(part(since, version), 0, new Map()), result, `${since}..${version}`);
    t.equal(mirror.version, reached);
  }
  t.equal(dump(mirror), dump(record));
  t.end();
});
