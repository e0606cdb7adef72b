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
  /** By trip; of nearly all trips one user reports. */
  readonly #slices: Map<string, U[]>[];
  readonly #sliceOf: (tripId: string) => number;
  #size = 0;

  /** `sliceOf` answers a number below `slices`, always the same for a trip. */
  constructor(slices = 1, sliceOf: (tripId: string) => number = () => 0) {
    this.#slices = Array.from({ length: slices }, () => new Map<string, U[]>());
    this.#sliceOf = sliceOf;
  }

  get size(): number {
    return this.#size;
  }

  /** False when it is superseded: late, a duplicate, or it replaced an older one (which then counts). */
  add(update: U): boolean {
    const slice = this.#slices[this.#sliceOf(update.tripId)] as Map<string, U[]>;
    const ofTrip = slice.get(update.tripId);
    const n = ofTrip?.findIndex(({ userId }) => userId === update.userId) ?? -1;
    const waiting = ofTrip?.[n];
    if (ofTrip && waiting) {
      if (update.timestamp > waiting.timestamp) ofTrip[n] = update;
      return false;
    }
    if (ofTrip) ofTrip.push(update);
    else slice.set(update.tripId, [update]);
    this.#size++;
    return true;
  }

  /** Empties a slice. */
  take(slice = 0): U[] {
    const updates = [...(this.#slices[slice]?.values() ?? [])].flat();
    this.#slices[slice] = new Map();
    this.#size -= updates.length;
    return updates;
  }
}
