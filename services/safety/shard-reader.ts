/**
 * What happens to the trips of this reader's shards: follows their streams and knows which trips are active, also those that were
 * never heard of. All of it can be made anew from Redis and trips' plans, which is what a reader that takes a shard over does.
 */
import type { Update } from '../../contracts/location.ts';
import type { SafetyKind } from '../../contracts/safety.ts';
import type { TripPlan } from '../../contracts/trips.ts';
import { shardKeys, shardOf } from '../../lib/location-keys.ts';
import { parseEntry, parseLast, type RawEntry } from '../../lib/location-stream.ts';
import type { RedisConnection } from '../../lib/redis-client.ts';
import { pipelined } from '../../lib/redis-pipelines.ts';
import { longestWindowMs, type SafetyRules } from './rules.ts';
import { isDeaf } from './signal-lost.ts';
import { judge, see, type TripWatch, watchTrip } from './trip-watch.ts';

interface WatchedTrip {
  /** Null until the trip's plan is known. */
  watch: TripWatch | null;
  /** What has come meanwhile. */
  waiting: Update[];
  /** The plan was asked for then, ms. */
  plannedAt: number;
  /** Until when the same question is not asked again, ms. */
  quietUntil: Partial<Record<SafetyKind, number>>;
}

interface Shard {
  /** Id of the last entry that was read. */
  lastId: string;
  trips: Map<string, WatchedTrip>;
}

/** Something is wrong with a trip, and it is time to ask. */
export interface Suspicion {
  kind: SafetyKind;
  watch: TripWatch;
}

export interface ReaderParts {
  redis: RedisConnection;
  rules: SafetyRules;
  /** The plans of those of these trips that are under way. */
  plansOf(ids: string[]): Promise<TripPlan[]>;
  onTrouble(text: string, error: unknown): void;
}

/** Which trips are active is read anew so often, ms; that a trip has ended is noticed so late. */
const activeEveryMs = 5000;
/** Trips whose plan was not to be had are asked for again after so long, ms. */
const planAgainMs = 5000;
const plansAtOnce = 500;
/** Entries of a shard that are read at a time; all shards' pages of one reading are in memory at once. */
const pageSize = 50;
/** Of a trip whose plan nobody can tell so many updates are kept: some minutes at one a second. */
const mostWaiting = 500;

const newTrip = (): WatchedTrip => ({
  watch: null,
  waiting: [],
  plannedAt: Number.NEGATIVE_INFINITY,
  quietUntil: {},
});

export class ShardReader {
  readonly #parts: ReaderParts;
  readonly #shards = new Map<number, Shard>();
  #activeReadAt = Number.NEGATIVE_INFINITY;
  /** Since when most trips are heard of, ms: silence before that was ours. */
  #hearingSince = 0;
  #isDeaf = false;

  constructor(parts: ReaderParts) {
    this.#parts = parts;
  }

  /** Trips that are watched; and is it we who do not hear? */
  get state(): { shards: number; trips: number; unplanned: number; isDeaf: boolean } {
    const trips = [...this.#all()].map(([, trip]) => trip);
    const unplanned = trips.filter(({ watch }) => watch === null).length;
    return { shards: this.#shards.size, trips: trips.length, unplanned, isDeaf: this.#isDeaf };
  }

  /**
   * Reads what is new in these shards, which are this reader's now, and says what is wrong at `now`, the time of Redis. Rejects
   * when Redis does not answer; the next time goes on where this one stopped.
   */
  async read(shards: readonly number[], now: number): Promise<Suspicion[]> {
    const mine = new Set(shards);
    for (const number of this.#shards.keys()) if (!mine.has(number)) this.#shards.delete(number);
    const taken = shards.filter((number) => !this.#shards.has(number));
    if (taken.length > 0) await this.#take(taken, now);
    if (now - this.#activeReadAt >= activeEveryMs) {
      await this.#readActive([...this.#shards.keys()]);
      this.#activeReadAt = now;
    }
    await this.#follow();
    await this.#plan(now);
    return this.#judge(now);
  }

  /** The same question about this trip is not asked before then. */
  quiet(tripId: string, kind: SafetyKind, until: number): void {
    const trip = this.#shards.get(shardOf(tripId))?.trips.get(tripId);
    if (trip) trip.quietUntil[kind] = until;
  }

  *#all(): Generator<[string, WatchedTrip]> {
    for (const { trips } of this.#shards.values()) yield* trips;
  }

  /** From where the longest window begins; of trips that have been silent since, their last position. */
  async #take(taken: readonly number[], now: number): Promise<void> {
    const since = now - longestWindowMs(this.#parts.rules);
    const lasts = await pipelined(
      this.#parts.redis,
      taken,
      (number) => shardKeys(number).last,
      (pipeline, number) => pipeline.hgetall(shardKeys(number).last),
    );
    const made = taken.map((number, index): [number, Shard] => {
      const [error, last] = lasts[index] ?? [new Error('No answer'), null];
      if (error) throw error;
      const shard: Shard = { lastId: String(since), trips: new Map() };
      for (const value of Object.values(last as Record<string, string>)) {
        const update = parseLast(value);
        if (update && update.at < since) this.#see(shard, update);
      }
      return [number, shard];
    });
    for (const [number, shard] of made) this.#shards.set(number, shard);
    await this.#readActive(taken);
  }

  async #readActive(numbers: readonly number[]): Promise<void> {
    const answers = await pipelined(
      this.#parts.redis,
      numbers,
      (number) => shardKeys(number).active,
      (pipeline, number) => pipeline.hkeys(shardKeys(number).active),
    );
    for (const [index, number] of numbers.entries()) {
      const [error, ids] = answers[index] ?? [new Error('No answer'), null];
      if (error) throw error;
      const shard = this.#shards.get(number);
      if (!shard) continue;
      const active = new Set(ids as string[]);
      for (const id of shard.trips.keys()) if (!active.has(id)) shard.trips.delete(id);
      for (const id of active) if (!shard.trips.has(id)) shard.trips.set(id, newTrip());
    }
  }

  /** What is new in all shards, a page of each at a time. */
  async #follow(): Promise<void> {
    let behind = [...this.#shards];
    let failure: Error | null = null;
    while (behind.length > 0) {
      const answers = await pipelined(
        this.#parts.redis,
        behind,
        ([number]) => shardKeys(number).stream,
        (pipeline, [number, { lastId }]) =>
          pipeline.xrange(shardKeys(number).stream, `(${lastId}`, '+', 'COUNT', pageSize),
      );
      const unfinished: typeof behind = [];
      for (const [index, [number, shard]] of behind.entries()) {
        const [error, page] = answers[index] ?? [new Error('No answer'), null];
        failure ??= error;
        if (error) continue;
        const entries = page as RawEntry[];
        for (const entry of entries) {
          const { id, live } = parseEntry(entry);
          for (const update of live) this.#see(shard, update);
          shard.lastId = id;
        }
        if (entries.length === pageSize) unfinished.push([number, shard]);
      }
      behind = unfinished;
    }
    // What the others had has been seen by now
    if (failure) throw failure;
  }

  #see(shard: Shard, update: Update): void {
    let trip = shard.trips.get(update.tripId);
    if (!trip) shard.trips.set(update.tripId, (trip = newTrip()));
    if (trip.watch) trip.watch = see(trip.watch, update, this.#parts.rules);
    else {
      trip.waiting.push(update);
      if (trip.waiting.length > mostWaiting) trip.waiting.shift();
    }
  }

  /** Asks for the plans that are missing. Without trips the others go on. */
  async #plan(now: number): Promise<void> {
    const missing = [...this.#all()].filter(
      ([, { watch, plannedAt }]) => watch === null && now - plannedAt >= planAgainMs,
    );
    for (let start = 0; start < missing.length; start += plansAtOnce) {
      const some = new Map(missing.slice(start, start + plansAtOnce));
      try {
        for (const plan of await this.#parts.plansOf([...some.keys()])) {
          const trip = some.get(plan.tripId);
          if (!trip) continue;
          const { rules } = this.#parts;
          trip.watch = trip.waiting.reduce(
            (watch, update) => see(watch, update, rules),
            watchTrip(plan, rules),
          );
          trip.waiting = [];
        }
      } catch (error) {
        this.#parts.onTrouble('Trips go unwatched until their plans can be had', error);
      }
      for (const trip of some.values()) trip.plannedAt = now;
    }
  }

  #judge(now: number): Suspicion[] {
    const heard = [...this.#all()].flatMap(([, { watch }]) => (watch ? [watch.signal.heardAt] : []));
    this.#isDeaf = isDeaf(heard, now);
    if (this.#isDeaf) this.#hearingSince = now;
    const suspicions: Suspicion[] = [];
    for (const [, trip] of this.#all()) {
      if (!trip.watch) continue;
      const { watch, suspected } = judge(trip.watch, now, this.#parts.rules, this.#hearingSince);
      trip.watch = watch;
      for (const kind of suspected) if (now >= (trip.quietUntil[kind] ?? 0)) suspicions.push({ kind, watch });
    }
    return suspicions;
  }
}
