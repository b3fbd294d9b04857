interface Job {
  readonly atMs: number;
  readonly order: number;
  readonly run: () => void;
}

/** What is to happen when, in virtual time: a binary heap by time, then by order of arrival. */
export class EventHeap {
  readonly #jobs: Job[] = [];
  #order = 0;

  add(atMs: number, run: () => void): void {
    const job = { atMs, order: this.#order++, run };
    let place = this.#jobs.push(job) - 1;
    while (place > 0) {
      const parent = (place - 1) >> 1;
      if (!isBefore(job, this.#jobs[parent]!)) break;
      this.#jobs[place] = this.#jobs[parent]!;
      place = parent;
    }
    this.#jobs[place] = job;
  }

  /** Takes the next job out, unless it is after `untilMs`. */
  take(untilMs: number): Job | undefined {
    const top = this.#jobs[0];
    if (top === undefined || top.atMs > untilMs) return undefined;
    const last = this.#jobs.pop()!;
    const size = this.#jobs.length;
    if (size === 0) return top;
    let place = 0;
    for (;;) {
      let child = place * 2 + 1;
      if (child >= size) break;
      if (child + 1 < size && isBefore(this.#jobs[child + 1]!, this.#jobs[child]!)) child++;
      if (!isBefore(this.#jobs[child]!, last)) break;
      this.#jobs[place] = this.#jobs[child]!;
      place = child;
    }
    this.#jobs[place] = last;
    return top;
  }
}

function isBefore(a: Job, b: Job): boolean {
  return a.atMs < b.atMs || (a.atMs === b.atMs && a.order < b.order);
}
