import type { MetricRegistry } from 'moleculer';
import type { Update } from '../../contracts/location.ts';
import { backoffMs, pause } from '../../lib/backoff.ts';
import type { Log } from '../../lib/context.ts';
import { randomId } from '../../lib/ids.ts';
import { shardCount, shardKeys } from '../../lib/location-keys.ts';
import { entryTime, parseEntry, type RawEntry } from '../../lib/location-stream.ts';
import type { RedisConnection } from '../../lib/redis-client.ts';
import { type PipelineResult, pipelined } from '../../lib/redis-pipelines.ts';
import { operationMs } from '../../mixins/mongo.ts';
import type { TimeSeries } from '../../mixins/time-series.ts';
import { defineScripts } from './scripts.ts';

/** Shards that are moved together: their points share the questions to the database. */
const groupSize = 8;
/** Read from a shard at a time: so many entries, or so many bytes of them, are enough. It bounds what a process holds. */
const enoughEntries = 32;
const enoughBytes = 65_536;
/**
 * A turn ends by itself after this time, ms, and nothing is written in the last of the three operations that fit into it:
 * what a process has sent is done, or given up by the database, before another one is at the shard.
 */
const turnMs = 3 * operationMs;

interface Turn {
  shard: number;
  /** The shard's cursor as it was read. */
  from: string;
  entries: RawEntry[];
  more: boolean;
}

function registerMetrics(metrics: MetricRegistry): void {
  metrics.register({
    type: 'counter',
    name: 'location.history.stored.total',
    description: 'Points that the database has taken',
  });
  metrics.register({
    type: 'counter',
    name: 'location.history.refused.total',
    description: 'Points and entries that can never be stored',
  });
  metrics.register({
    type: 'counter',
    name: 'location.history.failed.total',
    description: 'Batches that failed; they are tried again',
  });
  metrics.register({
    type: 'gauge',
    name: 'location.history.lag',
    unit: 'ms',
    description: 'Age of the oldest entry that could not be stored; 0 while every turn succeeds',
  });
}

/**
 * Moves the streams' entries to the database, shard by shard. Any number of processes do it at once: a shard is in one
 * process's turn at a time, and the cursor moves behind the write.
 */
export class HistoryMover {
  readonly #redis: RedisConnection;
  readonly #series: TimeSeries<Update>;
  readonly #nodeId: string;
  readonly #intervalMs: number;
  readonly #logger: Log;
  readonly #metrics: MetricRegistry;
  /** In an order of its own: of two processes each meets some shards first, and so they share. */
  readonly #groups: number[][];
  /** Shards that could not be moved, and since when their oldest entry waits, ms. */
  readonly #waiting = new Map<number, number>();
  /** Whose a turn is. */
  #who: string;
  /** One group after the other, whoever asks. */
  #underWay: Promise<void> = Promise.resolve();

  /** `intervalMs`: how often each shard is looked at. */
  constructor(options: {
    redis: RedisConnection;
    series: TimeSeries<Update>;
    nodeId: string;
    intervalMs: number;
    logger: Log;
    metrics: MetricRegistry;
  }) {
    this.#redis = options.redis;
    this.#series = options.series;
    this.#nodeId = options.nodeId;
    this.#who = this.#newName();
    this.#intervalMs = options.intervalMs;
    this.#logger = options.logger;
    this.#metrics = options.metrics;
    this.#groups = inGroups(shuffled(Array.from({ length: shardCount }, (_, shard) => shard)));
    defineScripts(options.redis);
    registerMetrics(options.metrics);
  }

  /** No process before or after this one has had it. */
  #newName = (): string => `${this.#nodeId} ${randomId(8)}`;

  /** Goes round until `signal` is aborted, and finishes the batch under way. Never rejects: what fails is tried again. */
  async run(signal: AbortSignal): Promise<void> {
    // Over the whole of the interval, so that the database sees no peaks
    const paceMs = this.#intervalMs / this.#groups.length;
    let failures = 0;
    while (!signal.aborted)
      for (const group of this.#groups) {
        const due = performance.now() + paceMs;
        failures = (await this.#tryToMove(group, signal)) ? 0 : failures + 1;
        const waitMs =
          failures === 0
            ? due - performance.now()
            : backoffMs(failures - 1, { firstMs: paceMs, maxMs: this.#intervalMs / 3 });
        await pause(Math.max(0, waitMs), signal);
        if (signal.aborted) return;
      }
  }

  /** Moves all there is, now. Rejects when a store is away. */
  async moveAll(signal: AbortSignal): Promise<void> {
    for (const group of this.#groups) await this.#move(group, 0, signal);
  }

  async #tryToMove(group: readonly number[], signal: AbortSignal): Promise<boolean> {
    try {
      // Whoever was there half an interval ago or less has done this round
      await this.#move(group, this.#intervalMs / 2, signal);
      return true;
    } catch (error) {
      this.#metrics.increment('location.history.failed.total');
      const oldest = Math.min(...this.#waiting.values());
      this.#logger.warn('Location history waits in Redis', {
        shards: this.#waiting.size,
        ...(Number.isFinite(oldest) ? { oldestMs: Date.now() - oldest } : {}),
        error,
      });
      return false;
    } finally {
      const oldest = Math.min(...this.#waiting.values());
      const lag = Number.isFinite(oldest) ? Math.max(0, Date.now() - oldest) : 0;
      this.#metrics.set('location.history.lag', lag);
    }
  }

  #move(group: readonly number[], restMs: number, signal: AbortSignal): Promise<void> {
    const moved = this.#underWay.then(() => this.#moveNow(group, restMs, signal));
    this.#underWay = moved.catch(() => {
      // What a failed turn has sent may still be under way: until it has ended by itself it is nobody's, not ours either
      this.#who = this.#newName();
    });
    return moved;
  }

  async #moveNow(group: readonly number[], restMs: number, signal: AbortSignal): Promise<void> {
    let failure: Error | null = null;
    for (let left = group; left.length > 0 && !signal.aborted; ) {
      const until = performance.now() + turnMs - operationMs;
      const taken = await this.#takeTurns(left, restMs);
      failure ??= taken.failure;
      const { turns } = taken;
      for (const shard of left) this.#waiting.delete(shard);
      if (turns.length === 0) break;
      for (const { shard, entries } of turns) this.#waiting.set(shard, entryTime(entries[0]?.[0] ?? ''));
      const { added, refused } = await this.#series.add(this.#pointsOf(turns), until);
      this.#metrics.increment('location.history.stored.total', {}, added);
      if (refused.length > 0) this.#dropRefused(refused);
      failure = (await this.#endTurns(turns)) ?? failure;
      for (const { shard } of turns) this.#waiting.delete(shard);
      left = turns.filter(({ more }) => more).map(({ shard }) => shard);
    }
    if (failure) throw failure;
  }

  /** Shards that Redis does not answer for hold up no others. */
  async #takeTurns(
    shards: readonly number[],
    restMs: number,
  ): Promise<{ turns: Turn[]; failure: Error | null }> {
    const answers = await pipelined(
      this.#redis,
      shards,
      (shard) => shardKeys(shard).stream,
      (pipeline, shard) => {
        const { stream, head, mover } = shardKeys(shard);
        pipeline.takeTurn(stream, head, mover, this.#who, turnMs, restMs, enoughEntries, enoughBytes);
      },
    );
    const turns = answers.flatMap(([, answer], index) => {
      const shard = shards[index];
      if (!Array.isArray(answer) || shard === undefined) return [];
      const [from, entries, more] = answer as [string, RawEntry[], number];
      return [{ shard, from, entries, more: more === 1 }];
    });
    return { turns, failure: firstError(answers) };
  }

  /** A cursor that stays where it was loses nothing: the points will be found to be there. */
  async #endTurns(turns: readonly Turn[]): Promise<Error | null> {
    const answers = await pipelined(
      this.#redis,
      turns,
      ({ shard }) => shardKeys(shard).stream,
      (pipeline, { shard, from, entries, more }) => {
        const { head, mover } = shardKeys(shard);
        pipeline.endTurn(head, mover, this.#who, from, entries.at(-1)?.[0] ?? from, more ? 1 : 0);
      },
    );
    return firstError(answers);
  }

  #pointsOf(turns: readonly Turn[]): Update[] {
    return turns.flatMap(({ shard, entries }) =>
      entries.flatMap((entry) => {
        try {
          const { live, history } = parseEntry(entry);
          return [...live, ...history];
        } catch (error) {
          // Nothing of ours writes such a thing; the shard must not stand still for it
          this.#metrics.increment('location.history.refused.total');
          this.#logger.error('An entry of a location stream cannot be read', { shard, id: entry[0], error });
          return [];
        }
      }),
    );
  }

  #dropRefused(refused: readonly Update[]): void {
    this.#metrics.increment('location.history.refused.total', {}, refused.length);
    const points = refused.map(({ tripId, timestamp }) => ({ tripId, timestamp }));
    this.#logger.error('The database refuses these points of the location history', { points });
  }
}

const firstError = (answers: readonly PipelineResult[]): Error | null =>
  answers.find(([error]) => error !== null)?.[0] ?? null;

const inGroups = (shards: readonly number[]): number[][] =>
  Array.from({ length: Math.ceil(shards.length / groupSize) }, (_, n) =>
    shards.slice(n * groupSize, (n + 1) * groupSize),
  );

/** Fisher and Yates. */
function shuffled(shards: readonly number[]): number[] {
  const order = [...shards];
  for (let n = order.length - 1; n > 0; n--) {
    const other = Math.floor(Math.random() * (n + 1));
    [order[n], order[other]] = [order[other] ?? 0, order[n] ?? 0];
  }
  return order;
}
