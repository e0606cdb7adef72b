import type { Reported } from '../../contracts/location.ts';

/**
 * What this gateway hands on to location nodes: collected for a moment, the newest of each trip. What cannot be handed on, or not
 * yet, stays until it can or something newer replaces it, so it is bounded by the number of trips.
 */
export class OutgoingBatch {
  readonly #waiting = new Map<string, Reported>();
  readonly #send: (updates: Reported[]) => Promise<void>;
  readonly #maxSize: number;
  readonly #delayMs: number;
  #timer: NodeJS.Timeout | undefined;
  #sending: Promise<void> = Promise.resolve();
  /** The sending that waits for the one under way: what comes until then is in it. */
  #next: Promise<void> | undefined;

  readonly #onTrouble: (updates: number, error: unknown) => void;

  /** `maxSize`: of a message; so many are sent at once. `onTrouble` hears how many could not be sent, and wait. */
  constructor(options: {
    delayMs: number;
    maxSize: number;
    send: (updates: Reported[]) => Promise<void>;
    onTrouble: (updates: number, error: unknown) => void;
  }) {
    this.#delayMs = options.delayMs;
    this.#maxSize = options.maxSize;
    this.#send = options.send;
    this.#onTrouble = options.onTrouble;
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
    if (!this.#next) {
      this.#next = this.#sending.then(() => {
        this.#next = undefined;
        return this.#sendAll();
      });
      this.#sending = this.#next;
    }
    return this.#next;
  }

  async #sendAll(): Promise<void> {
    const updates = [...this.#waiting.values()];
    this.#waiting.clear();
    // After an outage there may be more than goes into a message
    const parts = Array.from({ length: Math.ceil(updates.length / this.#maxSize) }, (_, n) =>
      updates.slice(n * this.#maxSize, (n + 1) * this.#maxSize),
    );
    await Promise.all(parts.map((part) => this.#sendPart(part)));
  }

  async #sendPart(updates: Reported[]): Promise<void> {
    try {
      await this.#send(updates);
    } catch (error) {
      for (const update of updates) this.#keepNewest(update);
      this.#timer ??= setTimeout(() => void this.flush(), this.#delayMs * 10);
      this.#onTrouble(updates.length, error);
    }
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
