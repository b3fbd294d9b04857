interface Queued<T> {
  readonly item: T;
  readonly resolve: () => void;
  readonly reject: (reason: unknown) => void;
}

/**
 * Group commit: items that arrive while one write is under way share the next one. Adds no delay when
 * there is little to do, and makes few, large writes when there is much. BOUNDED by the callers that
 * wait for {@link WriteBatcher.add}.
 */
export class WriteBatcher<T> {
  readonly #write: (items: readonly T[]) => Promise<void>;
  #queue: Queued<T>[] = [];
  #isWriting = false;

  /** @param write - Makes all of the items durable, or none. */
  constructor(write: (items: readonly T[]) => Promise<void>) {
    this.#write = write;
  }

  /**
   * Resolves once `item` has been written.
   *
   * @throws whatever the write threw
   */
  add(item: T): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#queue.push({ item, resolve, reject });
    if (!this.#isWriting) void this.#drain();
    return promise;
  }

  /** Never rejects: failures go to those who wait for the items. */
  async #drain(): Promise<void> {
    this.#isWriting = true;
    while (this.#queue.length > 0) {
      const batch = this.#queue;
      this.#queue = [];
      try {
        await this.#write(batch.map(({ item }) => item));
        for (const { resolve } of batch) resolve();
      } catch (error) {
        for (const { reject } of batch) reject(error);
      }
    }
    this.#isWriting = false;
  }
}
