import type { Endpoint, EndpointChange } from './effects.ts';
import type { Delta, EntryContent } from './endpoint-delta.ts';
import type { EndpointRecord } from './endpoint-record.ts';

/**
 * What became different in a visible record by a delta.
 *
 * @param touched - The content before the change of each key that may have changed.
 * @returns undefined if nothing did
 */
export function changeOf(
  record: EndpointRecord,
  touched: ReadonlyMap<string, EntryContent>,
  { entries }: Delta,
): EndpointChange | undefined {
  const parsed = new Map(entries.map((entry) => [entry.key, entry]));
  const added: Endpoint[] = [];
  const changed: Endpoint[] = [];
  const removed: string[] = [];
  for (const [key, before] of touched) {
    const content = record.get(key);
    if (before === content) continue;
    if (content === undefined) removed.push(key);
    else {
      const { content: text, value } = parsed.get(key) ?? {};
      const known = text === content && value !== undefined;
      const endpoint = known ? { key, value } : endpointOf({ key, content });
      (before === undefined ? added : changed).push(endpoint);
    }
  }
  const count = added.length + changed.length + removed.length;
  return count === 0 ? undefined : { node: record.node, added, changed, removed };
}

/** What became different when `record` was shown or hidden; undefined if it has no endpoints. */
export function visibilityChange(
  record: EndpointRecord,
  isVisible: boolean,
): EndpointChange | undefined {
  const { node } = record;
  const entries = [...record.live()];
  if (entries.length === 0) return undefined;
  if (isVisible) return { node, added: entries.map(endpointOf), changed: [], removed: [] };
  return { node, added: [], changed: [], removed: entries.map(({ key }) => key) };
}

function endpointOf({
  key,
  content,
}: {
  readonly key: string;
  readonly content: string;
}): Endpoint {
  return { key, value: JSON.parse(content) };
}
