/**
 * How much of what a provider takes arrives, over all processes: counted in Redis in slots of time, judged by one process at a time.
 * Tells the admin feed when a provider gets bad, and when it is well again.
 */
import type { Redis } from 'ioredis';
import { feedKeys, feedMaxLength } from '../../lib/feed-stream.ts';
import type { Channel, MessageProviderName } from '../../lib/providers/provider.ts';
import type { RedisConnection } from '../../lib/redis-client.ts';

export interface Way {
  channel: Channel;
  provider: MessageProviderName;
}

/** How many of a provider's messages went well, and how many did not. */
export interface Counts {
  ok: number;
  failed: number;
}

export interface RateRules {
  /** A rate below it is bad; above `recoverAt` it is well again. */
  below: number;
  recoverAt: number;
  /** Fewer say nothing. A provider that fails altogether gets no more than this before it is left alone. */
  least: number;
}

/** Halfway up to 1, so that a rate about the threshold does not go to and fro. */
export const rateRules = (below: number): RateRules => ({
  below,
  recoverAt: below + (1 - below) / 2,
  least: 10,
});

export const rateOf = ({ ok, failed }: Counts): number => (ok + failed === 0 ? 1 : ok / (ok + failed));

/**
 * Is it bad now? What says too little leaves it as it was; a silent provider that was bad is well again once nothing bad is in sight.
 * Pure.
 */
export function isDegraded(wasBad: boolean, counts: Counts, { below, recoverAt, least }: RateRules): boolean {
  const rate = rateOf(counts);
  if (counts.ok + counts.failed < least) return wasBad && counts.failed > 0;
  return wasBad ? rate < recoverAt : rate < below;
}

const slotMs = 10_000;
const flushEveryMs = 1000;
const judgeEveryMs = 5000;
const keys = {
  slot: (slot: number) => `{notify}:rate:${slot}`,
  judge: '{notify}:rate-judge',
  bad: '{notify}:rate-bad',
};

interface RateParts {
  redis: RedisConnection;
  sosRedis: Redis;
  windowMs: number;
  rules: RateRules;
  now: () => number;
  /** The rate of each provider that was judged. */
  onRate: (way: Way, rate: number) => void;
  onTrouble: (error: unknown) => void;
}

export class DeliveryRates {
  readonly #parts: RateParts;
  #counts = new Map<string, Counts & Way>();
  #timer: NodeJS.Timeout | undefined;
  #running: Promise<void> = Promise.resolve();
  #judgedAt = 0;

  constructor(parts: RateParts) {
    this.#parts = parts;
  }

  count(way: Way, ok: boolean): void {
    const name = `${way.channel}:${way.provider}`;
    const counts = this.#counts.get(name) ?? { ...way, ok: 0, failed: 0 };
    if (ok) counts.ok++;
    else counts.failed++;
    this.#counts.set(name, counts);
  }

  start(): void {
    this.#timer = setTimeout(() => {
      this.#running = this.flush()
        .then(() => this.#judgeInTime())
        .catch((error: unknown) => this.#parts.onTrouble(error))
        .finally(() => this.#timer && this.start());
    }, flushEveryMs);
  }

  async stop(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    await this.#running;
    await this.flush().catch((error: unknown) => this.#parts.onTrouble(error));
  }

  /** What was counted here goes to Redis; what it does not take is counted again with the next. */
  async flush(): Promise<void> {
    if (this.#counts.size === 0) return;
    const { redis, now, windowMs } = this.#parts;
    const counts = this.#counts;
    this.#counts = new Map();
    const key = keys.slot(Math.floor(now() / slotMs));
    try {
      const pipeline = redis.pipeline();
      for (const [name, { ok, failed }] of counts) {
        if (ok > 0) pipeline.hincrby(key, `${name}:ok`, ok);
        if (failed > 0) pipeline.hincrby(key, `${name}:failed`, failed);
      }
      pipeline.pexpire(key, windowMs + 2 * slotMs);
      await pipeline.exec();
    } catch (error) {
      for (const { channel, provider, ok, failed } of counts.values()) {
        for (let i = 0; i < ok; i++) this.count({ channel, provider }, true);
        for (let i = 0; i < failed; i++) this.count({ channel, provider }, false);
      }
      throw error;
    }
  }

  async #judgeInTime(): Promise<void> {
    const { redis, now } = this.#parts;
    if (now() - this.#judgedAt < judgeEveryMs) return;
    this.#judgedAt = now();
    if ((await redis.set(keys.judge, '1', 'PX', judgeEveryMs - flushEveryMs, 'NX')) === null) return;
    await this.judge();
  }

  /** Looks at the window, and tells the feed of each provider that has changed. */
  async judge(): Promise<void> {
    const { redis, now, rules, onRate } = this.#parts;
    const bad = new Set(await redis.smembers(keys.bad));
    for (const [name, way, counts] of await this.#window()) {
      onRate(way, rateOf(counts));
      const wasBad = bad.delete(name);
      const isBad = isDegraded(wasBad, counts, rules);
      if (isBad !== wasBad) await this.#tell(name, way, rateOf(counts), isBad, now());
    }
    // Nothing of them is in the window any more
    for (const name of bad) {
      const [channel, provider] = name.split(':') as [Channel, MessageProviderName];
      await this.#tell(name, { channel, provider }, 1, false, now());
    }
  }

  async #window(): Promise<[name: string, way: Way, counts: Counts][]> {
    const { redis, now, windowMs } = this.#parts;
    const last = Math.floor(now() / slotMs);
    const pipeline = redis.pipeline();
    const slots = Math.ceil(windowMs / slotMs);
    for (let slot = last - slots; slot <= last; slot++) pipeline.hgetall(keys.slot(slot));
    const sums = new Map<string, Counts>();
    for (const [error, fields] of (await pipeline.exec()) ?? []) {
      if (error) throw error;
      for (const [field, count] of Object.entries(fields as Record<string, string>)) {
        const at = field.lastIndexOf(':');
        const name = field.slice(0, at);
        const sum = sums.get(name) ?? { ok: 0, failed: 0 };
        sum[field.slice(at + 1) === 'ok' ? 'ok' : 'failed'] += Number(count);
        sums.set(name, sum);
      }
    }
    return [...sums].map(([name, counts]) => {
      const [channel, provider] = name.split(':') as [Channel, MessageProviderName];
      return [name, { channel, provider }, counts];
    });
  }

  /** First the feed: should this process die between the two, it is told twice rather than never. */
  async #tell(name: string, way: Way, rate: number, isBad: boolean, at: number): Promise<void> {
    const { redis, sosRedis } = this.#parts;
    const data = JSON.stringify({ ...way, rate: Math.round(rate * 1000) / 1000, recovered: !isBad });
    const trim = ['MAXLEN', '~', feedMaxLength] as const;
    await sosRedis.xadd(feedKeys.stream, ...trim, '*', 'kind', 'notify.degraded', 'at', at, 'data', data);
    if (isBad) await redis.sadd(keys.bad, name);
    else await redis.srem(keys.bad, name);
  }
}
