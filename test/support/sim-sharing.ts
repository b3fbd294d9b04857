import { bytesEqual } from '../../src/gossip/bytes.ts';
import type { EndpointRecord } from '../../src/gossip/endpoint-record.ts';
import type { Sharing } from '../../src/gossip/gossip-config.ts';
import type { Member } from '../../src/gossip/member.ts';

/** Versions of one node's record, or of its membership, that are remembered. */
const REMEMBERED_MAX = 8;

/** What thousands of simulated nodes know of each other, once. */
export class SimSharing implements Sharing {
  readonly #members = new Map<string, Member[]>();
  readonly #records = new Map<string, EndpointRecord[]>();

  member(member: Member): Member {
    const known = listOf(this.#members, member.name);
    const same = known.find((other) => isSame(other, member));
    if (same === undefined) remember(known, member);
    return same ?? member;
  }

  record(record: EndpointRecord): EndpointRecord {
    const known = listOf(this.#records, record.node);
    const same = known.find(
      ({ generation, version }) => generation === record.generation && version === record.version,
    );
    if (same !== undefined) return same;
    record.isShared = true;
    remember(known, record);
    return record;
  }
}

function isSame(a: Member, b: Member): boolean {
  return (
    a.incarnation === b.incarnation &&
    a.address === b.address &&
    a.port === b.port &&
    bytesEqual(a.meta, b.meta) &&
    bytesEqual(a.versions, b.versions)
  );
}

function listOf<Item>(lists: Map<string, Item[]>, name: string): Item[] {
  const known = lists.get(name) ?? [];
  lists.set(name, known);
  return known;
}

function remember<Item>(list: Item[], item: Item): void {
  list.push(item);
  if (list.length > REMEMBERED_MAX) list.shift();
}
