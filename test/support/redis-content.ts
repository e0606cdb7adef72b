import { Redis } from 'ioredis';

/** A connection to a test's Redis (url or socket path) that holds nothing open once it is disconnected. */
export async function withRedis<T>(url: string | undefined, use: (redis: Redis) => Promise<T>): Promise<T> {
  const redis = new Redis(url ?? '', { disconnectTimeout: 50, maxRetriesPerRequest: 1 });
  try {
    return await use(redis);
  } finally {
    redis.disconnect();
  }
}

async function read(redis: Redis, key: string): Promise<unknown> {
  switch (await redis.type(key)) {
    case 'string':
      return redis.get(key);
    case 'hash':
      return redis.hgetall(key);
    case 'list':
      return redis.lrange(key, 0, -1);
    case 'set':
      return redis.smembers(key);
    case 'zset':
      return redis.zrange(key, 0, -1, 'WITHSCORES');
    case 'stream':
      return redis.xrange(key, '-', '+');
    default:
      return null;
  }
}

/** Everything that a Redis holds: a line for each key with its value. */
export const redisContent = (url: string | undefined): Promise<string[]> =>
  withRedis(url, async (redis) => {
    const keys = await redis.keys('*');
    return Promise.all(keys.map(async (key) => `${key} ${JSON.stringify(await read(redis, key))}`));
  });
