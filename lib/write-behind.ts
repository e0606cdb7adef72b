import { backoffMs, pause } from './backoff.ts';

export interface WriteBehindOptions<T> {
  /** Items of one key are states of one thing: only the newest has to be written. */
  keyOf: (item: T) => string;
  isNewer: (item: T, than: T) => boolean;
  /** Must take the same item twice, and items that are older than what is written. */
  write: (batch: readonly T[]) => Promise<void>;
  /** Does the store lack, so that the same batch may work later? Any other failure is an item's own fault. */
  isAway: (error: unknown) => boolean;
  /** Nothing is dropped in silence. `full`: the oldest made room. `refused`: it cannot be written. */
  onDrop: (item: T, reason: 'full' | 'refused', error?: unknown) => void;
  /** Each time a try failed because the store is away. */
  onWait?: (error: unknown, waitMs: number) => void;
  /** Items that wait at most. */
  limit: number;
  batchSize: number;
  /** The longest wait between two tries, ms. */
  maxWaitMs?: number;
}

/**
 * Takes writes while a store is away, and writes them when it is back: for what has its truth elsewhere (projections),
 * never for what an acknowledgement promises. Bounded; one batch at a time; the order between keys is not kept.
 */
export class WriteBehind<T> {
  readonly #options: WriteBehindOptions<T>;
  readonly #waiting = new Map<string, T>();
  readonly #stopping = new AbortController();
  #running: Promise<void> | undefined;

  constructor(options: WriteBehindOptions<T>) {
    this.#options = options;
  }

  /** How many items wait, with those that are being written. */
  get size(): number {
    return this.#waiting.size;
  }

  /** Returns at once. */
  add(item: T): void {
    const { keyOf, isNewer, limit, onDrop } = this.#options;
    const key = keyOf(item);
    const known = this.#waiting.get(key);
    if (known !== undefined && !isNewer(item, known)) return;
    if (known === undefined && this.#waiting.size >= limit) {
      const [oldest] = this.#waiting;
      if (oldest) {
        this.#waiting.delete(oldest[0]);
        onDrop(oldest[1], 'full');
      }
    }
    this.#waiting.set(key, item);
    this.#start();
  }

  /** Resolves when nothing waits any more, or when it is stopped. */
  async idle(): Promise<void> {
    while (this.#running) await this.#running;
  }

  /** Goes on for `withinMs` at most, then gives up; answers with what was not written. */
  async stop(withinMs: number): Promise<T[]> {
    const done = new AbortController();
    await Promise.race([this.idle(), pause(withinMs, done.signal)]);
    done.abort();
    this.#stopping.abort();
    return [...this.#waiting.values()];
  }

  #start(): void {
    if (this.#running || this.#stopping.signal.aborted) return;
    this.#running = this.#run().finally(() => {
      this.#running = undefined;
      if (this.#waiting.size > 0) this.#start();
    });
  }

  async #run(): Promise<void> {
    const { isAway, batchSize, maxWaitMs = 5000, onWait } = this.#options;
    const { signal } = this.#stopping;
    let tries = 0;
    while (this.#waiting.size > 0 && !signal.aborted) {
      const batch = [...this.#waiting].slice(0, batchSize);
      try {
        await this.#write(batch).catch((error: unknown) => {
          if (isAway(error)) throw error;
          return this.#writeEach(batch);
        });
        tries = 0;
      } catch (error) {
        const waitMs = backoffMs(tries++, { firstMs: 100, maxMs: maxWaitMs });
        onWait?.(error, waitMs);
        await pause(waitMs, signal);
      }
    }
  }

  async #write(batch: readonly (readonly [string, T])[]): Promise<void> {
    await this.#options.write(batch.map(([, item]) => item));
    for (const entry of batch) this.#forget(entry);
  }

  /** One bad item must not hold up the others: finds it. Throws only when the store is away. */
  async #writeEach(batch: readonly (readonly [string, T])[]): Promise<void> {
    for (const entry of batch) {
      try {
        await this.#write([entry]);
      } catch (error) {
        if (this.#options.isAway(error)) throw error;
        if (this.#forget(entry)) this.#options.onDrop(entry[1], 'refused', error);
      }
    }
  }

  /** Unless a newer one, or none, has taken its place meanwhile. */
  #forget([key, item]: readonly [string, T]): boolean {
    return this.#waiting.get(key) === item && this.#waiting.delete(key);
  }
}
