import fc from 'fast-check';
import { test } from 'tap';
import { encodeTags } from '../../src/gossip/member-tags.ts';
import { endpointDigest } from '../../src/node/endpoint-digest.ts';
import { digestReports, endpointReports } from '../../src/node/endpoint-report.ts';
import type { VisibleEntry } from '../../src/node/endpoint-view.ts';
import { memberReports } from '../../src/node/member-report.ts';

const entryArbitrary = fc.record({
  node: fc.string({ minLength: 1, maxLength: 4 }),
  key: fc.string({ minLength: 1, maxLength: 6 }),
  value: fc.jsonValue({ maxDepth: 2 }),
});
/** As gossip has them: one for each node and key. */
const entriesArbitrary = fc.uniqueArray(entryArbitrary, {
  selector: ({ node, key }) => JSON.stringify([node, key]),
  maxLength: 12,
}) as fc.Arbitrary<VisibleEntry[]>;

test('equal content has the same digest in any order, also when it came over the wire', (t) => {
  fc.assert(
    fc.property(entriesArbitrary, fc.infiniteStream(fc.nat()), (entries, numbers) => {
      const shuffled = entries
        .map((entry) => ({ entry, rank: numbers.next().value as number }))
        .sort((a, b) => a.rank - b.rank)
        .map(({ entry }) => JSON.parse(JSON.stringify(entry)) as VisibleEntry);
      t.equal(endpointDigest(shuffled), endpointDigest(entries));
    }),
    { numRuns: 200 },
  );
  t.end();
});

test('any change gives another digest', (t) => {
  fc.assert(
    fc.property(entriesArbitrary, entryArbitrary, fc.nat(), (entries, other, at) => {
      const one = other as VisibleEntry;
      const text = (all: readonly VisibleEntry[]) =>
        all.map((entry) => JSON.stringify([entry.node, entry.key, entry.value])).sort();
      const index = entries.length === 0 ? 0 : at % entries.length;
      const known = entries.some(({ node, key }) => node === one.node && key === one.key);
      const variants = [
        entries.toSpliced(index, 1),
        ...(known ? [] : [[...entries, one]]),
        entries.map((entry, position) =>
          position === index ? { ...entry, value: one.value } : entry,
        ),
        entries.map((entry, position) =>
          position === index ? { ...entry, node: `${entry.node}x` } : entry,
        ),
        entries.map((entry, position) =>
          position === index ? { ...entry, key: `${entry.key}x` } : entry,
        ),
      ];
      for (const variant of variants) {
        const isSame = JSON.stringify(text(variant)) === JSON.stringify(text(entries));
        t.equal(endpointDigest(variant) === endpointDigest(entries), isSame);
      }
    }),
    { numRuns: 200 },
  );
  t.end();
});

test('what belongs to a node, a key or a value cannot be moved to the next of them', (t) => {
  const entries: VisibleEntry[] = [
    { node: 'a', key: 'bc', value: 1 },
    { node: 'ab', key: 'c', value: 1 },
    { node: 'ab', key: 'c', value: '1' },
    { node: 'a","bc', key: '', value: 1 },
  ];
  t.equal(new Set(entries.map((entry) => endpointDigest([entry]))).size, entries.length);
  t.equal(endpointDigest([]), '0000000000000000');
  t.end();
});

function endpoint(
  node: string,
  networkId: string,
  address: string,
  serviceId: string,
): VisibleEntry {
  const taskId = `task-${address}`;
  const rest = { mac: '02:42:0a:00:00:02', serviceId, taskId, state: 'active', primary: true };
  return { node, key: `endpoint/${networkId}/${address}`, value: { networkId, address, ...rest } };
}

const ENTRIES: readonly VisibleEntry[] = [
  { node: 'n1', key: 'vtep', value: { address: '192.0.2.1', port: 4789, hostname: 'host1' } },
  { node: 'n2', key: 'vtep', value: { address: '192.0.2.2', port: 4789 } },
  endpoint('n1', 'net1', '10.0.1.10', 's1'),
  endpoint('n2', 'net1', '10.0.1.9', 's1'),
  endpoint('n2', 'net2', '10.0.2.9', 's2'),
  { node: 'n2', key: 'endpoint/net2/10.0.2.10', value: { state: 'odd' } },
];
const NAMES = {
  networks: [
    { id: 'net1', name: 'web' },
    { id: 'net0', name: 'empty' },
  ],
  services: [{ id: 's1', name: 'server' }],
  tasks: [{ id: 'task-10.0.1.10', name: 'server.1' }],
};

test('endpoints are listed under names where they are known', (t) => {
  const shown = endpointReports(ENTRIES, NAMES, {}).map((report) =>
    [report.network, report.address, report.node, report.service, report.task].join(' '),
  );
  t.same(shown, [
    'net2 10.0.2.9 n2 s2 task-10.0.2.9',
    'web 10.0.1.9 n2 server task-10.0.1.9',
    'web 10.0.1.10 host1 server server.1',
  ]);
  t.end();
});

test('endpoints can be chosen by network, service and node', (t) => {
  const addresses = (request: object) =>
    endpointReports(ENTRIES, NAMES, request).map(({ address }) => address);
  t.same(addresses({ network: 'web' }), ['10.0.1.9', '10.0.1.10']);
  t.same(addresses({ network: 'empty' }), []);
  t.same(addresses({ service: 'server', node: 'host1' }), ['10.0.1.10']);
  t.same(addresses({ node: 'n2' }), ['10.0.2.9', '10.0.1.9']);
  t.throws(() => addresses({ network: 'x' }), {
    message: 'Cannot find "x" among the networks: expected web or empty',
  });
  t.throws(() => addresses({ node: 'x' }), { message: /among the nodes: expected host1 or n2/ });
  t.throws(() => addresses({ service: 'x' }), { message: /among the services/ });
  t.end();
});

test('digests are by network, and one is about everything', (t) => {
  const lines = digestReports(ENTRIES, NAMES.networks);
  t.same(
    lines.map(({ network, endpoints }) => [network, endpoints]),
    [
      ['empty', 0],
      ['net2', 2],
      ['web', 2],
      [undefined, 4],
    ],
  );
  t.equal(lines[0]?.digest, endpointDigest([]));
  t.equal(lines[2]?.digest, endpointDigest([ENTRIES[2]!, ENTRIES[3]!]));
  t.equal(lines[3]?.digest, endpointDigest(ENTRIES));
  t.end();
});

test('members have the names of their hosts where these are known, and their tags', (t) => {
  const member = { port: 7946, state: 'alive', incarnation: 3 } as const;
  const versions = Uint8Array.of(1, 5, 2, 2, 5, 5);
  const meta = encodeTags(new Map([['version', '0.1.0']]));
  const odd = { address: '2001:db8::1', versions: new Uint8Array() };
  const role = new TextEncoder().encode('web\u001b[2J');
  const members = [
    { ...member, name: 'n1', address: '192.0.2.1', versions, meta },
    { ...member, ...odd, name: 'serf\u0007', meta: role },
  ];
  const gone = { ...member, name: 'n2', state: 'dead', address: '192.0.2.2', versions } as const;
  const hostname = encodeTags(new Map([['hostname', 'host2']]));
  t.match(memberReports([{ ...gone, meta: hostname }], []), [{ name: 'host2', id: 'n2' }]);
  const rest = { state: 'alive', incarnation: 3 };
  t.same(memberReports(members, [{ id: 'n1', name: 'host1' }]), [
    {
      ...rest,
      name: 'host1',
      id: 'n1',
      address: '192.0.2.1:7946',
      protocol: 2,
      tags: { role: 'weft', version: '0.1.0' },
    },
    {
      ...rest,
      name: 'serf\ufffd',
      id: 'serf\ufffd',
      address: '[2001:db8::1]:7946',
      protocol: 0,
      tags: { role: 'web\ufffd[2J' },
    },
  ]);
  t.end();
});
