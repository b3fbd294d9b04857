import { fnv1a } from './fnv1a.ts';

/** Branches of the tree, and leaves of a branch: 64 sums of 64 bits fill half a packet. */
export const TREE_FANOUT = 64;
/** Leaves of the tree: few records share one in a cluster of ten thousand nodes. */
export const TREE_LEAVES: number = TREE_FANOUT * TREE_FANOUT;
/** Bytes of one encoded sum. */
export const SUM_BYTES = 8;
/** Seed of the hash by which names go to leaves. Protocol: all nodes must agree. */
const LEAF_SEED = 4;

/** What a record adds to the sums: 64 bits, and where. */
export interface Fingerprint {
  readonly leaf: number;
  readonly high: number;
  readonly low: number;
}

/** The leaf of `node`'s record, in [0, {@link TREE_LEAVES}). */
export function leafOf(node: string): number {
  return fnv1a(node, LEAF_SEED) % TREE_LEAVES;
}

/**
 * Sums of what two nodes may have in common, so that they find where they differ in three messages
 * and not by listing all they have: a hash tree of two levels (Merkle; Demers et al., 1987, section
 * 1.3 on checksums). Each record adds 64 bits to its leaf, its branch and the root. Sums do not depend
 * on the order and change in place. Not for adversaries: whoever may write records may make them equal.
 */
export class EndpointTree {
  readonly #root = new Uint32Array(2);
  readonly #branches = new Uint32Array(2 * TREE_FANOUT);
  readonly #leaves = new Uint32Array(2 * TREE_LEAVES);

  /** Has the sums of `other` from now on. */
  adopt(other: EndpointTree): void {
    this.#root.set(other.#root);
    this.#branches.set(other.#branches);
    this.#leaves.set(other.#leaves);
  }

  /** Adds a record's 64 bits. */
  add({ leaf, high, low }: Fingerprint): void {
    addAt(this.#root, 0, high, low);
    addAt(this.#branches, Math.floor(leaf / TREE_FANOUT), high, low);
    addAt(this.#leaves, leaf, high, low);
  }

  /** Takes a record's 64 bits out again. */
  remove({ leaf, high, low }: Fingerprint): void {
    this.add({ leaf, high: -high, low: -low });
  }

  /** The sum of all, as 16 hexadecimal digits. */
  get root(): string {
    const digits = [...this.#root].map((word) => word.toString(16).padStart(8, '0'));
    return digits.join('');
  }

  /** The sums of all branches, {@link SUM_BYTES} each, big-endian. */
  branches(): Uint8Array {
    return encodeSums(this.#branches);
  }

  /** The sums of a branch's leaves, in the same form. */
  leaves(branch: number): Uint8Array {
    const first = 2 * TREE_FANOUT * branch;
    return encodeSums(this.#leaves.subarray(first, first + 2 * TREE_FANOUT));
  }
}

/** Which of {@link TREE_FANOUT} sums differ between two encodings. */
export function differingSums(mine: Uint8Array, theirs: Uint8Array): number[] {
  const [a, b] = [viewOf(mine), viewOf(theirs)];
  const differing: number[] = [];
  for (let index = 0; index < TREE_FANOUT; index++) {
    const at = index * SUM_BYTES;
    const same = a.getUint32(at) === b.getUint32(at) && a.getUint32(at + 4) === b.getUint32(at + 4);
    if (!same) differing.push(index);
  }
  return differing;
}

function addAt(sums: Uint32Array, index: number, high: number, low: number): void {
  sums[2 * index] = (sums[2 * index] ?? 0) + high;
  sums[2 * index + 1] = (sums[2 * index + 1] ?? 0) + low;
}

function encodeSums(words: Uint32Array): Uint8Array {
  const bytes = new Uint8Array(words.length * 4);
  const view = viewOf(bytes);
  for (const [index, word] of words.entries()) view.setUint32(index * 4, word);
  return bytes;
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
