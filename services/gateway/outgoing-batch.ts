import type { Reported } from '../../contracts/location.ts';

/**
 * What this gateway hands on to a location node: collected for a moment, the newest of each trip. What could not be
 * handed on stays until it can or something newer replaces it, so it is bounded by the number of trips.
 */
export class OutgoingBatch {
  readonly #waiting = new Map<string, Reported>();
  readonly #send: (updates: Reported[]) => Promise<void>;
  readonly #maxSize: number;
  readonly #delayMs: number;
  #timer: NodeJS.Timeout | undefined;
  #sending: Promise<void> = Promise.resolve();

  constructor(options: { delayMs: number; maxSize: number; send: (updates: Reported[]) => Promise<void> }) {
    this.#delayMs = options.delayMs;
    this.#maxSize = options.maxSize;
    this.#send = options.send;
  }

  get size(): number {
    return this.#waiting.size;
  }

  add(update: Reported): void {
    this.#keepNewest(update);
    if (this.#waiting.size >= this.#maxSize) void this.flush();
    else this.#timer ??= setTimeout(() => void this.flush(), this.#delayMs);
  }

  /** Hands on what waits. Never rejects: what fails waits for the next time. */
  flush(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const updates = [...this.#waiting.values()];
    this.#waiting.clear();
    if (updates.length === 0) return this.#sending;
    this.#sending = this.#sending
      .then(() => this.#send(updates))
      .catch(() => {
        for (const update of updates) this.#keepNewest(update);
        this.#timer ??= setTimeout(() => void this.flush(), this.#delayMs * 10);
      });
    return this.#sending;
  }

  /** For the end: nothing is sent any more. */
  stop(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  #keepNewest(update: Reported): void {
    const waiting = this.#waiting.get(update.tripId);
    if (!waiting || update.timestamp > waiting.timestamp) this.#waiting.set(update.tripId, update);
  }
}
