/** Events a second that a subscriber is sent for as long as it likes, and how many at once. */
const perS = 500;
const burst = 2000;
/** Sent in full all the same. */
const newest = 50;

/**
 * How much of what happens a person can be sent: all of it, up to `burst` at once and `perS` a second; beyond that only
 * the newest of each lot. A lot is never cut in two otherwise, so that a digest stands for one stretch of the feed.
 */
export class StormBudget {
  #left = burst;
  #at: number | null = null;

  /** `lot` is in order, oldest first; `skipped` comes before `sent`. `now` in ms. */
  split<T>(lot: readonly T[], now: number): { skipped: T[]; sent: T[] } {
    this.#left = Math.min(burst, this.#left + (Math.max(0, now - (this.#at ?? now)) * perS) / 1000);
    this.#at = now;
    const fits = lot.length <= this.#left;
    const cut = fits ? 0 : Math.max(0, lot.length - newest);
    // What is sent of a storm counts too, so that it ends only when less comes; but it does not run up debts
    this.#left = Math.max(0, this.#left - (lot.length - cut));
    return { skipped: lot.slice(0, cut), sent: lot.slice(cut) };
  }
}
