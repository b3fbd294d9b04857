// The layering laws of docs/architecture.md, held as a test: an upward import fails it.
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { test } from 'tap';

/** What each layer may import besides itself. Pure layers see no `node:` module either. */
const LAYERS: Readonly<Record<string, { readonly may: string; readonly node: boolean }>> = {
  core: { may: '', node: false },
  vxlan: { may: 'core', node: false },
  'routing-mesh': { may: 'core', node: false },
  ipam: { may: 'core', node: false },
  gossip: { may: 'core', node: false },
  noise: { may: 'core', node: false },
  io: { may: 'core vxlan routing-mesh ipam gossip noise manager', node: true },
  dataplane: { may: 'core vxlan routing-mesh noise io', node: true },
  manager: { may: 'core ipam routing-mesh', node: false },
  runtime: { may: 'core io manager', node: true },
  node: {
    may: 'core vxlan routing-mesh ipam gossip noise io dataplane manager runtime',
    node: true,
  },
  'host-agent.ts': { may: 'core io dataplane node agent-options.ts', node: true },
  'agent.ts': { may: 'io dataplane agent-options.ts host-agent.ts', node: true },
  'agent-options.ts': { may: 'core', node: false },
  cli: { may: 'core io agent.ts agent-options.ts', node: true },
};

/** `io` may name the manager's types (the session protocol), and nothing that runs. */
const TYPES_ONLY: readonly string[] = ['io -> manager', 'runtime -> manager'];
/** npm packages that touch the outside world, and the one layer that may load them. */
const OUTSIDE_PACKAGES: Readonly<Record<string, string>> = {
  koffi: 'io',
  pino: 'io',
  'prom-client': 'io',
  '@hono/node-server': 'io',
};

interface Import {
  readonly file: string;
  readonly target: string;
  readonly typeOnly: boolean;
}

function layerOf(path: string): string {
  return path.split('/')[1] ?? '';
}

/** Why an import breaks the laws; undefined if it does not. */
function violation({ file, target, typeOnly }: Import): string | undefined {
  const from = layerOf(file);
  const layer = LAYERS[from];
  if (layer === undefined) return `${file}: the folder ${from} has no place among the layers`;
  if (target.startsWith('node:')) {
    return layer.node ? undefined : `${file} imports ${target}: take a capability as an argument`;
  }
  if (!target.startsWith('.')) {
    const owner = OUTSIDE_PACKAGES[target];
    return owner === undefined || owner === from
      ? undefined
      : `${file} imports ${target}: only src/${owner} may`;
  }
  const to = layerOf(normalize(join(dirname(file), target)));
  if (to === from) return undefined;
  if (!layer.may.split(' ').includes(to))
    return `${file} imports ${target}: ${from} is not above ${to}`;
  if (TYPES_ONLY.includes(`${from} -> ${to}`) && !typeOnly) {
    return `${file} imports ${target}: ${from} may use types of ${to} only`;
  }
  return undefined;
}

function importsOf(file: string, text: string): Import[] {
  const pattern = /^\s*(?:import|export)\s+(type\s)?(?:[^'";]*?\sfrom\s+)?'([^']+)'/gm;
  const statics = [...text.matchAll(pattern)].map(([, type, target = '']) => ({
    file,
    target,
    typeOnly: type !== undefined,
  }));
  const dynamics = [...text.matchAll(/\bimport\('([^']+)'\)/g)].map(([, target = '']) => ({
    file,
    target,
    typeOnly: false,
  }));
  return [...statics, ...dynamics];
}

const files = readdirSync('src', { recursive: true, encoding: 'utf8' })
  .filter((file) => file.endsWith('.ts') && !file.endsWith('.as.ts'))
  .map((file) => join('src', file));

test('imports point down', (t) => {
  const imports = files.flatMap((file) => importsOf(file, readFileSync(file, 'utf8')));
  t.ok(files.length > 100, 'the sources were found');
  t.ok(imports.length > 400, 'their imports were found');
  t.same(imports.map(violation).filter(Boolean), []);
  t.end();
});

test('every broken law is noticed', (t) => {
  const cases: readonly [string, string, boolean][] = [
    ['src/vxlan/header.ts', "import { x } from '../gossip/swim.ts';", true],
    ['src/vxlan/header.ts', "import type { X } from '../dataplane/switch.ts';", true],
    ['src/gossip/swim.ts', "import {\n  a,\n  b,\n} from 'node:fs';", true],
    ['src/manager/api.ts', "import { x } from '../io/system.ts';", true],
    ['src/manager/api.ts', "import koffi from 'koffi';", true],
    ['src/io/x.ts', "import { x } from '../manager/session-protocol.ts';", true],
    ['src/io/x.ts', "import type { X } from '../manager/session-protocol.ts';", false],
    ['src/core/x.ts', "export { y } from '../vxlan/vni.ts';", true],
    ['src/cli/x.ts', "const agent = await import('../agent.ts');", false],
    ['src/nowhere/x.ts', "import '../core/x.ts';", true],
    ['src/dataplane/x.ts', "import { x } from '../vxlan/vni.ts';", false],
  ];
  for (const [file, text, isBroken] of cases) {
    const found = importsOf(file, text).map(violation).filter(Boolean);
    t.equal(found.length > 0, isBroken, `${file}: ${text}`);
  }
  t.end();
});
