// Tables that follow changes one by one against tables that are made anew, from everything, for each.
import { deepEqual } from 'node:assert/strict';
import fc from 'fast-check';
import { test } from 'tap';
import type { Json } from '../../src/core/store.ts';
import type { DataPlaneCommand } from '../../src/dataplane/commands.ts';
import type { NetworkAssignment, ServiceAssignment } from '../../src/manager/session-protocol.ts';
import { DesiredTables } from '../../src/node/desired-tables.ts';
import { VTEP_KEY } from '../../src/node/endpoint-record.ts';
import { EndpointView, type VisibleEntry } from '../../src/node/endpoint-view.ts';
import { placedEndpoints, vtepRecords } from './slow/gossip-view.ts';
import { desiredTables, type DesiredTables as SlowTables, tableChanges } from './slow/tables.ts';

const SELF = 'b';
const NODES = ['a', SELF, 'c', 'd'];

type Step =
  | {
      readonly kind: 'set';
      readonly node: string;
      readonly entries: Readonly<Record<string, Json>>;
    }
  | { readonly kind: 'remove'; readonly node: string; readonly keys: readonly string[] }
  | { readonly kind: 'drop'; readonly node: string }
  | { readonly kind: 'suspect'; readonly node: string; readonly isSuspect: boolean }
  | {
      readonly kind: 'define';
      readonly networks: readonly NetworkAssignment[];
      readonly services: readonly ServiceAssignment[];
    };

const node = fc.constantFrom(...NODES);
const garbage = fc.constantFrom<Json>(null, 'x', {}, { address: '10.0.1.300' });
const vtep = fc.record({
  address: fc.constantFrom('192.0.2.1', '192.0.2.2', '192.0.2.3', 'fd00:f::4'),
  port: fc.constantFrom(4789, 4790),
});
const endpoint = fc
  .record({
    networkId: fc.constantFrom('ingress', 'blue', 'red', 'unknown'),
    address: fc.constantFrom('10.0.1.5', '10.0.1.6', '10.0.1.7', '200.0.1.8'),
    address6: fc.constantFrom(undefined, 'fd00:1::5', 'FD00:1:0::5', 'fd00:1::6'),
    mac: fc.constantFrom('02:42:0a:00:01:05', '02:42:0a:00:01:06'),
    serviceId: fc.constantFrom('web', 'db', ''),
    taskId: fc.constantFrom('t1', 't2', 't3', 'T1'),
    state: fc.constantFrom('warm', 'active', 'draining'),
    primary: fc.boolean(),
  })
  .map(({ address6, ...rest }): Json => ({ ...rest, ...(address6 && { address6 }) }));
const endpointKeys = ['e1', 'e2', 'e3', 'e4', 'e5'];
const entries = fc
  .tuple(
    fc.option(fc.oneof({ weight: 6, arbitrary: vtep }, garbage), { nil: undefined, freq: 2 }),
    fc.dictionary(
      fc.constantFrom(...endpointKeys),
      fc.oneof({ weight: 9, arbitrary: endpoint }, garbage),
    ),
  )
  .map(
    ([vtepEntry, endpoints]): Readonly<Record<string, Json>> => ({
      ...(vtepEntry !== undefined && { [VTEP_KEY]: vtepEntry }),
      ...endpoints,
    }),
  );

const DUAL = { subnet6: 'fd00:1::/64', gateway6: 'fd00:1::1' };
const networks = fc
  .tuple(
    fc.shuffledSubarray(['ingress', 'blue', 'red']),
    fc.shuffledSubarray([4096, 4097, 4098], { minLength: 3 }),
    fc.constantFrom('10.0.1.1', '10.0.1.2'),
    fc.boolean(),
    fc.boolean(),
  )
  .map(([ids, vnis, gateway, isDual, encrypted]) =>
    ids.map((id, index) => ({
      ...{ id, name: id, vni: vnis[index] ?? 0, subnet: '10.0.1.0/24', gateway },
      ...{ ingress: id === 'ingress', ...(isDual && DUAL), ...(encrypted && { encrypted }) },
    })),
  );
const services = fc
  .tuple(
    fc.shuffledSubarray(['web', 'db'], { minLength: 1 }),
    fc.shuffledSubarray(['blue', 'red', 'ingress']),
  )
  .chain(([ids, on]) =>
    fc.tuple(
      ...ids.map((id) =>
        fc
          .tuple(
            fc.constantFrom('10.0.1.100', '10.0.1.101'),
            fc.constantFrom(undefined, 'fd00:1::64'),
            fc.constantFrom(undefined, '10.0.0.100', '10.0.0.101'),
            fc.constantFrom(undefined, 'fd00::64'),
          )
          .map(
            ([address, address6, ingressVip, ingressVip6]): ServiceAssignment => ({
              ...{ id, name: id, ports: [] },
              vips: on.map((networkId) => ({ networkId, address, ...(address6 && { address6 }) })),
              ...(ingressVip && { ingressVip }),
              ...(ingressVip6 && { ingressVip6 }),
            }),
          ),
      ),
    ),
  );
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 8, arbitrary: fc.record({ kind: fc.constant('set'), node, entries }) },
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant('remove'),
      node,
      keys: fc.subarray([VTEP_KEY, ...endpointKeys]),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('drop'), node }) },
  {
    weight: 2,
    arbitrary: fc.record({ kind: fc.constant('suspect'), node, isSuspect: fc.boolean() }),
  },
  { weight: 5, arbitrary: fc.record({ kind: fc.constant('define'), networks, services }) },
);

/** The slot of a VTEP: any number will do that follows from its address. */
function placed<Vtep extends { readonly address: unknown }>(vteps: readonly Vtep[]) {
  return vteps.map((one) => ({ ...one, slot: String(one.address).length }));
}

/** All that was told, and the tables of it, made anew each time. */
class Model {
  readonly #entries = new Map<string, Map<string, Json>>();
  readonly #suspects = new Set<string>();
  #defined: Pick<Step & { kind: 'define' }, 'networks' | 'services'> = {
    networks: [],
    services: [],
  };

  take(taken: Step): void {
    if (taken.kind === 'define') this.#defined = taken;
    else if (taken.kind === 'drop') this.#entries.delete(taken.node);
    else if (taken.kind === 'suspect') {
      if (taken.isSuspect) this.#suspects.add(taken.node);
      else this.#suspects.delete(taken.node);
    } else {
      const known = this.#entries.get(taken.node) ?? new Map<string, Json>();
      this.#entries.set(taken.node, known);
      if (taken.kind === 'remove') for (const key of taken.keys) known.delete(key);
      else for (const [key, value] of Object.entries(taken.entries)) known.set(key, value);
    }
  }

  /** Which of a node's keys are known already. */
  keysOf(of: string): ReadonlySet<string> {
    return new Set(this.#entries.get(of)?.keys());
  }

  /** What several nodes claim is the last one's: here, as everywhere, in the order of node and key. */
  tables(): SlowTables {
    const all = [...this.#entries].flatMap(([of, known]) =>
      Array.from(known, ([key, value]): VisibleEntry => ({ node: of, key, value })),
    );
    const rank = (entry: VisibleEntry): string => `${entry.node} ${entry.key}`;
    const visible = all.sort((a, b) => (rank(a) < rank(b) ? -1 : 1));
    return desiredTables({
      ...this.#defined,
      endpoints: placedEndpoints(visible, SELF, this.#suspects),
      vteps: placed(vtepRecords(visible, SELF)),
    });
  }
}

/** Tells the view of a step as gossip does. */
function tell(view: EndpointView, tables: DesiredTables, taken: Step, known: ReadonlySet<string>) {
  if (taken.kind === 'define') tables.define(taken);
  else if (taken.kind === 'drop') view.drop(taken.node);
  else if (taken.kind === 'suspect') view.suspect(taken.node, taken.isSuspect);
  else if (taken.kind === 'remove') {
    view.change({ node: taken.node, added: [], changed: [], removed: taken.keys });
  } else {
    const told = Object.entries(taken.entries).map(([key, value]) => ({ key, value }));
    const { changed = [], added = [] } = Object.groupBy(told, ({ key }) =>
      known.has(key) ? 'changed' : 'added',
    );
    view.change({ node: taken.node, added, changed, removed: [] });
  }
}

/** What commands about one thing have in common, and where they stand in a step. */
function rankOf({ kind }: DataPlaneCommand): number {
  const order = [
    ...['removeService', 'removeEndpoint', 'removeVtep', 'removeNetwork'],
    ...['setNetwork', 'setVtep', 'setEndpoint', 'setService'],
  ];
  return order.indexOf(kind);
}

function texts(commands: Iterable<DataPlaneCommand>): string[] {
  return Array.from(commands, (command) => JSON.stringify(command)).sort();
}

test('after each change the tables are those of a rebuild, and the commands those that it takes', (t) => {
  let changes = 0;
  const steps = fc.array(fc.tuple(step, fc.boolean()), { minLength: 1, maxLength: 30 });
  fc.assert(
    fc.property(steps, (taken) => {
      const view = new EndpointView(SELF);
      const tables = new DesiredTables(view, (vteps) => placed(vteps));
      const model = new Model();
      let applied: SlowTables = new Map();
      for (const [index, [one, isLooked]] of taken.entries()) {
        const known = 'node' in one ? model.keysOf(one.node) : new Set<string>();
        tell(view, tables, one, known);
        model.take(one);
        // Changes that come while others are applied make one step.
        if (!isLooked && index < taken.length - 1) continue;
        const desired = model.tables();
        const commands = tables.changes();
        const ranks = commands.map(rankOf);
        deepEqual(texts(commands), texts(tableChanges(applied, desired)));
        deepEqual(
          ranks,
          ranks.toSorted((a, b) => a - b),
        );
        applied = desired;
        changes += commands.length;
      }
    }),
    { numRuns: 2_000 },
  );
  t.ok(changes > 1_000, 'there was something to compare');
  t.end();
});
