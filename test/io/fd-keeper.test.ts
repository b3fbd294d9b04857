import {
  closeSync,
  existsSync,
  fstatSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { type Test, test } from 'tap';
import { SILENT_LOG } from '../../src/core/capabilities.ts';
import { FdKeeper } from '../../src/io/linux/fd-keeper.ts';
import { FD_NAME_BYTES_MAX, FdQueue } from '../../src/io/linux/fd-queue.ts';
import { killProcess } from '../../src/io/process.ts';
import { eventually } from '../support/cluster.ts';

/** A directory, and files whose inode tells which of them a descriptor is. */
class Place {
  readonly directory = mkdtempSync(`${tmpdir()}/weft-keeper-`);
  readonly #inodes = new Map<number, string>();

  open(name: string): number {
    const fd = openSync(`${this.directory}/${name}`, 'w');
    this.#inodes.set(fstatSync(fd).ino, name);
    return fd;
  }

  /** Which file `fd` is. */
  which(fd: number | undefined): string | undefined {
    return fd === undefined ? undefined : this.#inodes.get(fstatSync(fd).ino);
  }

  close(): void {
    rmSync(this.directory, { recursive: true });
  }
}

/** Whether the process runs; one that has ended and that nobody has waited for does not. */
function isAlive(pid: number): boolean {
  const path = `/proc/${pid}/status`;
  return existsSync(path) && !/^State:\s+Z/m.test(readFileSync(path, 'utf8'));
}

async function setUp(t: Test) {
  const place = new Place();
  let last: FdKeeper | undefined;
  t.teardown(async () => {
    await last?.end();
    place.close();
  });
  const open = async (): Promise<FdKeeper> => {
    last = await FdKeeper.open(SILENT_LOG, place.directory);
    return last;
  };
  const pid = (): number => Number(readFileSync(`${place.directory}/keeper.pid`, 'latin1'));
  return { place, open, pid };
}

test('descriptors go through a queue, in order, under their names', (t) => {
  const place = new Place();
  t.teardown(() => place.close());
  const queue = FdQueue.create();
  t.equal(queue.receive(), undefined, 'nothing is in it');
  const longest = 'ä'.repeat(FD_NAME_BYTES_MAX >> 1);
  for (const name of ['one', longest]) {
    const fd = place.open(name.slice(0, 9));
    t.ok(queue.send({ name, fd }));
    closeSync(fd);
  }
  const received = queue.receiveAll();
  t.same(
    received.map(({ name, fd }) => [name, place.which(fd)]),
    [
      ['one', 'one'],
      [longest, longest.slice(0, 9)],
    ],
  );
  for (const { fd } of received) closeSync(fd);
  for (const name of ['', `${longest}ää`]) {
    t.throws(() => queue.send({ name, fd: 0 }), /expected 1 to 255 bytes/);
  }
  queue.close();
  t.end();
});

test('a group keeps its order, and gives up what is too much for the next one', async (t) => {
  const { place, open } = await setUp(t);
  const first = await open();
  const names = ['one', 'two', 'three'];
  const fds = names.map((name) => place.open(name));
  t.ok(first.keepGroup('all', fds, 0));
  for (const fd of fds) closeSync(fd);
  first.close();

  for (const [wanted, expected] of [
    [4, ['one', 'two', 'three']],
    [2, ['one', 'two']],
    [3, ['one', 'two']],
  ] as const) {
    const next = await open();
    const taken = next.takeGroup('all', wanted);
    t.same(
      taken.map((fd) => place.which(fd)),
      expected,
      `${wanted} are wanted`,
    );
    for (const fd of taken) closeSync(fd);
    next.close();
  }
  const last = await open();
  const [one = -1, two = -1] = last.takeGroup('all', 2);
  const four = place.open('four');
  t.ok(last.keepGroup('all', [one, two, four], 2), 'what is kept already is kept once');
  last.dropGroup('all', 0, 1);
  for (const fd of [one, two, four]) closeSync(fd);
  last.close();
  t.same((await open()).takeGroup('all', 3), [], 'a group begins with its first');
});

test('what is kept outlives who kept it', async (t) => {
  const { place, open, pid } = await setUp(t);
  const first = await open();
  for (const name of ['one', 'two', 'three']) {
    const fd = place.open(name);
    t.ok(first.keep(name, fd));
    closeSync(fd);
  }
  first.drop(new Set(['two']));
  first.close();

  const second = await open();
  t.equal(second.take('two'), undefined, 'it was dropped');
  const one = second.take('one');
  t.equal(place.which(one), 'one');
  t.equal(second.take('one'), undefined, 'each is given once');
  if (one !== undefined) closeSync(one);
  second.dropOffered();
  second.close();

  const keeper = pid();
  rmSync(`${place.directory}/keeper.pid`);
  const third = await open();
  t.equal(third.take('three'), undefined, 'nobody had asked for it');
  const again = third.take('one');
  t.equal(place.which(again), 'one', 'found without its file; who took it is no matter');
  if (again !== undefined) closeSync(again);

  await third.end();
  await eventually('it has ended', async () => !isAlive(keeper) || undefined);
  t.notOk(existsSync(`${place.directory}/keeper.pid`));
});

test('hundreds of descriptors are kept', async (t) => {
  const { place, open } = await setUp(t);
  const first = await open();
  const names = Array.from({ length: 600 }, (_, index) => `tap eth0 in /run/netns/weft-${index}`);
  const fd = place.open('all');
  t.ok(
    names.every((name) => first.keep(name, fd)),
    'there is room',
  );
  closeSync(fd);
  first.close();
  const second = await open();
  const taken = names.map((name) => second.take(name));
  t.ok(taken.every((one) => place.which(one) === 'all'));
  for (const one of taken) if (one !== undefined) closeSync(one);
});

test('a keeper that is gone, or is another process, is replaced', async (t) => {
  const { place, open, pid } = await setUp(t);
  const first = await open();
  first.keep('one', place.open('one'));
  const killed = pid();
  first.close();
  killProcess(killed);
  await eventually('it has ended', async () => !isAlive(killed) || undefined);
  const second = await open();
  t.not(pid(), killed);
  t.equal(second.take('one'), undefined);
  second.close();

  const mine = pid();
  for (const text of [String(process.pid), '', '-1', '1e400', 'a damaged file']) {
    writeFileSync(`${place.directory}/keeper.pid`, text);
    const found = await open();
    found.close();
    t.ok(isAlive(mine), `the one that serves the directory is found: ${JSON.stringify(text)}`);
  }
});
