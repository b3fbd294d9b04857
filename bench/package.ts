import { execFile } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, symlinkSync } from 'node:fs';
import { promisify } from 'node:util';

const ROOT = new URL('..', import.meta.url).pathname;
/** Always the same folder: the compile cache goes by paths, and is not to grow with every run. */
const FOLDER = `${ROOT}dist/package`;

/**
 * Builds weft as npm installs it. A checkout's agent has the compiler that strips types in the memory of
 * each of its threads, until the compile cache has all its modules: nobody who installs weft has that.
 *
 * @returns the path of its `weft.mjs`
 * @throws {Error} if it does not compile, with what the compiler says
 */
export async function buildPackage(): Promise<string> {
  mkdirSync(FOLDER, { recursive: true });
  cpSync(`${ROOT}bin`, `${FOLDER}/bin`, { recursive: true });
  cpSync(`${ROOT}package.json`, `${FOLDER}/package.json`);
  const modules = `${FOLDER}/node_modules`;
  if (!existsSync(modules)) symlinkSync(`${ROOT}node_modules`, modules);
  const flags = ['-p', `${ROOT}tsconfig.build.json`, '--outDir', `${FOLDER}/dist`];
  await promisify(execFile)(process.execPath, [`${ROOT}node_modules/.bin/tsc`, ...flags]).catch(
    (error: Error & { readonly stdout?: string }) => {
      throw new Error(`Cannot build weft: ${error.stdout ?? error.message}`, { cause: error });
    },
  );
  return `${FOLDER}/bin/weft.mjs`;
}
