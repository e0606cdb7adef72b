import type { Redis } from 'ioredis';
import type { Reported, Update } from '../../contracts/location.ts';
import { AppError } from '../../lib/errors.ts';
import { closedKey, shardChannel, shardCount, shardKeys, shardOf } from '../../lib/location-keys.ts';
import { parseLast, readStream } from '../../lib/location-stream.ts';
import type { RedisConnection } from '../../lib/redis-client.ts';
import { pipelined } from '../../lib/redis-pipelines.ts';
import { replicated } from '../../lib/replicated.ts';
import { defineScripts } from './scripts.ts';

/** A trip cannot be opened again for this long after its end, s. */
const closedForS = 86_400;
/** Missed updates go back this far, ms. */
const missedMs = 600_000;
/** A trip that has been silent for this long is not near anything any more, ms. */
const silentMs = 600_000;
/** Redis' Lua unpacks some 8,000 values at once; an update takes three. */
const maxPerScript = 500;

/**
 * How many updates of a batch met which end. `failed` ones were not processed and may be tried again; `broken` ones
 * Redis refuses by themselves, and would for ever.
 */
export interface BatchOutcome {
  accepted: number;
  late: number;
  notActive: number;
  failed: Reported[];
  broken: Reported[];
}

interface ShardCall {
  shard: number;
  chunk: readonly Reported[];
}

/** What a Redis says that is starting, failing over, full or busy. */
const isTemporary =
  /^(LOADING|READONLY|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|MOVED|ASK|OOM|BUSY|NOREPLICAS|MISCONF)/;

const scriptKeys = (shard: number) => {
  const { active, last, geo, stream, head } = shardKeys(shard);
  return [active, last, geo, stream, head];
};

/** Where active trips are, in Redis: the index, the last positions and an hour of history. */
export class LiveIndex {
  readonly #redis: RedisConnection;
  readonly #retentionMs: number;

  constructor(redis: RedisConnection, retentionMs: number) {
    this.#redis = redis;
    this.#retentionMs = retentionMs;
    defineScripts(redis);
  }

  /** From now on this driver's updates count, unless the trip is over already. Whose updates count is answered. */
  open(tripId: string, driverId: string): Promise<string | null> {
    const shard = shardOf(tripId);
    return this.#redis.openTrip(shardKeys(shard).active, closedKey(shard, tripId), tripId, driverId);
  }

  /** When this has answered the trip is in no index, and stays out when the primary dies. */
  async close(tripId: string): Promise<void> {
    const shard = shardOf(tripId);
    const { active, last, geo } = shardKeys(shard);
    await this.#kept(shard, (primary) =>
      primary.closeTrip(active, last, geo, closedKey(shard, tripId), tripId, closedForS),
    );
  }

  /** UNAVAILABLE unless a replica has it where there is one: all that is done twice changes nothing. */
  async #kept(shard: number, write: (primary: Redis) => Promise<unknown>): Promise<void> {
    const { kept } = await replicated(this.#redis, shardKeys(shard).stream, (primary) => {
      defineScripts(primary);
      return write(primary);
    });
    if (!kept) throw new AppError('UNAVAILABLE', { retryAfterS: 2 });
  }

  /** A batch, at most one update for each trip: one pipeline for each Redis node, a script for each shard. */
  async apply(updates: readonly Reported[]): Promise<BatchOutcome> {
    const shards = new Map<number, Reported[][]>();
    for (const update of updates) {
      const shard = shardOf(update.tripId);
      const chunks = shards.get(shard) ?? [[]];
      shards.set(shard, chunks);
      const chunk = chunks.at(-1);
      if (chunk && chunk.length < maxPerScript) chunk.push(update);
      else chunks.push([update]);
    }
    const outcome: BatchOutcome = { accepted: 0, late: 0, notActive: 0, failed: [], broken: [] };
    const refused = await this.#send(
      [...shards].flatMap(([shard, chunks]) => chunks.map((chunk) => ({ shard, chunk }))),
      outcome,
    );
    // One update that Redis cannot take must not hold up the others of its shard
    const singly = refused.flatMap(({ shard, chunk }) => chunk.map((update) => ({ shard, chunk: [update] })));
    for (const { chunk } of await this.#send(singly, outcome)) outcome.broken.push(...chunk);
    return outcome;
  }

  /** Runs the scripts and counts; answers the calls that Redis refused, rather than failed to answer. */
  async #send(calls: readonly ShardCall[], outcome: BatchOutcome): Promise<ShardCall[]> {
    if (calls.length === 0) return [];
    const refused: ShardCall[] = [];
    const results = await pipelined(
      this.#redis,
      calls,
      ({ shard }) => shardKeys(shard).stream,
      (pipeline, { shard, chunk }) => {
        const args = chunk.flatMap((u) => [u.tripId, u.userId, u.timestamp, u.lng, u.lat, JSON.stringify(u)]);
        pipeline.applyBatch(...scriptKeys(shard), shardChannel(shard), this.#retentionMs, ...args);
      },
    );
    for (const [index, call] of calls.entries()) {
      const [error, letters] = results[index] ?? [new Error('No answer')];
      if (error?.name === 'ReplyError' && !isTemporary.test(error.message)) refused.push(call);
      else if (error || typeof letters !== 'string') outcome.failed.push(...call.chunk);
      else {
        for (const letter of letters) {
          if (letter === 'A') outcome.accepted++;
          else if (letter === 'L') outcome.late++;
          else outcome.notActive++;
        }
      }
    }
    return refused;
  }

  /** Puts a backlog's points, oldest first and not empty, into the stream. When this has answered they outlive the primary. */
  async append(tripId: string, driverId: string, points: readonly Reported[]): Promise<void> {
    const newest = points.at(-1);
    if (!newest) return;
    const shard = shardOf(tripId);
    const { timestamp, lng, lat } = newest;
    const newestJson = JSON.stringify(newest);
    const head = [shardChannel(shard), this.#retentionMs, tripId, driverId];
    await this.#kept(shard, (primary) =>
      primary.appendBacklog(
        ...scriptKeys(shard),
        ...head,
        timestamp,
        lng,
        lat,
        newestJson,
        JSON.stringify(points),
      ),
    );
  }

  /** The driver whose updates count, and the last position. */
  async state(tripId: string): Promise<{ driverId: string | null; last: Update | null }> {
    const { active, last } = shardKeys(shardOf(tripId));
    const [driver, position] =
      (await this.#redis.pipeline().hget(active, tripId).hget(last, tripId).exec()) ?? [];
    if (!driver || !position || driver[0] || position[0]) throw new Error('Redis did not answer');
    return {
      driverId: typeof driver[1] === 'string' ? driver[1] : null,
      last: parseLast(position[1] as string | null),
    };
  }

  /** The last update, and those that went to the trip's room with `at` ≥ `after`, at most 10 min back. */
  async missed(
    tripId: string,
    after: number | undefined,
  ): Promise<{ last: Update | null; missed: Update[] }> {
    const { last } = await this.state(tripId);
    if (after === undefined) return { last, missed: [] };
    const missed: Update[] = [];
    const start = Math.max(after, Date.now() - missedMs);
    for await (const { live } of readStream(this.#redis, shardOf(tripId), String(start))) {
      for (const update of live) if (update.tripId === tripId) missed.push(update);
    }
    return { last, missed };
  }

  /** Every known point of a trip since `since` (server time, ms), by the phone's time; equal ones once. */
  async track(tripId: string, since: number): Promise<Update[]> {
    const points = new Map<number, Update>();
    for await (const { live, history } of readStream(this.#redis, shardOf(tripId), String(since))) {
      for (const update of [...live, ...history])
        if (update.tripId === tripId) points.set(update.timestamp, update);
    }
    return [...points.values()].toSorted((a, b) => a.timestamp - b.timestamp);
  }

  /** Active trips within `radiusM` of a point, nearest first; ones that fell silent are left out. */
  async nearby(lat: number, lng: number, radiusM: number, limit: number) {
    const perShard = await pipelined(
      this.#redis,
      Array.from({ length: shardCount }, (_, shard) => shardKeys(shard).geo),
      (geo) => geo,
      (pipeline, geo) =>
        pipeline.geosearch(
          geo,
          'FROMLONLAT',
          lng,
          lat,
          'BYRADIUS',
          radiusM,
          'm',
          'ASC',
          'COUNT',
          limit,
          'WITHDIST',
          'WITHCOORD',
        ),
    );
    type Hit = [tripId: string, distance: string, position: [lng: string, lat: string]];
    const hits = perShard.flatMap(([error, near]) => {
      if (error) throw error;
      return near as Hit[];
    });
    hits.sort((a, b) => Number(a[1]) - Number(b[1]));
    const oldest = Date.now() - silentMs;
    const found: { tripId: string; lat: number; lng: number; distanceM: number }[] = [];
    // Silent trips must not take the places of those that report: page by page until there are enough
    for (let start = 0; start < hits.length && found.length < limit; start += limit) {
      const page = hits.slice(start, start + limit);
      const seen = await pipelined(
        this.#redis,
        page,
        ([tripId]) => shardKeys(shardOf(tripId)).last,
        (pipeline, [tripId]) => pipeline.hget(shardKeys(shardOf(tripId)).last, tripId),
      );
      for (const [index, [tripId, distance, [x, y]]] of page.entries()) {
        const last = parseLast(seen[index]?.[1] as string | null);
        if (!last || last.at < oldest) continue;
        found.push({ tripId, lat: Number(y), lng: Number(x), distanceM: Math.round(Number(distance)) });
      }
    }
    return found.slice(0, limit);
  }
}
