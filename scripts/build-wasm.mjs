// Compiles the checksum kernel to WASM and writes it into a TypeScript module, so that nothing is
// read from disk at run time. `--check` only tells whether the committed module is up to date.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const source = 'src/core/checksum-kernel.as.ts';
const target = 'src/core/checksum-wasm.ts';
const folder = mkdtempSync(join(tmpdir(), 'weft-wasm-'));
try {
  const out = join(folder, 'checksum.wasm');
  const flags = '-O3 --enable simd --runtime stub --importMemory --noExportMemory'.split(' ');
  execFileSync('node_modules/.bin/asc', [source, ...flags, '-o', out], { stdio: 'inherit' });
  const base64 = readFileSync(out).toString('base64');
  const text = `// Made by \`npm run build:wasm\` from checksum-kernel.as.ts: do not edit.

/** The compiled checksum kernel, base64. */
export const CHECKSUM_WASM_BASE64: string =
  '${base64}';
`;
  if (process.argv.includes('--check')) {
    if (readFileSync(target, 'utf8') !== text) {
      console.error(`${target} is stale: run "npm run build:wasm"`);
      process.exitCode = 1;
    }
  } else {
    writeFileSync(target, text);
  }
} finally {
  rmSync(folder, { recursive: true });
}
