/** What decides between two updates; timestamp is the phone's, ms. */
export interface Reported {
  tripId: string;
  userId: string;
  timestamp: number;
}

/**
 * Buffers what is reported until the next batch: of each user's updates for a trip only the one with the latest
 * timestamp stays. Of equal timestamps the first stays. The order of arrival makes no difference otherwise.
 */
export class LatestPerUser<U extends Reported> {
  #updates = new Map<string, U>();

  get size(): number {
    return this.#updates.size;
  }

  /** False when it is superseded: late, a duplicate, or it replaced an older one (which then counts). */
  add(update: U): boolean {
    const key = `${update.tripId} ${update.userId}`;
    const waiting = this.#updates.get(key);
    if (!waiting || update.timestamp > waiting.timestamp) this.#updates.set(key, update);
    return waiting === undefined;
  }

  /** Empties the buffer. */
  take(): U[] {
    const updates = [...this.#updates.values()];
    this.#updates = new Map();
    return updates;
  }
}
