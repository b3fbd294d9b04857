#!/usr/bin/env node
// Finds a Node that can run weft, and weft itself. This file alone must parse on Node 14, so that
// an old Node says a sentence in place of a syntax error.
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import * as nodeModule from 'node:module';
import { homedir } from 'node:os';
import { fileURLToPath } from 'node:url';

/** `engines` of package.json: type stripping, node:sqlite and UDP GSO through koffi need it. */
const NODE_MAJOR_MIN = 24;
const root = fileURLToPath(new URL('..', import.meta.url));
// Node strips no types under node_modules, and the published package has no sources anyway.
const isCheckout = existsSync(`${root}src/cli/main.ts`) && !/[\\/]node_modules[\\/]/.test(root);
const pinnedNode = `${root}node_modules/node/bin/node`;

if (Number(process.versions.node.split('.')[0]) >= NODE_MAJOR_MIN) {
  keepCompiled();
  const main = isCheckout ? '../src/cli/main.ts' : '../dist/src/cli/main.js';
  // A bug's rejection is left to end the process with its stack trace.
  void import(new URL(main, import.meta.url).href).then(({ runProcess }) =>
    runProcess(process.argv.slice(2), process.env),
  );
} else if (isCheckout && existsSync(pinnedNode)) {
  runPinnedNode();
} else {
  process.stderr.write(
    `weft: Cannot run on Node ${process.versions.node}: expected ${NODE_MAJOR_MIN} or later, ` +
      'see https://nodejs.org\n',
  );
  process.exitCode = 1;
}

/**
 * Keeps stripped and compiled sources between runs: an agent that restarts must be quick. Not where Node
 * keeps them by itself, which is in /tmp: others could leave code there for root to run.
 */
function keepCompiled() {
  if (process.env.NODE_COMPILE_CACHE !== undefined) return; // Node has been told where
  let home;
  try {
    home = process.env.XDG_CACHE_HOME || `${homedir()}/.cache`;
  } catch {
    return; // a user without a home
  }
  const cache = nodeModule.enableCompileCache?.(`${home}/weft`);
  // Each thread has a cache of its own, and takes the directory from here.
  if (cache?.directory !== undefined) process.env.NODE_COMPILE_CACHE = cache.directory;
}

/** The checkout's own Node takes over: same arguments, same standard streams, same exit code. */
function runPinnedNode() {
  const child = spawn(pinnedNode, [fileURLToPath(import.meta.url), ...process.argv.slice(2)], {
    stdio: 'inherit',
  });
  // Ctrl-C reaches the child by itself; a signal to this process alone must be handed on.
  for (const signal of ['SIGTERM', 'SIGHUP']) process.on(signal, () => child.kill(signal));
  process.on('SIGINT', () => {});
  child.on('error', (error) => {
    process.stderr.write(`weft: Cannot run ${pinnedNode}: ${error.message}, try "npm install"\n`);
    process.exitCode = 1;
  });
  child.on('exit', (code, signal) => {
    if (signal === null) process.exitCode = code;
    else process.exitCode = 1;
  });
}
