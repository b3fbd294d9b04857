import fc from 'fast-check';
import { test } from 'tap';
import { type Log, SILENT_LOG } from '../../src/core/capabilities.ts';
import type { DataPlaneCommand } from '../../src/dataplane/commands.ts';
import { batches, TableSync } from '../../src/node/table-sync.ts';

/** A command that is told from others by its VNI. */
function removal(vni: number): DataPlaneCommand {
  return { kind: 'removeNetwork', vni };
}

function vnis(commands: readonly DataPlaneCommand[]): number[] {
  return commands.flatMap((command) => (command.kind === 'removeNetwork' ? [command.vni] : []));
}

function service(backends: number): DataPlaneCommand {
  const backend = { id: 't', address: 1, scope: 4096, weight: 1, state: 'active' } as const;
  return {
    kind: 'setService',
    service: { scope: 0, vip: 1, gateway: 2, backends: Array(backends).fill(backend) },
  };
}

/** A data plane that refuses some commands, and answers when the test says so. */
class Plane {
  readonly batches: number[][] = [];
  readonly held: number[] = [];
  readonly #refused: ReadonlySet<number>;
  #answer: (() => void) | undefined;

  constructor(...refused: readonly number[]) {
    this.#refused = new Set(refused);
  }

  async apply(commands: readonly DataPlaneCommand[]): Promise<void> {
    this.batches.push(vnis(commands));
    await new Promise<void>((resolve) => {
      this.#answer = resolve;
      if (this.isQuick) resolve();
    });
    for (const vni of vnis(commands)) {
      if (this.#refused.has(vni)) throw new Error(`VNI ${vni} is refused`);
      this.held.push(vni);
    }
  }

  isQuick = true;
  isServing = true;

  /** Lets what waits, and all that comes, be applied. */
  answer(): void {
    this.isQuick = true;
    this.#answer?.();
  }
}

test('changes that come while others are applied make one step', async (t) => {
  const plane = new Plane();
  plane.isQuick = false;
  let next: number[] = [1];
  const sync = new TableSync(plane, SILENT_LOG, () => next.splice(0).map(removal));
  const first = sync.sync();
  next = [2];
  const second = sync.sync();
  next.push(3);
  const third = sync.sync();
  t.same(plane.batches, [[1]]);
  plane.answer();
  await Promise.all([first, second, third]);
  t.same(plane.batches, [[1], [2, 3]]);
  await sync.sync();
  t.same(plane.batches, [[1], [2, 3]], 'nothing is nothing to apply');
});

test('one entry that is refused keeps no other from the tables, and is logged', async (t) => {
  const plane = new Plane(2, 4);
  const logged: unknown[] = [];
  const log: Log = { ...SILENT_LOG, error: (fields) => logged.push(fields) };
  const next = [1, 2, 3, 4, 5];
  const sync = new TableSync(plane, log, () => next.splice(0).map(removal));
  await sync.sync();
  t.same(new Set(plane.held), new Set([1, 3, 5]));
  t.same(logged, [{ refused: 2, error: 'Error: VNI 2 is refused' }]);
  next.push(6);
  await sync.sync();
  t.same(plane.batches.at(-1), [6], 'what was refused is not tried again');
});

test('batches are all changes in their order, and none is larger than it must be', (t) => {
  const change = fc.oneof(
    { weight: 20, arbitrary: fc.nat(9_999).map(removal) },
    { weight: 1, arbitrary: fc.nat(1_500).map(service) },
  );
  const cost = (batch: readonly DataPlaneCommand[]): number =>
    batch.reduce((sum, one) => {
      return sum + (one.kind === 'setService' ? 200 + one.service.backends.length : 1);
    }, 0);
  fc.assert(
    fc.property(fc.array(change, { size: '+2' }), (changes) => {
      const found = [...batches(changes)];
      return (
        found.every((batch) => batch.length === 1 || cost(batch) <= 1_000) &&
        found.every((batch, index) => {
          const next = found[index + 1]?.slice(0, 1);
          return next === undefined || cost([...batch, ...next]) > 1_000;
        }) &&
        found.flat().every((one, index) => one === changes[index]) &&
        found.flat().length === changes.length
      );
    }),
  );
  t.same(
    [...batches(Array.from({ length: 2_500 }, (_, vni) => removal(vni)))].map(
      ({ length }) => length,
    ),
    [1_000, 1_000, 500],
  );
  t.end();
});
