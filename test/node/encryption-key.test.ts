import { chmod, readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'tap';
import { EncryptionKeyFile } from '../../src/node/encryption-key.ts';

test('a key is made once, and only its owner may read it', async (t) => {
  const directory = t.testdir();
  const path = join(directory, 'state', 'encryption.key');
  const file = new EncryptionKeyFile(path);
  const key = await file.load();
  t.equal(key.length, 32);
  t.same(await file.load(), key);
  t.equal((await stat(path)).mode & 0o777, 0o600);
  t.equal((await stat(join(directory, 'state'))).mode & 0o077, 0);
  t.equal(await readFile(path, 'utf8'), `${Buffer.from(key).toString('base64')}\n`);
  await file.remove();
  t.same(await readdir(join(directory, 'state')), []);
  await file.remove();
  t.notSame(await file.load(), key, 'another one in another cluster');
});

test('a key that others could read is closed to them', async (t) => {
  const path = join(t.testdir(), 'encryption.key');
  const file = new EncryptionKeyFile(path);
  await file.load();
  await chmod(path, 0o644);
  await file.load();
  t.equal((await stat(path)).mode & 0o777, 0o600);
});

test('a damaged key is refused with what is wrong and what to do', async (t) => {
  const path = join(t.testdir(), 'encryption.key');
  for (const text of ['', 'c2hvcnQ=\n', `${'A'.repeat(60)}\n`]) {
    await writeFile(path, text);
    await t.rejects(
      new EncryptionKeyFile(path).load(),
      /encryption\.key: expected a key of 32 bytes in base64, got \d+; remove it/,
    );
  }
});
