import type { Reported } from '../../contracts/location.ts';
import { LatestPerUser } from '../../lib/latest-per-user.ts';
import { shardOf } from '../../lib/location-keys.ts';
import { dueAfter, groupSize, slicesOf } from './slices.ts';

/** A message to a location node must not be larger than NATS takes (1 MB): some 250 bytes each. */
const maxAtOnce = 500;

export interface OutgoingParts {
  tickMs: number;
  /** Rejects when nobody took them. */
  send(this: void, updates: Reported[]): Promise<void>;
  /** These could not be sent, and wait. */
  onTrouble(this: void, updates: number, error: unknown): void;
  /** Epoch ms; must not go back. */
  now?(this: void): number;
}

/** The machines' clock, but without its jumps. */
const steadyNow = (): number => performance.timeOrigin + performance.now();

/**
 * What drivers report to this gateway, until it is handed on to be processed: once a tick, the newest of each trip. What could
 * not be sent waits for the next tick, unless something newer has come, so it is bounded by the number of trips.
 *
 * Slices have their time by the clock: where machines agree on it, all gateways hand on the same trips' slice at the same time, and
 * it becomes one batch. Where they do not, batches are smaller, and nothing else is different.
 */
export class OutgoingUpdates {
  readonly #parts: OutgoingParts;
  readonly #slices: number;
  readonly #sliceMs: number;
  readonly #waiting: LatestPerUser<Reported>;
  /** By slice; one that takes long is not sent beside itself. */
  readonly #underWay = new Map<number, Promise<void>>();
  readonly #now: () => number;
  #timer: NodeJS.Timeout | undefined;
  /** How many slices had begun since the epoch at the last look. */
  #lookedAt: number;
  #sizes: [now: number, before: number] = [1, 1];
  #sentInTick = 0;

  constructor(parts: OutgoingParts) {
    this.#parts = parts;
    this.#slices = slicesOf(parts.tickMs);
    this.#sliceMs = parts.tickMs / this.#slices;
    this.#waiting = new LatestPerUser(this.#slices, (tripId) => shardOf(tripId) % this.#slices);
    this.#now = parts.now ?? steadyNow;
    this.#lookedAt = this.#arm();
  }

  get size(): number {
    return this.#waiting.size;
  }

  /** False when one of its trip was waiting already: only the newer of them is sent. */
  add(update: Reported): boolean {
    return this.#waiting.add(update);
  }

  /** Hands on all that has been added. Never rejects: what fails waits for the next tick. */
  async flush(): Promise<void> {
    await Promise.all(this.#underWay.values());
    this.#send(Array.from({ length: this.#slices }, (_, slice) => slice));
    // Also what a tick has begun to send just now
    await Promise.all(this.#underWay.values());
  }

  /** For the end: nothing is sent by itself any more. */
  stop(): void {
    clearTimeout(this.#timer);
  }

  /** To look again at the end of this slice; answers how many there were before it. */
  #arm(): number {
    const now = this.#now();
    const until = Math.floor(now / this.#sliceMs);
    // Timers are of whole ms: rounded down it would look twice
    this.#timer = setTimeout(() => this.#look(), Math.ceil((until + 1) * this.#sliceMs - now));
    return until;
  }

  #look(): void {
    const until = this.#arm();
    // After a halt each slice is due, but once
    for (let n = Math.max(this.#lookedAt, until - this.#slices); n < until; n++)
      this.#endSlice(n % this.#slices);
    this.#lookedAt = until;
  }

  #endSlice(slice: number): void {
    this.#send(dueAfter(slice, this.#sizes));
    if (slice < this.#slices - 1) return;
    this.#sizes = [groupSize(this.#sentInTick, this.#slices), this.#sizes[0]];
    this.#sentInTick = 0;
  }

  #send(slices: readonly number[]): void {
    const free = slices.filter((slice) => !this.#underWay.has(slice));
    const updates = free.flatMap((slice) => this.#waiting.take(slice));
    if (updates.length === 0) return;
    this.#sentInTick += updates.length;
    const chunks = Array.from({ length: Math.ceil(updates.length / maxAtOnce) }, (_, n) =>
      updates.slice(n * maxAtOnce, (n + 1) * maxAtOnce),
    );
    const sending = Promise.all(chunks.map((chunk) => this.#sendChunk(chunk))).then(() => {
      for (const slice of free) this.#underWay.delete(slice);
    });
    for (const slice of free) this.#underWay.set(slice, sending);
  }

  async #sendChunk(updates: Reported[]): Promise<void> {
    try {
      await this.#parts.send(updates);
    } catch (error) {
      for (const update of updates) this.#waiting.add(update);
      this.#parts.onTrouble(updates.length, error);
    }
  }
}
