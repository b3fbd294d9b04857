import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'tap';
import { mapFile, releaseMapped } from '../../src/io/linux/mapped-file.ts';

const PAGE = 4096;

test('what is given back of a mapped file reads as zero, takes no room, and can be used again', (t) => {
  const folder = mkdtempSync('/dev/shm/weft-test-'); // a tmpfs, as /run is
  t.teardown(() => rmSync(folder, { recursive: true }));
  const path = join(folder, 'file');
  const file = mapFile(path, 4 * PAGE);
  file.fill(7);
  const blocks = statSync(path).blocks;
  releaseMapped(file, PAGE, 2 * PAGE);
  t.equal(statSync(path).blocks, blocks / 2);
  t.same(
    [0, PAGE, 3 * PAGE - 1, 3 * PAGE].map((at) => file[at]),
    [7, 0, 0, 7],
  );
  file[PAGE] = 8;
  t.equal(mapFile(path, 4 * PAGE)[PAGE], 8, 'another mapping sees it');
  t.end();
});

test('a part of a page stays', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'weft-test-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const file = mapFile(join(folder, 'file'), PAGE);
  file.fill(7);
  releaseMapped(file, 128, PAGE - 128);
  t.ok(file.every((byte) => byte === 7));
  t.end();
});
