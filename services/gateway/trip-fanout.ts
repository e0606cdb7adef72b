import type { Redis } from 'ioredis';
import type { Update } from '../../contracts/location.ts';
import { AppError } from '../../lib/errors.ts';
import { shardChannel, shardKeys, shardOf } from '../../lib/location-keys.ts';
import { parseBatch, readStream } from '../../lib/location-stream.ts';
import type { RedisConnection } from '../../lib/redis-client.ts';
import { pipelined } from '../../lib/redis-pipelines.ts';

interface Shard {
  /** Watched trips of this shard. */
  trips: Set<string>;
  /** Id of the last entry that was delivered; null until the subscription stands. */
  lastId: string | null;
  /** What the stream held at the last look beyond `lastId`: a message on its way, or one that does not come. */
  awaited?: string;
  /** What was delivered last at the last look. */
  lookedAt?: string | null;
  /** Resolves when every entry after now will be delivered. */
  ready: Promise<void>;
  /** Messages are handled one after the other. */
  queue: Promise<void>;
}

/**
 * Brings the updates of watched trips from Redis to this node: subscribes to the channels of their shards, and fills
 * gaps from the stream by the ids that every message carries.
 */
export class TripFanout {
  readonly #redis: RedisConnection;
  readonly #subscriber: Redis;
  readonly #deliver: (update: Update) => void;
  readonly #onTrouble: (text: string, error: unknown) => void;
  readonly #shards = new Map<number, Shard>();
  readonly #byChannel = new Map<string, number>();

  constructor(options: {
    redis: RedisConnection;
    subscriber: Redis;
    deliver: (update: Update) => void;
    onTrouble: (text: string, error: unknown) => void;
  }) {
    this.#redis = options.redis;
    this.#subscriber = options.subscriber;
    this.#deliver = options.deliver;
    this.#onTrouble = options.onTrouble;
    this.#subscriber.on('message', (channel: string, message: string) => this.#receive(channel, message));
    this.#subscriber.on('ready', () => {
      this.#resubscribe().catch((error: unknown) => this.#onTrouble('Channels are not subscribed', error));
    });
  }

  /** Resolves when the trip's next update will be delivered. */
  async watch(tripId: string): Promise<void> {
    const number = shardOf(tripId);
    let shard = this.#shards.get(number);
    if (!shard) {
      shard = { trips: new Set(), lastId: null, ready: Promise.resolve(), queue: Promise.resolve() };
      this.#shards.set(number, shard);
      this.#byChannel.set(shardChannel(number), number);
      shard.ready = this.#subscribe(number, shard);
    }
    shard.trips.add(tripId);
    try {
      await shard.ready;
    } catch (error) {
      if (this.#shards.get(number) === shard) {
        this.#shards.delete(number);
        this.#byChannel.delete(shardChannel(number));
      }
      throw error;
    }
  }

  /** Nobody here watches the trip any more. */
  async unwatch(tripId: string): Promise<void> {
    const number = shardOf(tripId);
    const shard = this.#shards.get(number);
    if (!shard) return;
    shard.trips.delete(tripId);
    if (shard.trips.size > 0) return;
    this.#shards.delete(number);
    this.#byChannel.delete(shardChannel(number));
    await this.#subscriber.unsubscribe(shardChannel(number));
    // Somebody may have come back while that was under way
    if (this.#shards.has(number)) await this.#subscriber.subscribe(shardChannel(number));
  }

  /**
   * Looks whether the streams hold what the channels did not bring between two looks: a subscriber's node can fall
   * silent without a word. What is missing is delivered, and the subscriber sent elsewhere. Where something has come
   * since the last look, nobody needs to be asked.
   */
  async catchUp(): Promise<void> {
    const shards = [...this.#shards].filter(([, shard]) => {
      const { lastId, lookedAt } = shard;
      shard.lookedAt = lastId;
      if (lastId !== lookedAt) delete shard.awaited;
      return lastId !== null && lastId === lookedAt;
    });
    const heads = await pipelined(
      this.#redis,
      shards,
      ([number]) => shardKeys(number).head,
      (pipeline, [number]) => pipeline.hget(shardKeys(number).head, 'id'),
    );
    let isDeaf = false;
    for (const [index, [number, shard]] of shards.entries()) {
      const [error, head] = heads[index] ?? [null, null];
      if (error) throw error;
      const { awaited, lastId } = shard;
      if (awaited !== undefined && lastId !== null && isAfter(awaited, lastId)) {
        isDeaf = true;
        this.#enqueue(number, shard, () => this.#fillGap(number, shard));
      }
      if (typeof head === 'string') shard.awaited = head;
    }
    if (isDeaf) this.#subscriber.disconnect(true);
  }

  async #subscribe(number: number, shard: Shard): Promise<void> {
    await answeredIn2s(this.#subscriber.subscribe(shardChannel(number)));
    shard.lastId ??= (await this.#redis.hget(shardKeys(number).head, 'id')) ?? '0-0';
  }

  /**
   * ioredis subscribes again by itself, but forgets to when the connection is lost once more before the answer; and only
   * once the subscription stands does the stream hold all that was published without us.
   */
  async #resubscribe(): Promise<void> {
    const channels = [...this.#byChannel.keys()];
    if (channels.length === 0) return;
    await this.#subscriber.subscribe(...channels);
    for (const [number, shard] of this.#shards)
      if (shard.lastId !== null) this.#enqueue(number, shard, () => this.#fillGap(number, shard));
  }

  #receive(channel: string, message: string): void {
    const number = this.#byChannel.get(channel);
    const shard = number === undefined ? undefined : this.#shards.get(number);
    if (number === undefined || !shard) return;
    const [, id, previous, batch] = /^(\S+) (\S+) (.*)$/s.exec(message) ?? [];
    if (!id || !previous || !batch)
      return this.#onTrouble('A location channel carries something else', undefined);
    this.#enqueue(number, shard, async () => {
      await shard.ready;
      if (shard.lastId !== null && shard.lastId !== previous) {
        if (!isAfter(id, shard.lastId)) return;
        return this.#fillGap(number, shard);
      }
      shard.lastId = id;
      this.#deliverAll(shard, parseBatch(batch));
    });
  }

  #enqueue(number: number, shard: Shard, work: () => Promise<void>): void {
    shard.queue = shard.queue
      .then(work)
      .catch((error: unknown) => this.#onTrouble(`Updates of shard ${number} are delayed`, error));
  }

  async #fillGap(number: number, shard: Shard): Promise<void> {
    for await (const { id, live } of readStream(this.#redis, number, `(${shard.lastId}`)) {
      shard.lastId = id;
      this.#deliverAll(shard, live);
    }
  }

  #deliverAll(shard: Shard, updates: readonly Update[]): void {
    for (const update of updates) if (shard.trips.has(update.tripId)) this.#deliver(update);
  }
}

/** A subscriber holds its commands while Redis is away; who asked does not wait for that. UNAVAILABLE. */
async function answeredIn2s(subscribed: Promise<unknown>): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new AppError('UNAVAILABLE', { retryAfterS: 2 })), 2000);
  });
  await Promise.race([subscribed, late]).finally(() => clearTimeout(timer));
}

/** Is stream id `a` after `b`? */
function isAfter(a: string, b: string): boolean {
  const [aMs = 0, aSeq = 0] = a.split('-').map(Number);
  const [bMs = 0, bSeq = 0] = b.split('-').map(Number);
  return aMs > bMs || (aMs === bMs && aSeq > bSeq);
}
