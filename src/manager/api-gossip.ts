import type { Hono } from 'hono';
import { z } from 'zod';
import type { ApiContext } from './api-context.ts';
import type { StateView } from './cluster-state.ts';
import { timestamp } from './docker-objects.ts';
import type { GossipKey, GossipKeyRing } from './gossip-key-ring.ts';
import {
  hasConfirmed,
  holdsKey,
  installGossipKey,
  type KeyContext,
  readGossipKey,
  removeGossipKey,
  rotateGossipKey,
  useGossipKey,
} from './gossip-keys.ts';
import { GOSSIP_KEYS_KEY } from './keys.ts';
import type { NodeRecord } from './records.ts';
import { parseBody } from './request-body.ts';
import { isFlagSet } from './request-query.ts';

const installSchema = z.strictObject(
  { Key: z.string('expected 16, 24 or 32 bytes in base64') },
  'expected a JSON object',
);

/** A key, as `GET /weft/gossip/keys` shows it. */
interface KeyObject {
  readonly id: string;
  readonly state: 'primary' | 'installed' | 'installing';
  /** RFC 3339. */
  readonly createdAt: string;
  /** Nodes that are not down, and how many of them hold it. */
  readonly nodes: number;
  readonly confirmed: number;
  /** In base64; only if it was asked for. */
  readonly key?: string;
}

/**
 * `/weft/gossip/keys`: weft's own. Answers hold no key, unless `?secret=1` asks for them.
 *
 * - `GET` the keys, and which nodes a change waits for
 * - `POST` `{"Key": …}` installs one; `POST …/rotate` begins a rotation
 * - `POST …/<id>/use` makes one the primary; `DELETE …/<id>` removes one
 *
 * The changes answer with the key's id at once; `GET` tells when they have taken effect.
 */
export function gossipRoutes(app: Hono, context: ApiContext): void {
  const { state, writer, clock, random, sha256 } = context;
  const now = (): KeyContext => ({ random, sha256, nowMs: clock.epochMs() });
  app.get('/weft/gossip/keys', (c) => c.json(keysObject(state, isFlagSet(c.req.query('secret')))));
  app.post('/weft/gossip/keys', async (c) => {
    const { Key } = parseBody(installSchema, await c.req.text());
    const key = readGossipKey(Key, 'Key', now());
    await writer.write((draft) => installGossipKey(draft, key, clock.epochMs()));
    return c.json({ id: key.id }, 201);
  });
  app.post('/weft/gossip/keys/rotate', async (c) => {
    const id = await writer.write((draft) => rotateGossipKey(draft, now()));
    return c.json({ id });
  });
  app.post('/weft/gossip/keys/:id/use', async (c) => {
    const reference = c.req.param('id');
    const id = await writer.write((draft) => useGossipKey(draft, reference, clock.epochMs()));
    return c.json({ id });
  });
  app.delete('/weft/gossip/keys/:id', async (c) => {
    const reference = c.req.param('id');
    const id = await writer.write((draft) => removeGossipKey(draft, reference, clock.epochMs()));
    return c.json({ id });
  });
}

function keysObject(state: StateView, withSecrets: boolean): Readonly<Record<string, unknown>> {
  const ring = state.get(GOSSIP_KEYS_KEY);
  const nodes = [...state.all('nodes')];
  const up = nodes.filter((node) => node.state !== 'down');
  const down = nodes.filter((node) => node.state === 'down' && node.secretHash !== undefined);
  const waiting = ring === undefined ? [] : up.filter((node) => !hasConfirmed(node, ring));
  return {
    mode: ring?.mode ?? 'off',
    changing: ring?.stepSinceMs !== undefined,
    nodes: up.length,
    waiting: waiting.map(nodeName),
    down: down.map(nodeName),
    keys: (ring?.keys ?? []).map((key) => keyObject(ring, key, up, withSecrets)),
  };
}

function nodeName({ id, description }: NodeRecord): { readonly id: string; readonly name: string } {
  return { id, name: description.hostname };
}

function keyObject(
  ring: GossipKeyRing | undefined,
  key: GossipKey,
  nodes: readonly NodeRecord[],
  withSecrets: boolean,
): KeyObject {
  const confirmed = nodes.filter((node) => holdsKey(node, key)).length;
  const isInstalled = confirmed === nodes.length || ring?.stepSinceMs === undefined;
  const state = isInstalled ? 'installed' : 'installing';
  return {
    id: key.id,
    state: key.id === ring?.primaryId ? 'primary' : state,
    createdAt: timestamp(key.createdAtMs),
    nodes: nodes.length,
    confirmed,
    ...(withSecrets ? { key: key.key } : {}),
  };
}
