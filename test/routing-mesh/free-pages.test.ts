import { test } from 'tap';
import { FreePages } from '../../src/routing-mesh/free-pages.ts';

const PAGE = 4096;
const ENTRY = 128;
const SLOTS_PER_PAGE = PAGE / ENTRY;

/** Slots whose entries start at `entriesAt`, and the pages of memory that were given back. */
class World {
  readonly used = new Set<number>();
  readonly capacity: number;
  readonly pages: FreePages;
  /** Of the whole memory, in the order in which they were given back. */
  released: number[] = [];
  isLocked = false;
  /** Done as soon as the lock is taken, as by a thread that had it until then. */
  beforeLock: () => void = () => {};

  constructor(capacity: number, entriesAt: number) {
    this.capacity = capacity;
    this.pages = new FreePages(this, entriesAt, ENTRY, (offset, bytes) => {
      if (!this.isLocked) throw new Error('Released without the lock');
      if (offset % PAGE !== 0 || bytes % PAGE !== 0) throw new Error(`Released ${offset} ${bytes}`);
      for (let at = offset; at < offset + bytes; at += PAGE) this.released.push(at / PAGE);
    });
  }

  areFree(first: number, count: number): boolean {
    for (let slot = first; slot < first + count; slot++) if (this.used.has(slot)) return false;
    return true;
  }

  lock(): void {
    this.beforeLock();
    this.isLocked = true;
  }

  unlock(): void {
    this.isLocked = false;
  }

  /** Looks at all, and says what that gave back. */
  look(): readonly number[] {
    this.released = [];
    this.pages.look(0, this.capacity);
    return this.released;
  }
}

test('a page is given back once, when it was free at two looks in a row', (t) => {
  const world = new World(4 * SLOTS_PER_PAGE, PAGE);
  const slot = 2 * SLOTS_PER_PAGE + 5; // of page 3: page 0 holds no entries
  world.used.add(slot);
  t.same(world.look(), [], 'the first look');
  t.same(world.look(), [1, 2, 4], 'the second one; page 3 is in use');
  t.same(world.look(), [], 'they are gone already');
  world.used.clear();
  t.same(world.look(), [], 'page 3 has just become free');
  world.used.add(slot);
  t.same(world.look(), [], 'and is used again');
  world.used.clear();
  t.same(world.look(), []);
  t.same(world.look(), [3]);
  world.used.add(slot);
  world.look();
  world.used.clear();
  t.same([world.look(), world.look()], [[], [3]], 'a page that was given back can be so again');
  t.end();
});

// Where entries start, how many slots there are, and the pages that hold nothing but whole entries.
for (const [entriesAt, capacity, expected] of [
  [0, 2 * SLOTS_PER_PAGE, [0, 1]],
  [2048, 2 * SLOTS_PER_PAGE, [1]],
  [2048 + 128, 64, [1]],
  [4096 - 128, 1 + SLOTS_PER_PAGE, [1]],
  [2048, SLOTS_PER_PAGE, []],
  [2048, 8, []],
] as const) {
  test(`of ${capacity} entries from byte ${entriesAt} on, pages ${expected} are given back`, (t) => {
    const world = new World(capacity, entriesAt);
    world.look();
    t.same(world.look(), expected);
    t.end();
  });
}

test('looks at a part each go round, and miss no page', (t) => {
  const world = new World(40 * SLOTS_PER_PAGE, 2048);
  for (let round = 0; round < 2; round++) {
    for (let first = 0; first < world.capacity; first += 80) world.pages.look(first, 80);
  }
  const pages = Array.from({ length: 39 }, (_, index) => index + 1);
  t.same(world.released, pages);
  t.end();
});

test('a long run is given back in pieces', (t) => {
  const world = new World(600 * SLOTS_PER_PAGE, 0);
  let locks = 0;
  world.beforeLock = () => {
    locks += 1;
  };
  world.look();
  t.equal(world.look().length, 600);
  t.equal(locks, 3);
  t.end();
});

test('a flow that another thread adds at the last moment keeps its page', (t) => {
  const world = new World(SLOTS_PER_PAGE, 0);
  world.look();
  world.beforeLock = () => world.used.add(7);
  t.same(world.look(), []);
  t.notOk(world.isLocked);
  world.beforeLock = () => {};
  world.used.clear();
  t.same(world.look(), [0], 'it is tried again');
  t.end();
});
