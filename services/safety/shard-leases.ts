import type { Result } from 'ioredis';
import type { RedisConnection } from '../../lib/redis-client.ts';

const keys = {
  /** Sorted set: reader → until when it is taken for alive, ms of this Redis. */
  readers: '{safety}:readers',
  /** Hash: shard → its reader; counts as long as that one is alive. */
  shards: '{safety}:shards',
};

/**
 * KEYS: readers, shards. ARGV: reader, ms for which it is alive, number of shards. Answers the time of this Redis in ms, then the
 * reader's shards: what is beyond its fair share it gives away, what nobody alive has it takes.
 */
const shareScript = `
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), ARGV[1])
local alive, readers = {}, redis.call('ZRANGE', KEYS[1], 0, -1)
for _, reader in ipairs(readers) do alive[reader] = true end
local count = tonumber(ARGV[3])
local fair = math.ceil(count / #readers)
local owners, flat = {}, redis.call('HGETALL', KEYS[2])
for i = 1, #flat, 2 do owners[flat[i]] = flat[i + 1] end
local mine, free = {}, {}
for n = 0, count - 1 do
  local shard = tostring(n)
  if owners[shard] == ARGV[1] then
    if #mine < fair then mine[#mine + 1] = n else redis.call('HDEL', KEYS[2], shard) end
  elseif not alive[owners[shard] or ''] then
    free[#free + 1] = n
  end
end
for _, n in ipairs(free) do
  if #mine == fair then break end
  redis.call('HSET', KEYS[2], n, ARGV[1])
  mine[#mine + 1] = n
end
return {now, unpack(mine)}`;

declare module 'ioredis' {
  interface RedisCommander<Context> {
    shareSafetyShards(...args: (string | number)[]): Result<number[], Context>;
  }
}

/**
 * Who reads which shard: each has one reader at a time, readers have equally many, and a dead one's are taken over. A reader that is
 * slow may for a moment still read what another has taken: questions are asked once whoever asks.
 */
export class ShardLeases {
  readonly #redis: RedisConnection;
  readonly #options: { reader: string; leaseMs: number; shards: number };

  constructor(redis: RedisConnection, options: { reader: string; leaseMs: number; shards: number }) {
    this.#redis = redis;
    this.#options = options;
    redis.defineCommand('shareSafetyShards', { numberOfKeys: 2, lua: shareScript });
  }

  /** A sign of life. Answers the time of Redis, ms, and which shards are this reader's now. */
  async renew(): Promise<{ now: number; shards: number[] }> {
    const { reader, leaseMs, shards } = this.#options;
    const [now = 0, ...mine] = await this.#redis.shareSafetyShards(
      keys.readers,
      keys.shards,
      reader,
      leaseMs,
      shards,
    );
    return { now, shards: mine };
  }

  /** The others may take over at once. */
  async release(): Promise<void> {
    await this.#redis.zrem(keys.readers, this.#options.reader);
  }
}
