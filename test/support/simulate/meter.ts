/** Times and rates of a run. */

export interface Percentiles {
  /** ms; null where nothing was measured. */
  p50: number | null;
  p99: number | null;
  max: number | null;
}

/** Nearest-rank percentiles of so many ms. */
export function percentiles(values: readonly number[]): Percentiles {
  const sorted = values.toSorted((a, b) => a - b);
  const rank = (share: number) => sorted[Math.max(Math.ceil(share * sorted.length) - 1, 0)] ?? null;
  return { p50: rank(0.5), p99: rank(0.99), max: rank(1) };
}

/** Collects durations, all of them and those since the last look. */
export class Durations {
  readonly #all: number[] = [];
  #looked = 0;

  add(ms: number): void {
    this.#all.push(ms);
  }

  /** Of the whole run. */
  total(): Percentiles {
    return percentiles(this.#all);
  }

  /** Of what came since the last call. */
  recent(): Percentiles {
    const fresh = this.#all.slice(this.#looked);
    this.#looked = this.#all.length;
    return percentiles(fresh);
  }
}

/** What all sockets of a run measure together. */
export class Meter {
  /** From sending by the driver to receiving by the rider, one monotonic clock. */
  readonly screen = new Durations();
  /** From the server's `at` to receiving: two clocks, the same one on one machine. */
  readonly processed = new Durations();
  reconnects = 0;
  /** Why re-joins were refused, by code. */
  readonly refusedJoins: Record<string, number> = {};
}
