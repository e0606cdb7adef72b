import { type ChainableCommander, Cluster, type Redis } from 'ioredis';
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
/** A backlog that Redis has no room for; the history is moved every half a minute, s. */
const noRoomRetryS = 30;
/** Redis' Lua unpacks some 8,000 values at once, an update takes three; and nobody else is served meanwhile, some 3 ms. */
const maxPerScript = 500;

/**
 * How many updates of a batch met which end. `failed` ones were not processed and may be tried again; `broken` ones
 * Redis refuses by themselves, and would for ever. `lost`: entries of the streams that had to go before the database had them.
 */
export interface BatchOutcome {
  accepted: number;
  late: number;
  notActive: number;
  failed: Reported[];
  broken: Reported[];
  lost: number;
}

/** Some updates of one shard. */
interface Chunk {
  shard: number;
  updates: readonly Reported[];
}

/** A script's run over some updates, of one shard or of several that are on the same server; `shard` is the first. */
interface ShardCall {
  shard: number;
  updates: readonly Reported[];
  add(this: void, pipeline: ChainableCommander): unknown;
}

/** What a Redis says that is starting, failing over, full or busy. */
const isTemporary =
  /^(LOADING|READONLY|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|MOVED|ASK|OOM|BUSY|NOREPLICAS|MISCONF)/;

const scriptKeys = (shard: number) => {
  const { active, last, geo, stream, head } = shardKeys(shard);
  return [active, last, geo, stream, head];
};

const everyShard = Array.from({ length: shardCount }, (_, shard) => shard);

/** Where active trips are, in Redis: the index, the last positions and the streams that their history is in. */
export class LiveIndex {
  readonly #redis: RedisConnection;
  readonly #retentionMs: number;
  /** What the stream of each shard may take in Redis. */
  maxShardBytes: number;

  /** `retentionMs`: how long a stream keeps what the database has. */
  constructor(redis: RedisConnection, retentionMs: number, maxShardBytes: number = Number.MAX_SAFE_INTEGER) {
    this.#redis = redis;
    this.#retentionMs = retentionMs;
    this.maxShardBytes = maxShardBytes;
    defineScripts(redis);
  }

  /** From now on this driver's updates count, unless the trip is over already. Whose updates count is answered. */
  open(tripId: string, driverId: string): Promise<string | null> {
    const shard = shardOf(tripId);
    return this.#redis.openTrip(shardKeys(shard).active, closedKey(shard, tripId), tripId, driverId);
  }

  /**
   * When this has answered the trip is in no index, and stays out when the primary dies. Updates from before the end are still
   * taken, wherever they are on their way: they go to its history and its room.
   */
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
    const outcome: BatchOutcome = { accepted: 0, late: 0, notActive: 0, failed: [], broken: [], lost: 0 };
    const chunks = [...Map.groupBy(updates, ({ tripId }) => shardOf(tripId))].flatMap(([shard, ofShard]) =>
      Array.from({ length: Math.ceil(ofShard.length / maxPerScript) }, (_, n) => ({
        shard,
        updates: ofShard.slice(n * maxPerScript, (n + 1) * maxPerScript),
      })),
    );
    const inactive: Reported[] = [];
    const refused = await this.#send(this.#packed(chunks), outcome, inactive);
    // One update that Redis cannot take must not hold up the others of its shard
    const singly = refused.map((one) => this.#batchCall([{ shard: shardOf(one.tripId), updates: [one] }]));
    const broken = await this.#send(singly, outcome, inactive);
    // Few, and rarely any: those of trips that have just ended
    const tooLate: Reported[] = [];
    const closing = inactive.map((one) => this.#closingCall(one));
    outcome.broken = [...broken, ...(await this.#send(closing, outcome, tooLate))];
    outcome.notActive = tooLate.length;
    return outcome;
  }

  /** A command has a price of its own: as few as can be. On a Cluster a script touches one shard. */
  #packed(chunks: readonly Chunk[]): ShardCall[] {
    if (this.#redis instanceof Cluster) return chunks.map((chunk) => this.#batchCall([chunk]));
    const packs: { size: number; chunks: Chunk[] }[] = [];
    for (const chunk of chunks) {
      const { length } = chunk.updates;
      const last = packs.at(-1);
      if (last && last.size + length <= maxPerScript) {
        last.size += length;
        last.chunks.push(chunk);
      } else packs.push({ size: length, chunks: [chunk] });
    }
    return packs.map((pack) => this.#batchCall(pack.chunks));
  }

  #batchCall(chunks: readonly Chunk[]): ShardCall {
    const keys = chunks.flatMap(({ shard }) => scriptKeys(shard));
    const args = chunks.flatMap(({ shard, updates }) => [
      shardChannel(shard),
      updates.length,
      ...updates.flatMap((u) => [u.tripId, u.userId, u.timestamp, u.lng, u.lat, JSON.stringify(u)]),
    ]);
    return {
      shard: chunks[0]?.shard ?? 0,
      updates: chunks.flatMap(({ updates }) => updates),
      add: (pipeline) =>
        pipeline.applyBatch(keys.length, ...keys, this.#retentionMs, this.maxShardBytes, ...args),
    };
  }

  #closingCall(update: Reported): ShardCall {
    const shard = shardOf(update.tripId);
    const keys = [...scriptKeys(shard), closedKey(shard, update.tripId)];
    const args = [update.userId, update.timestamp, JSON.stringify(update)];
    return {
      shard,
      updates: [update],
      add: (pipeline) => pipeline.applyClosing(...keys, ...this.#streamArgs(shard), ...args),
    };
  }

  #streamArgs(shard: number): [string, number, number] {
    return [shardChannel(shard), this.#retentionMs, this.maxShardBytes];
  }

  /** Runs the scripts and counts; answers the updates that Redis refused, rather than failed to answer. */
  async #send(calls: readonly ShardCall[], outcome: BatchOutcome, inactive: Reported[]): Promise<Reported[]> {
    const refused: Reported[] = [];
    const put = (updates: readonly Reported[], why: string): void => {
      (isTemporary.test(why) ? outcome.failed : refused).push(...updates);
    };
    const results = await pipelined(
      this.#redis,
      calls,
      ({ shard }) => shardKeys(shard).stream,
      (pipeline, { add }) => add(pipeline),
    );
    for (const [index, { updates }] of calls.entries()) {
      const [error, answer] = results[index] ?? [new Error('No answer')];
      if (error?.name === 'ReplyError') put(updates, error.message);
      else if (error || !Array.isArray(answer)) outcome.failed.push(...updates);
      else {
        const [letters, lost, why = ''] = answer as [string, number, string?];
        outcome.lost += lost;
        for (const [n, update] of updates.entries()) {
          if (letters[n] === 'A') outcome.accepted++;
          else if (letters[n] === 'L') outcome.late++;
          else if (letters[n] === 'N') inactive.push(update);
          else put([update], why);
        }
      }
    }
    return refused;
  }

  /**
   * Puts a backlog's points, oldest first and not empty, into the stream. When this has answered they outlive the primary.
   * UNAVAILABLE where there is no room: what the database has not taken yet would have to go.
   */
  async append(tripId: string, driverId: string, points: readonly Reported[]): Promise<void> {
    const newest = points.at(-1);
    if (!newest) return;
    const shard = shardOf(tripId);
    const { timestamp, lng, lat } = newest;
    let appended = 0;
    await this.#kept(shard, async (primary) => {
      appended = await primary.appendBacklog(
        ...scriptKeys(shard),
        ...this.#streamArgs(shard),
        tripId,
        driverId,
        timestamp,
        lng,
        lat,
        JSON.stringify(newest),
        JSON.stringify(points),
      );
    });
    if (appended === 0) throw new AppError('UNAVAILABLE', { retryAfterS: noRoomRetryS });
  }

  /** The driver whose updates count, and the last position. */
  async state(tripId: string): Promise<{ driverId: string | null; last: Update | null }> {
    const { active, last } = shardKeys(shardOf(tripId));
    const [driver, position] =
      (await this.#redis.pipeline().hget(active, tripId).hget(last, tripId).exec()) ?? [];
    if (!driver || !position || driver[0] || position[0])
      throw new AppError('UNAVAILABLE', { retryAfterS: 2 });
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
    const entries = readStream(this.#redis, shardOf(tripId), String(start), { mentioning: tripId });
    for await (const { live } of entries) {
      for (const update of live) if (update.tripId === tripId) missed.push(update);
    }
    return { last, missed };
  }

  /** Takes trips out of `nearby` that have been silent for ten minutes, until they report again; answers how many. */
  async dropSilent(): Promise<number> {
    const answers = await pipelined(
      this.#redis,
      everyShard,
      (shard) => shardKeys(shard).geo,
      (pipeline, shard) => pipeline.dropSilent(shardKeys(shard).last, shardKeys(shard).geo, silentMs),
    );
    return answers.reduce((sum, [error, dropped]) => {
      if (error) throw error;
      return sum + Number(dropped);
    }, 0);
  }

  /** Active trips within `radiusM` of a point, nearest first; without those that `dropSilent` has met. */
  async nearby(lat: number, lng: number, radiusM: number, limit: number) {
    const perShard = await pipelined(
      this.#redis,
      everyShard,
      (shard) => shardKeys(shard).geo,
      (pipeline, shard) =>
        pipeline.geosearch(
          shardKeys(shard).geo,
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
    return hits
      .toSorted((a, b) => Number(a[1]) - Number(b[1]))
      .slice(0, limit)
      .map(([tripId, distance, [x, y]]) => ({
        tripId,
        lat: Number(y),
        lng: Number(x),
        distanceM: Math.round(Number(distance)),
      }));
  }
}
