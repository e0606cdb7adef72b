/** Who goes first where only so much goes at once. */

/** Those who wait, by rank: the lowest first, among equals whoever came first. */
class Line {
  readonly #byRank: (() => void)[][] = [];

  wait(rank: number): Promise<void> {
    return new Promise((resolve) => {
      this.#byRank[rank] ??= [];
      this.#byRank[rank].push(resolve);
    });
  }

  /** Lets the next one go; false when nobody waits. */
  next(): boolean {
    for (const queue of this.#byRank) {
      const first = queue?.shift();
      if (!first) continue;
      first();
      return true;
    }
    return false;
  }
}

/** At most so many at once. */
export class Slots {
  #free: number;
  readonly #line = new Line();

  constructor(most: number) {
    this.#free = most;
  }

  async run<T>(rank: number, work: () => Promise<T>): Promise<T> {
    if (this.#free > 0) this.#free--;
    else await this.#line.wait(rank);
    try {
      return await work();
    } finally {
      if (!this.#line.next()) this.#free++;
    }
  }
}

/** At most so many a second (a token bucket that holds a second's worth). */
export class RateBudget {
  readonly #perMs: number;
  readonly #most: number;
  #tokens: number;
  #countedAt: number;
  #timer: NodeJS.Timeout | undefined;
  #waiting = 0;
  readonly #line = new Line();

  constructor(perSecond: number) {
    this.#perMs = perSecond / 1000;
    this.#most = Math.max(1, perSecond);
    this.#tokens = this.#most;
    this.#countedAt = performance.now();
  }

  /** Resolves when it is this one's turn. */
  async take(rank: number): Promise<void> {
    this.#count();
    if (this.#waiting === 0 && this.#tokens >= 1) {
      this.#tokens--;
      return;
    }
    this.#waiting++;
    this.#schedule();
    await this.#line.wait(rank);
  }

  /** The provider says that it is too much: nobody goes for so long. */
  pause(ms: number): void {
    this.#count();
    this.#tokens = Math.min(this.#tokens, 1 - ms * this.#perMs);
  }

  #count(): void {
    const now = performance.now();
    this.#tokens = Math.min(this.#most, this.#tokens + (now - this.#countedAt) * this.#perMs);
    this.#countedAt = now;
  }

  #schedule(): void {
    if (this.#timer) return;
    const ms = Math.max(1, Math.ceil((1 - this.#tokens) / this.#perMs));
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.#count();
      while (this.#waiting > 0 && this.#tokens >= 1) {
        this.#tokens--;
        this.#waiting--;
        this.#line.next();
      }
      if (this.#waiting > 0) this.#schedule();
    }, ms);
  }
}
