import fc from 'fast-check';
import { test } from 'tap';
import { formatMac, parseIpv4, parseMac } from '../../src/core/address.ts';
import { formatIp, type Ip, parseIp, parseIpv6 } from '../../src/core/ip.ts';
import type { Json } from '../../src/core/store.ts';
import {
  endpointKey,
  endpointText,
  readEndpointRecord,
  readVtepRecord,
  VTEP_KEY,
  writeEndpointRecord,
  writeVtepRecord,
} from '../../src/node/endpoint-record.ts';
import {
  EndpointView,
  type PlacedEndpoint,
  type PlacedVtep,
  type VisibleEntry,
} from '../../src/node/endpoint-view.ts';
import { TASK } from '../support/endpoint-value.ts';

const KEY = endpointKey('blue', '10.0.1.5');

function vtep(node: string, address: string, port = 4789): VisibleEntry {
  return { node, key: VTEP_KEY, value: { address, port } };
}

function task(node: string, changes: Readonly<Record<string, Json>> = {}): VisibleEntry {
  return { node, key: KEY, value: { ...TASK, ...changes } };
}

/** A view that was told of `entries` one after the other. */
function viewOf(
  entries: readonly VisibleEntry[],
  self: string,
  suspects: ReadonlySet<string> = new Set(),
): EndpointView {
  const view = new EndpointView(self);
  for (const node of suspects) view.suspect(node, true);
  for (const { node, key, value } of entries) {
    view.change({ node, added: [{ key, value }], changed: [], removed: [] });
  }
  return view;
}

function vtepRecords(entries: readonly VisibleEntry[], self: string): PlacedVtep[] {
  return [...viewOf(entries, self).vteps()];
}

function placedEndpoints(
  entries: readonly VisibleEntry[],
  self: string,
  suspects: ReadonlySet<string>,
): PlacedEndpoint[] {
  return [...viewOf(entries, self, suspects).endpoints()];
}

test('vteps() gives the other nodes in the order they are known', (t) => {
  const entries = [vtep('b', '192.0.2.2'), vtep('self', '192.0.2.1'), vtep('c', '192.0.2.3', 4790)];
  t.same(vtepRecords(entries, 'self'), [
    { node: 'b', address: parseIpv4('192.0.2.2'), port: 4789 },
    { node: 'c', address: parseIpv4('192.0.2.3'), port: 4790 },
  ]);
  t.end();
});

test('a VTEP tells the name of its machine, if that is one', (t) => {
  const named = (hostname: Json): Json => ({ address: '192.0.2.2', port: 4789, hostname });
  for (const [given, shown] of [
    ['host2.example', 'host2.example'],
    ['', undefined],
    ['\u001b[2Jhost', undefined],
    ['x'.repeat(254), undefined],
    [7, undefined],
  ] as const) {
    const [record] = vtepRecords([{ node: 'b', key: VTEP_KEY, value: named(given) }], 'self');
    t.equal(record?.port, 4789, 'the rest counts, whatever the name is');
    t.equal(record?.hostname, shown, JSON.stringify(given));
  }
  t.end();
});

const RECORD = { ...TASK, address: parseIpv4('10.0.1.5'), mac: parseMac('02:42:0a:00:01:05') };
const VTEP_B = { address: parseIpv4('192.0.2.2'), port: 4789 };
const VTEP_V6 = { address: parseIpv6('fd00:f::2'), port: 4789 };
const NOBODY: ReadonlySet<string> = new Set();

for (const [name, entries, suspects, expected] of [
  [
    'an own task is at no VTEP',
    [task('self'), vtep('self', '192.0.2.1')],
    NOBODY,
    [{ record: RECORD }],
  ],
  [
    'another node’s task is behind its VTEP, told before or after it',
    [task('b'), vtep('b', '192.0.2.2')],
    NOBODY,
    [{ record: RECORD, vtep: VTEP_B, suspect: false }],
  ],
  [
    'an underlay and a task of IPv6, in whatever form they are told',
    [task('b', { address6: 'FD00:1:0::5' }), vtep('b', 'fd00:f:0::2')],
    NOBODY,
    [{ record: { ...RECORD, address6: parseIpv6('fd00:1::5') }, vtep: VTEP_V6, suspect: false }],
  ],
  [
    'a node that does not answer is a suspect',
    [vtep('b', '192.0.2.2'), task('b')],
    new Set(['b']),
    [{ record: RECORD, vtep: VTEP_B, suspect: true }],
  ],
  [
    'this node never suspects itself',
    [task('self'), vtep('self', '192.0.2.1')],
    new Set(['self']),
    [{ record: RECORD }],
  ],
  [
    'a task of a node without VTEP cannot be reached',
    [task('c'), vtep('b', '192.0.2.2')],
    NOBODY,
    [],
  ],
  ['what cannot be read is skipped', [vtep('b', '192.0.2.2'), task('b', { mac: 'x' })], NOBODY, []],
] as const) {
  test(`endpoints(): ${name}`, (t) => {
    t.strictSame(placedEndpoints(entries, 'self', suspects), expected);
    t.end();
  });
}

test('announcements that are none are refused whole', (t) => {
  for (const value of [
    null,
    7,
    [],
    {},
    { address: '192.0.2.2' },
    { address: '192.0.2.256', port: 4789 },
    { address: '192.0.2.2', port: 0 },
    { address: '192.0.2.2', port: 65_536 },
    { address: '192.0.2.2', port: 1.5 },
    { address: '192.0.2.2', port: '4789' },
  ]) {
    t.equal(readVtepRecord(value), undefined, `VTEP ${JSON.stringify(value)}`);
  }
  for (const [field, value] of [
    ['address', '10.0.1'],
    ['address', 5],
    ['address', 'fd00::1'],
    ['address6', '10.0.1.5'],
    ['address6', 'fd00::1%eth0'],
    ['address6', null],
    ['address6', `fd00::${'0'.repeat(16_000)}1`],
    ['mac', '02:42:0a:00:01'],
    ['state', 'dead'],
    ['primary', 'yes'],
    ['taskId', null],
    ['networkId', 1],
  ] as const) {
    t.equal(readEndpointRecord({ ...TASK, [field]: value }), undefined, `${field} ${value}`);
  }
  t.end();
});

test('what is read from an announcement is written so that it reads the same', (t) => {
  const record = fc.record(
    {
      networkId: fc.string(),
      address: fc.ipV4(),
      address6: fc.ipV6(),
      mac: fc.nat(2 ** 48 - 1).map(formatMac),
      serviceId: fc.string(),
      taskId: fc.string(),
      state: fc.constantFrom('warm', 'active', 'draining'),
      primary: fc.boolean(),
      later: fc.jsonValue(),
    },
    { requiredKeys: Object.keys(TASK) as [] },
  );
  const isUpper = fc.boolean();
  fc.assert(
    fc.property(record, isUpper, (given, upper) => {
      const read = readEndpointRecord(given as Json);
      if (read === undefined) return false;
      const written = writeEndpointRecord(read);
      const { mac, address6 } = given as { mac: string; address6?: string };
      const change = (text: string): string => (upper ? text.toUpperCase() : text.toLowerCase());
      const other = readEndpointRecord({
        ...(given as Record<string, Json>),
        mac: change(mac),
        ...(address6 === undefined ? {} : { address6: change(address6) }),
      });
      return (
        JSON.stringify(readEndpointRecord(written)) === JSON.stringify(read) &&
        other !== undefined &&
        endpointText(other) === JSON.stringify(written)
      );
    }),
  );
  for (const value of [
    { address: parseIp('192.0.2.2'), port: 4789 },
    { address: parseIp('fd00::2'), port: 1, hostname: 'host2' },
  ]) {
    t.same(readVtepRecord(writeVtepRecord(value)), value);
  }
  t.end();
});

test('endpoints are counted by service and state, if they can be reached', (t) => {
  const view = viewOf(
    [
      vtep('b', '192.0.2.2'),
      task('b'),
      task('self', { state: 'draining' }),
      task('c'),
      { ...task('b', { state: 'draining', address: '10.0.1.6' }), key: 'another' },
      { ...task('b', { serviceId: 'db', state: 'warm' }), key: 'a third' },
    ],
    'self',
  );
  t.same(
    Array.from(view.counts(), ({ serviceId, state, count }) => `${serviceId} ${state} ${count}`),
    ['web active 1', 'web draining 2', 'db warm 1'],
  );
  t.same(
    Array.from(view.announced(), ({ by, key }) => `${by.node} ${key}`),
    [`b ${KEY}`, 'b another', 'b a third', `self ${KEY}`, `c ${KEY}`],
    'all are announced, whether they can be reached or not',
  );
  t.end();
});

function isUndefinedOr<Value>(value: Value | undefined, is: (value: Value) => boolean): boolean {
  return value === undefined || is(value);
}

/** Whether an address is in the one form of its kind. */
function isCanonical(address: Ip): boolean {
  return parseIp(formatIp(address)) === address;
}

test('no JSON from the network makes the view throw', (t) => {
  // Half of the values are near misses: a good record with one field replaced.
  const nearMiss = fc
    .tuple(
      fc.constantFrom(...Object.keys(TASK), 'address6', 'port'),
      fc.oneof(fc.jsonValue(), fc.ipV6(), fc.ipV4()),
    )
    .map(([field, value]) => ({ ...TASK, port: 4789, [field]: value }));
  const entry = fc.record({
    node: fc.constantFrom('self', 'b', 'c'),
    key: fc.constantFrom(VTEP_KEY, KEY, ''),
    value: fc.oneof(fc.jsonValue(), nearMiss) as fc.Arbitrary<Json>,
  });
  fc.assert(
    fc.property(fc.array(entry, { maxLength: 8 }), (entries) => {
      const placed = placedEndpoints(entries, 'self', new Set(['b']));
      const vteps = vtepRecords(entries, 'self');
      return (
        placed.length <= entries.length &&
        placed.every(({ record }) => Number.isInteger(record.address + record.mac)) &&
        placed.every(({ record: { address6 } }) => isUndefinedOr(address6, isCanonical)) &&
        vteps.every(({ address, port }) => isCanonical(address) && port > 0)
      );
    }),
    { numRuns: 500 },
  );
  t.end();
});
