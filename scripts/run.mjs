// `node scripts/run.mjs TASK [ARGUMENT…]`: sets the checkout up as far as the task needs it, then runs
// the task with the pinned Node. What `npm run` calls.
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  environment,
  installPackages,
  installPrograms,
  PINNED_NODE,
  requireNode,
  say,
} from './setup.mjs';

const BIN = 'node_modules/.bin';
/** Tests of whole hosts. */
const isSystemTest = (file) => file.startsWith('test/e2e/');
/** Unit tests that make network namespaces or run tasks in them: `npm test` has them, `ok` does not. */
const NEEDS_ROOT = [
  'test/io/linux-network.test.ts',
  'test/runtime/process-runtime.test.ts',
  'test/runtime/task-executor.test.ts',
];
/** Unit tests that take longer than a developer waits for the gate. */
const SLOW = ['test/gossip/endpoint-model.test.ts', 'test/gossip/simulation-large.test.ts'];
const isQuick = (file) => !isSystemTest(file) && ![...NEEDS_ROOT, ...SLOW].includes(file);

const TASKS = {
  demo: (args) => {
    installPrograms();
    return node('demo/demo.ts', ...args);
  },
  bench: (args) => {
    installPrograms();
    return node('bench/bench.ts', ...args);
  },
  test: (args) => {
    const complete = installPrograms();
    if (process.geteuid?.() !== 0) say('not root: tests that need network namespaces are skipped');
    else if (!complete) return 1;
    return tests(args.length > 0 ? args : testFiles());
  },
  check: () => check(),
  ok: async () => (await check()) || (await tests(testFiles().filter(isQuick))),
  build: () => node(`${BIN}/tsc`, '-p', 'tsconfig.build.json'),
};

/** Types, linter, generated code and layers, all at once; what they say is printed one by one. */
async function check() {
  const commands = [
    [`${BIN}/tsc`, '--noEmit'],
    [`${BIN}/biome`, 'check', '--error-on-warnings'],
    ['scripts/build-wasm.mjs', '--check'],
    ['test/layers.test.ts'],
  ];
  const results = await Promise.all(commands.map(capture));
  const failed = results.filter(({ status }) => status !== 0);
  for (const { text } of failed) process.stdout.write(text);
  return failed[0]?.status ?? 0;
}

async function capture(args) {
  const child = spawn(PINNED_NODE, args, { stdio: ['ignore', 'pipe', 'pipe'], env: environment() });
  let text = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (chunk) => {
      text += chunk;
    });
  }
  const [status] = await once(child, 'close');
  return { status: status ?? 1, text };
}

/** Runs test files; the last line says how many assertions passed and failed. */
async function tests(files) {
  // System tests share the machine's two cores with agents and peers of their own: one at a time.
  const groups = [
    { jobs: 2, files: files.filter((file) => !isSystemTest(file)) },
    { jobs: 1, files: files.filter(isSystemTest) },
  ];
  const results = [];
  for (const group of groups) if (group.files.length > 0) results.push(await runTap(group));
  const sum = (field) => results.reduce((total, result) => total + result[field], 0);
  const status = results.find((result) => result.status !== 0)?.status ?? 0;
  console.log(`${sum('passed')} passed, ${sum('failed')} failed`);
  return status || (sum('passed') === 0 ? 1 : 0);
}

/** For people tap draws its progress; for a log it prints TAP, once. Both end in the same summary. */
async function runTap({ jobs, files }) {
  const output = join(tmpdir(), `weft-tests-${process.pid}.tap`);
  const isTerminal = process.stdout.isTTY;
  const toFile = isTerminal ? [`--output-file=${output}`] : [];
  const child = spawn(PINNED_NODE, [`${BIN}/tap`, `--jobs=${jobs}`, ...toFile, ...files], {
    stdio: ['ignore', isTerminal ? 'inherit' : 'pipe', 'inherit'],
    env: environment(),
  });
  let text = '';
  child.stdout?.on('data', (chunk) => {
    process.stdout.write(chunk);
    text += chunk;
  });
  const [status] = await once(child, 'close');
  if (isTerminal && existsSync(output)) {
    text = readFileSync(output, 'utf8');
    rmSync(output);
  }
  const summary = /^# \{ total: \d+(?:, pass: (\d+))?(?:, fail: (\d+))?/m;
  const [, passed = '0', failed = '0'] = summary.exec(text) ?? [];
  return { status: status ?? 1, passed: Number(passed), failed: Number(failed) };
}

function testFiles(folder = 'test') {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .map((file) => join(folder, file))
    .filter((file) => file.endsWith('.test.ts'))
    .sort();
}

function node(...args) {
  const { status, error } = spawnSync(PINNED_NODE, args, { stdio: 'inherit', env: environment() });
  if (error !== undefined) throw error;
  return status ?? 1;
}

requireNode();
const [name = '', ...args] = process.argv.slice(2);
const task = TASKS[name];
if (task === undefined) {
  say(`no task ${JSON.stringify(name)}: expected one of ${Object.keys(TASKS).join(', ')}`);
  process.exit(1);
}
try {
  installPackages();
  process.exitCode = await task(args);
} catch (error) {
  say(error.message);
  process.exitCode = 1;
}
