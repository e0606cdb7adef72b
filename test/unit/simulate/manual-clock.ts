import type { Clock } from '../../support/simulate/clock.ts';

/** A clock that stands still until told. Ms; the epoch starts at `epochStart`. */
export class ManualClock implements Clock {
  readonly #epochStart: number;
  readonly #timers = new Set<{ at: number; callback: () => void }>();
  #now = 0;

  constructor(epochStart = 1_700_000_000_000) {
    this.#epochStart = epochStart;
  }

  now(): number {
    return this.#now;
  }

  epochNow(): number {
    return this.#epochStart + this.#now;
  }

  after(ms: number, callback: () => void): () => void {
    const timer = { at: this.#now + ms, callback };
    this.#timers.add(timer);
    return () => this.#timers.delete(timer);
  }

  /** Timers that are set and have not fired. */
  get pending(): number {
    return this.#timers.size;
  }

  /** Lets so many ms pass: fires what is due, in order, and lets promises run after each. */
  async advance(ms: number): Promise<void> {
    const end = this.#now + ms;
    await turn();
    for (let next = this.#nextBy(end); next; next = this.#nextBy(end)) {
      this.#timers.delete(next);
      this.#now = next.at;
      next.callback();
      await turn();
    }
    this.#now = end;
  }

  /** Lets time pass until the promise has settled; throws when that takes more than `limitMs`. */
  async until<T>(promise: Promise<T>, limitMs = 3_600_000): Promise<T> {
    const state = { settled: false };
    const end = this.#now + limitMs;
    const mark = () => {
      state.settled = true;
    };
    promise.then(mark, mark);
    await turn();
    while (!state.settled) {
      const next = this.#nextBy(end);
      if (!next) throw new Error(`Nothing more happens by ${end} ms`);
      await this.advance(next.at - this.#now);
    }
    return promise;
  }

  #nextBy(end: number) {
    return [...this.#timers].filter(({ at }) => at <= end).toSorted((a, b) => a.at - b.at)[0];
  }
}

/** All promises that are ready get their turn. */
const turn = () => new Promise((resolve) => setImmediate(resolve));
