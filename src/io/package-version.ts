import { readFileSync } from 'node:fs';

/** From `src/io/` and from the compiled `dist/src/io/`. */
const MANIFESTS = ['../../package.json', '../../../package.json'];

/**
 * The version of this installation of weft.
 *
 * @throws {Error} if the package has no manifest: it is damaged
 */
export function packageVersion(): string {
  for (const manifest of MANIFESTS) {
    const version = readVersion(new URL(manifest, import.meta.url));
    if (version !== undefined) return version;
  }
  throw new Error('Cannot find the package.json of weft: install it again');
}

function readVersion(url: URL): string | undefined {
  try {
    const manifest = JSON.parse(readFileSync(url, 'utf8'));
    return manifest.name === 'weft' ? String(manifest.version) : undefined;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}
