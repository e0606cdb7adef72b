/** What decides between two updates; timestamp is the phone's, ms. */
export interface Reported {
  tripId: string;
  userId: string;
  timestamp: number;
}

/**
 * Buffers what is reported until the next batch: of each user's updates for a trip only the one with the latest
 * timestamp stays. Of equal timestamps the first stays. The order of arrival makes no difference otherwise.
 *
 * Trips are in slices, which are emptied one at a time.
 */
export class LatestPerUser<U extends Reported> {
  readonly #slices: Map<string, U>[];
  readonly #sliceOf: (tripId: string) => number;

  /** `sliceOf` answers a number below `slices`, always the same for a trip. */
  constructor(slices = 1, sliceOf: (tripId: string) => number = () => 0) {
    this.#slices = Array.from({ length: slices }, () => new Map<string, U>());
    this.#sliceOf = sliceOf;
  }

  get size(): number {
    return this.#slices.reduce((sum, { size }) => sum + size, 0);
  }

  /** False when it is superseded: late, a duplicate, or it replaced an older one (which then counts). */
  add(update: U): boolean {
    const updates = this.#slices[this.#sliceOf(update.tripId)] as Map<string, U>;
    const key = `${update.tripId} ${update.userId}`;
    const waiting = updates.get(key);
    if (!waiting || update.timestamp > waiting.timestamp) updates.set(key, update);
    return waiting === undefined;
  }

  /** Empties a slice. */
  take(slice = 0): U[] {
    const updates = [...(this.#slices[slice]?.values() ?? [])];
    this.#slices[slice] = new Map();
    return updates;
  }
}
