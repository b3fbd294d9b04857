import { AddressWords } from './address-words.ts';
import type { Ip } from './ip.ts';

/** One address of an {@link AddressMap}, in the chain of those with the same hash. */
class Entry<Value> extends AddressWords {
  value: Value;
  next: Entry<Value> | undefined;

  constructor(address: AddressWords, value: Value, next: Entry<Value> | undefined) {
    super();
    this.copy(address);
    this.value = value;
    this.next = next;
  }
}

/**
 * Values by address of either family. A lookup by {@link AddressWords} allocates nothing.
 *
 * BOUNDED by its owner. The hash has no key: whoever fills the map is trusted with its chains' lengths.
 */
export class AddressMap<Value> {
  // Keys are signed 32-bit integers: V8 looks those up without a heap object.
  readonly #chains = new Map<number, Entry<Value>>();
  #size = 0;

  get size(): number {
    return this.#size;
  }

  /** The value at `address`. Allocates nothing. */
  find(address: AddressWords): Value | undefined {
    return this.#entry(address)?.value;
  }

  /** The value at `ip`. For control code. */
  get(ip: Ip): Value | undefined {
    return this.find(AddressWords.of(ip));
  }

  /** Puts `value` at `ip`, in place of what is there. */
  set(ip: Ip, value: Value): void {
    const address = AddressWords.of(ip);
    const known = this.#entry(address);
    if (known !== undefined) {
      known.value = value;
      return;
    }
    const hash = hashOf(address);
    this.#chains.set(hash, new Entry(address, value, this.#chains.get(hash)));
    this.#size += 1;
  }

  /** @returns whether there was a value at `ip` */
  delete(ip: Ip): boolean {
    const address = AddressWords.of(ip);
    const hash = hashOf(address);
    let previous: Entry<Value> | undefined;
    for (let entry = this.#chains.get(hash); entry !== undefined; entry = entry.next) {
      if (!entry.equals(address)) {
        previous = entry;
        continue;
      }
      if (previous !== undefined) previous.next = entry.next;
      else if (entry.next !== undefined) this.#chains.set(hash, entry.next);
      else this.#chains.delete(hash);
      this.#size -= 1;
      return true;
    }
    return false;
  }

  /** All values, in no particular order. */
  *values(): Generator<Value> {
    for (const first of this.#chains.values()) {
      for (let entry: Entry<Value> | undefined = first; entry !== undefined; entry = entry.next) {
        yield entry.value;
      }
    }
  }

  #entry(address: AddressWords): Entry<Value> | undefined {
    let entry = this.#chains.get(hashOf(address));
    while (entry !== undefined && !entry.equals(address)) entry = entry.next;
    return entry;
  }
}

/** IPv4 addresses, and IPv6 ones of one subnet, have hashes of their own. */
function hashOf({ w0, w1, w2, w3 }: AddressWords): number {
  const upper =
    Math.imul(w0, 0x9e37_79b1) ^ Math.imul(w1, 0x85eb_ca77) ^ Math.imul(w2, 0xc2b2_ae3d);
  return upper ^ w3;
}
