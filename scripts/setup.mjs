// Sets a checkout up: npm packages, the pinned Node, Debian packages. Runs under any Node from 20 on,
// and before anything is installed: it may import nothing but Node's own modules.
import { execFileSync, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { accessSync, constants, existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';

/** Debian package of each program that weft or its tests call. */
const PROGRAMS = {
  ip: { package: 'iproute2', for: 'weft itself' },
  nft: { package: 'nftables', for: 'weft itself' },
  nsenter: { package: 'util-linux', for: 'weft itself' },
  ping: { package: 'iputils-ping', for: 'tests and bench' },
  iperf3: { package: 'iperf3', for: 'tests, demo and bench' },
  curl: { package: 'curl', for: 'tests' },
  promtool: { package: 'prometheus', for: 'tests' },
  serf: { package: 'serf', for: 'tests and bench' },
};
/** Where Debian keeps programs that are not on everybody's PATH. */
const EXTRA_PATH = ['/usr/local/sbin', '/usr/sbin', '/sbin'];
const STAMP = 'node_modules/.weft-setup';
const POLICY = '/usr/sbin/policy-rc.d';

/** The Node binary that everything runs with. */
export const PINNED_NODE = join(process.cwd(), 'node_modules/node/bin/node');

/** Installs npm packages if package-lock.json changed since the last time. */
export function installPackages() {
  const lock = createHash('sha256').update(readFileSync('package-lock.json')).digest('hex');
  const isCurrent = existsSync(STAMP) && readFileSync(STAMP, 'utf8') === lock;
  if (!isCurrent || !existsSync(PINNED_NODE)) {
    say('installing npm packages');
    // Only the package "node" needs its install script: it brings the binary.
    run('npm', ['ci', '--ignore-scripts', '--no-audit', '--no-fund']);
    run('npm', ['rebuild', 'node', '--ignore-scripts=false', '--no-audit', '--no-fund']);
    // tap looks its plugins up in a module that it builds.
    run(PINNED_NODE, ['node_modules/.bin/tap', 'build']);
    writeFileSync(STAMP, lock);
  }
}

/**
 * Installs the Debian packages that are missing, or says which are when it may not.
 *
 * @returns whether all programs are there
 */
export function installPrograms() {
  const missing = Object.entries(PROGRAMS).filter(([program]) => !isOnPath(program));
  if (missing.length === 0) return true;
  const packages = missing.map(([, { package: name }]) => name);
  const command = `apt-get install -y --no-install-recommends ${packages.join(' ')}`;
  if (process.geteuid?.() !== 0 || !isOnPath('apt-get')) {
    for (const [program, { for: purpose }] of missing) say(`missing: ${program} (${purpose})`);
    say(`as root on Debian: ${command}`);
    return false;
  }
  say(command);
  const quiet = { env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' } };
  withoutServices(() => {
    run('apt-get', ['update', '-qq'], quiet);
    run('apt-get', ['install', '-y', '-qq', '--no-install-recommends', ...packages], quiet);
  });
  return true;
}

/** The environment for whatever runs after the set-up: the pinned Node comes first. */
export function environment() {
  const path = [
    join(process.cwd(), 'node_modules/node/bin'),
    join(process.cwd(), 'node_modules/.bin'),
    process.env.PATH ?? '',
    ...EXTRA_PATH,
  ].join(delimiter);
  return { ...process.env, PATH: path };
}

/** Says what the set-up does, on stderr: stdout belongs to the command. */
export function say(text) {
  console.error(`weft: ${text}`);
}

function run(file, args, options = {}) {
  const { status, error } = spawnSync(file, args, {
    stdio: ['ignore', 2, 2],
    env: environment(),
    ...options,
  });
  if (error !== undefined)
    throw new Error(`Cannot run ${file}: ${error.message}`, { cause: error });
  if (status !== 0) throw new Error(`Cannot set up: "${file} ${args.join(' ')}" failed`);
}

/** Runs `install` while packages may start no services (invoke-rc.d(8)). */
function withoutServices(install) {
  const isOurs = !existsSync(POLICY);
  if (isOurs) writeFileSync(POLICY, '#!/bin/sh\nexit 101\n', { mode: 0o755 });
  try {
    install();
  } finally {
    if (isOurs) rmSync(POLICY);
  }
}

function isOnPath(program) {
  const folders = [...(process.env.PATH ?? '').split(delimiter), ...EXTRA_PATH];
  return folders.some((folder) => {
    try {
      accessSync(join(folder, program), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

/** Ends the process with a message if this Node cannot even run the set-up. */
export function requireNode() {
  const major = Number(process.versions.node.split('.')[0]);
  if (major < 20) {
    say(`Node ${process.versions.node} is too old to start with: install Node 20 or newer`);
    process.exit(1);
  }
  try {
    execFileSync('npm', ['--version'], { stdio: 'ignore' });
  } catch {
    say('npm is missing: on Debian, apt-get install npm');
    process.exit(1);
  }
}
