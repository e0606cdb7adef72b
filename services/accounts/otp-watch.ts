/** Counts codes that were sent and used, by country and window of 10 minutes, for all processes; tells once when it looks like pumping. */
import type { RedisConnection } from '../../lib/redis-client.ts';
import { type CodesUsed, isSpike } from './otp-defence.ts';

export const windowMs = 600_000;

/**
 * KEYS: this window's counts, those of the one before. ARGV: field, ms until they go. Answers requested and used, of now and before,
 * and whether the alarm was raised already.
 */
const countScript = `
redis.call('HINCRBY', KEYS[1], ARGV[1], 1)
redis.call('PEXPIRE', KEYS[1], ARGV[2])
local now = redis.call('HMGET', KEYS[1], 'requested', 'used', 'alarmed')
local before = redis.call('HMGET', KEYS[2], 'requested', 'used')
return { tonumber(now[1] or 0), tonumber(now[2] or 0), tonumber(before[1] or 0), tonumber(before[2] or 0), tonumber(now[3] or 0) }`;

export interface OtpWatch {
  /** A code goes to a number of this country. Resolves to what the window looks like, when it has just become a spike. */
  requested(country: string): Promise<CodesUsed | null>;
  /** A code of such a number was used. */
  used(country: string): Promise<void>;
}

export function otpWatch(redis: RedisConnection, options: { least: number; clock?: () => number }): OtpWatch {
  const { least, clock = Date.now } = options;
  const keyOf = (country: string, window: number) => `otp-watch:{${country}}:${window}`;
  async function count(country: string, field: 'requested' | 'used'): Promise<[string, number[]]> {
    const window = Math.floor(clock() / windowMs);
    const key = keyOf(country, window);
    const counts = await redis.eval(countScript, 2, key, keyOf(country, window - 1), field, 3 * windowMs);
    return [key, counts as number[]];
  }
  return {
    async requested(country) {
      const [key, [requested = 0, used = 0, earlier = 0, usedEarlier = 0, alarmed = 0]] = await count(
        country,
        'requested',
      );
      const now = { requested, used };
      if (alarmed > 0 || !isSpike(now, { requested: earlier, used: usedEarlier }, least)) return null;
      return (await redis.hsetnx(key, 'alarmed', 1)) === 1 ? now : null;
    },
    async used(country) {
      await count(country, 'used');
    },
  };
}
