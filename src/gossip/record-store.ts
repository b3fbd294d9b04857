import type { EndpointRecord } from './endpoint-record.ts';
import { EndpointTree } from './endpoint-tree.ts';
import { NameIndex } from './name-index.ts';

/** What the membership protocol thinks of a record's owner. */
export type OwnerState = 'live' | 'failed' | 'left';

/** Why a record is not visible. 'unknown': it has come before news of its owner. */
type AbsenceState = Exclude<OwnerState, 'live'> | 'unknown';

interface Absence {
  readonly state: AbsenceState;
  readonly sinceMs: number;
}

/**
 * Records by the node that owns them, with what is known of the owner, and the sums of those that
 * are visible: whose owner is a live member. A record must change only while it is not in here: see
 * {@link RecordStore.take}. BOUNDED by whoever puts records in.
 */
export class RecordStore {
  /** Owners, and nodes that a record is kept of. */
  #index = new NameIndex();
  /** By slot. */
  #records: (EndpointRecord | undefined)[] = [];
  /** By slot; owners that live are not in it. */
  readonly #absent = new Map<number, Absence>();
  /** Slots of records that have deletions to be forgotten in time. */
  readonly #withDeletions = new Set<number>();
  /** Sums of the records that are visible. */
  readonly #tree = new EndpointTree();
  #bytes = 0;
  #recordCount = 0;

  get recordCount(): number {
    return this.#recordCount;
  }

  /** Names that are kept: of owners that live, and of all records. */
  get nameCount(): number {
    return this.#index.size;
  }

  /** Records that have come before news of their owner. */
  get unknownCount(): number {
    let unknown = 0;
    for (const { state } of this.#absent.values()) if (state === 'unknown') unknown++;
    return unknown;
  }

  /** Memory of all records, roughly. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Sums of all visible records. */
  get tree(): Pick<EndpointTree, 'root' | 'branches' | 'leaves'> {
    return this.#tree;
  }

  get(node: string): EndpointRecord | undefined {
    const slot = this.#index.get(node);
    return slot === undefined ? undefined : this.#records[slot];
  }

  /** All records, hidden ones included. */
  *all(): Generator<EndpointRecord, void, undefined> {
    for (const record of this.#records) if (record !== undefined) yield record;
  }

  /** The records of owners that live. */
  *visible(): Generator<EndpointRecord, void, undefined> {
    for (const [slot, record] of this.#records.entries()) {
      if (record !== undefined && !this.#absent.has(slot)) yield record;
    }
  }

  /** The records that have deletions, as of now. */
  withDeletions(): EndpointRecord[] {
    const records = Array.from(this.#withDeletions, (slot) => this.#records[slot]);
    return records.filter((record) => record !== undefined);
  }

  /** Whether `node` is known as a live member. */
  isLive(node: string): boolean {
    const slot = this.#index.get(node);
    return slot !== undefined && !this.#absent.has(slot);
  }

  /** Notes what is known of `node`. @returns its record if that is now shown or hidden by it */
  setOwner(node: string, state: OwnerState, nowMs: number): EndpointRecord | undefined {
    const slot = this.#index.add(node);
    const record = this.#records[slot];
    const absence = this.#absent.get(slot);
    if (record === undefined && state !== 'live') {
      // Nothing to hide; a record that comes yet waits for news of its owner, as any does.
      this.#absent.delete(slot);
      this.#index.delete(node);
      return undefined;
    }
    if (state === 'live') this.#absent.delete(slot);
    else if (absence?.state !== state) this.#absent.set(slot, { state, sinceMs: nowMs });
    const wasLive = absence === undefined;
    if (record === undefined || wasLive === (state === 'live')) return undefined;
    if (wasLive) this.#tree.remove(record.fingerprint);
    else this.#tree.add(record.fingerprint);
    return record;
  }

  /**
   * Puts a record in, where its node has none; it counts from now on. One whose owner is not known
   * waits for news of it.
   */
  put(record: EndpointRecord, nowMs: number): void {
    const isKnown = this.#index.get(record.node) !== undefined;
    const slot = this.#index.add(record.node);
    if (!isKnown) this.#absent.set(slot, { state: 'unknown', sinceMs: nowMs });
    this.#records[slot] = record;
    this.#bytes += record.bytes;
    this.#recordCount++;
    if (record.hasDeletions) this.#withDeletions.add(slot);
    if (!this.#absent.has(slot)) this.#tree.add(record.fingerprint);
  }

  /** Takes a record out, if there is one; what is known of its owner stays. */
  take(node: string): void {
    const slot = this.#index.get(node);
    const record = slot === undefined ? undefined : this.#records[slot];
    if (slot === undefined || record === undefined) return;
    this.#records[slot] = undefined;
    this.#withDeletions.delete(slot);
    this.#bytes -= record.bytes;
    this.#recordCount--;
    if (!this.#absent.has(slot)) this.#tree.remove(record.fingerprint);
  }

  /** Forgets owners that are absent for longer than `keepMs`, and their records. */
  forgetAbsent(keepMs: Readonly<Record<AbsenceState, number>>, nowMs: number): void {
    for (const [slot, { state, sinceMs }] of this.#absent) {
      const name = this.#index.nameOf(slot);
      if (name === undefined || nowMs - sinceMs <= keepMs[state]) continue;
      this.take(name);
      this.#absent.delete(slot);
      this.#index.delete(name);
    }
  }

  /** Becomes a copy of `other`; the records are the same objects. */
  adopt(other: RecordStore): void {
    this.#index = other.#index.clone();
    this.#records = other.#records.slice();
    this.#absent.clear();
    for (const [slot, absence] of other.#absent) this.#absent.set(slot, absence);
    this.#tree.adopt(other.#tree);
    this.#withDeletions.clear();
    for (const slot of other.#withDeletions) this.#withDeletions.add(slot);
    this.#bytes = other.#bytes;
    this.#recordCount = other.#recordCount;
  }
}
