// The command as people start it: bin/weft.mjs in a process of its own.
import { execFile } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { test } from 'tap';
import { startFakeAgent } from './fake-agent.ts';

const BIN = fileURLToPath(new URL('../../bin/weft.mjs', import.meta.url));

interface Ended {
  readonly code: number | string | null | undefined;
  readonly stdout: string;
  readonly stderr: string;
}

function run(file: string, argv: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<Ended> {
  return new Promise((fulfil) => {
    execFile(
      process.execPath,
      [file, ...argv],
      { env: { PATH: process.env.PATH, ...env } },
      (error, stdout, stderr) => fulfil({ code: error === null ? 0 : error.code, stdout, stderr }),
    );
  });
}

test('weft runs from a checkout, and tells its outcome by its exit code', async (t) => {
  const agent = await startFakeAgent(t, { 'GET /networks': [] });
  const listed = await run(BIN, ['network', 'ls'], { WEFT_HOST: agent.host });
  t.same(listed, { code: 0, stdout: 'NETWORK ID   NAME      DRIVER    SCOPE\n', stderr: '' });
  const unreachable = await run(BIN, ['-H', `${agent.host}.gone`, 'network', 'ls']);
  t.same(unreachable, {
    code: 1,
    stdout: '',
    stderr: `weft: Cannot reach the weft agent at ${agent.socket}.gone: there is no such socket; is it running? Start it with "weft agent"\n`,
  });
});

test('an installed weft runs what was compiled, and an old Node says a sentence', async (t) => {
  const root = mkdtempSync(join(tmpdir(), 'weft-bin-'));
  t.teardown(() => rmSync(root, { recursive: true }));
  mkdirSync(join(root, 'bin'));
  mkdirSync(join(root, 'dist/src/cli'), { recursive: true });
  copyFileSync(BIN, join(root, 'bin/weft.mjs'));
  writeFileSync(join(root, 'package.json'), '{"type":"module"}');
  writeFileSync(
    join(root, 'dist/src/cli/main.js'),
    'export const runProcess = async (argv) => console.log(JSON.stringify(argv));',
  );
  // npm links the command into its bin directory.
  symlinkSync('bin/weft.mjs', join(root, 'weft'));
  t.equal((await run(join(root, 'weft'), ['a', '--b'])).stdout, '["a","--b"]\n');
  const asOld = `data:text/javascript,Object.defineProperty(process.versions,'node',{value:'22.1.0'})`;
  const old = await run(join(root, 'weft'), ['a'], { NODE_OPTIONS: `--import ${asOld}` });
  t.match(old, { code: 1, stdout: '', stderr: /^weft: Cannot run on Node 22\.1\.0: expected 24/ });
});
