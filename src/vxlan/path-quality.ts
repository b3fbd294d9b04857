/** Round-trip times to a peer, in microseconds. */
export interface RoundTrips {
  /** Smoothed as RFC 6298 section 2 does. */
  readonly smoothedUs: number;
  /** The shortest one seen. */
  readonly minUs: number;
  readonly lastUs: number;
}

/** How many probes the loss is told from: the bits of one integer. */
export const LOSS_WINDOW_PROBES = 32;
/** Wait for an answer before the first round trip is known: RFC 6298 section 2.1. */
const FIRST_TIMEOUT_MS = 1_000;
/** Bounds of the wait: less would blame a busy peer, more would leave a black hole open. */
const TIMEOUT_MIN_MS = 200;
const TIMEOUT_MAX_MS = 3_000;
/** Gains of RFC 6298 section 2.3. */
const SMOOTHING = 1 / 8;
const VARIATION_SMOOTHING = 1 / 4;

/** Round-trip time and loss of a path, learnt from small probes whose size every path carries. */
export class PathQuality {
  #smoothedUs = 0;
  #variationUs = 0;
  #minUs = Number.POSITIVE_INFINITY;
  #lastUs = 0;
  /** One bit per probe whose fate is known, the latest lowest; 1 is lost. */
  #fates = 0;
  #decided = 0;

  /** Undefined until a probe was answered. */
  get roundTrips(): RoundTrips | undefined {
    if (this.#minUs === Number.POSITIVE_INFINITY) return undefined;
    return { smoothedUs: this.#smoothedUs, minUs: this.#minUs, lastUs: this.#lastUs };
  }

  /** Share of the last {@link LOSS_WINDOW_PROBES} probes that were lost; undefined before the first. */
  get lossRatio(): number | undefined {
    if (this.#decided === 0) return undefined;
    let lost = 0;
    for (let bits = this.#fates; bits !== 0; bits &= bits - 1) lost += 1;
    return lost / this.#decided;
  }

  /** After how many milliseconds a probe counts as lost: RFC 6298's timeout within our bounds. */
  get timeoutMs(): number {
    if (this.#minUs === Number.POSITIVE_INFINITY) return FIRST_TIMEOUT_MS;
    const timeoutMs = (this.#smoothedUs + 4 * this.#variationUs) / 1000;
    return Math.min(TIMEOUT_MAX_MS, Math.max(TIMEOUT_MIN_MS, timeoutMs));
  }

  /** A probe was answered, in time or not, after `rttUs` microseconds. */
  measured(rttUs: number): void {
    if (this.#minUs === Number.POSITIVE_INFINITY) {
      this.#smoothedUs = rttUs;
      this.#variationUs = rttUs / 2;
    } else {
      const difference = Math.abs(this.#smoothedUs - rttUs);
      this.#variationUs += (difference - this.#variationUs) * VARIATION_SMOOTHING;
      this.#smoothedUs += (rttUs - this.#smoothedUs) * SMOOTHING;
    }
    this.#minUs = Math.min(this.#minUs, rttUs);
    this.#lastUs = rttUs;
  }

  /** The fate of one probe: an answer that comes after its timeout is a loss. */
  decided(isLost: boolean): void {
    this.#fates = (this.#fates << 1) | (isLost ? 1 : 0);
    this.#decided = Math.min(LOSS_WINDOW_PROBES, this.#decided + 1);
  }
}
