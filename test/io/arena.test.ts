import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { test } from 'tap';
import { loadChecksumKernel } from '../../src/core/checksum.ts';
import { Arena, IOVEC_BYTES } from '../../src/io/linux/arena.ts';
import { readAt, writev } from '../../src/io/linux/ffi.ts';

const SMALL_INTEGER_END = 2 ** 31;

test('the kernel, JavaScript and WebAssembly see the same bytes, below 2 GiB to the kernel', (t) => {
  const directory = mkdtempSync(`${tmpdir()}/weft-arena-`);
  t.teardown(() => rmSync(directory, { recursive: true }));
  const arenas = [new Arena(100_000), new Arena(1), new Arena(300_000)];
  for (const [index, arena] of arenas.entries()) {
    const file = `${directory}/${index}`;
    const text = Buffer.from(`arena ${index}`);
    const from = arena.allocate(text.length);
    arena.bytes.set(text, from);
    const vector = arena.allocate(IOVEC_BYTES);
    arena.setIovec(vector, from, text.length);
    const out = openSync(file, 'w+');
    t.equal(writev(out, arena.base + vector, 1), text.length);
    t.equal(
      readFileSync(file, 'latin1'),
      `arena ${index}`,
      'the kernel reads what is written here',
    );
    closeSync(out);

    const to = arena.allocate(text.length);
    const back = openSync(file, 'r');
    t.equal(readAt(back, arena.base + to, text.length), text.length);
    closeSync(back);
    t.same(arena.bytes.subarray(to, to + text.length), text, 'and the other way round');
    const { sum16 } = loadChecksumKernel(arena.memory);
    t.equal(sum16(to, text.length), sum16(from, text.length), 'WebAssembly sees it');
    t.not(sum16(to, text.length), 0);
    t.ok(arena.base + arena.bytes.length <= SMALL_INTEGER_END);
  }
  const spans = arenas.map(({ base, bytes }) => [base, base + bytes.length] as const);
  spans.sort(([one], [other]) => one - other);
  t.ok(
    spans.every(([start], index) => index === 0 || start >= (spans[index - 1]?.[1] ?? 0)),
    'no two arenas share an address',
  );
  t.end();
});

test('an arena that is full says so', (t) => {
  const arena = new Arena(1);
  t.equal(arena.bytes.length, 65_536, 'whole pages');
  t.equal(arena.allocate(10) % 64, 0);
  t.throws(() => arena.allocate(65_536), /arena was made large enough/);
  t.end();
});
