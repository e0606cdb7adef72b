import { RateLimiterMemory, RateLimiterRedis, RateLimiterRes } from 'rate-limiter-flexible';
import type { ErrorCode } from '../contracts/errors.ts';
import { AppError } from './errors.ts';
import type { RedisConnection } from './redis-client.ts';

/** Counts one use of `key`; refuses with the limiter's code and `retryAfterS` when the window is full. */
export interface RateLimit {
  (key: string): Promise<void>;
  /** Gives one use of `key` back. */
  giveBack(key: string): Promise<void>;
}

/**
 * `points` uses in each window of `durationS`, counted in Redis for all processes. Without Redis each process
 * counts for itself: a limit must not become an outage.
 */
export function rateLimit(
  redis: RedisConnection,
  options: { name: string; points: number; durationS: number; code?: ErrorCode },
): RateLimit {
  const { name, points, durationS, code = 'RATE_LIMITED' } = options;
  const common = { keyPrefix: `limit:${name}`, points, duration: durationS };
  const limiter = new RateLimiterRedis({
    ...common,
    storeClient: redis,
    // At once, not after a command has timed out: a door asks several limits for one request
    rejectIfRedisNotReady: true,
    insuranceLimiter: new RateLimiterMemory(common),
  });
  const use = async (key: string) => {
    try {
      await limiter.consume(key);
    } catch (error) {
      if (!(error instanceof RateLimiterRes)) throw error;
      throw new AppError(code, { retryAfterS: Math.max(1, Math.ceil(error.msBeforeNext / 1000)) });
    }
  };
  const giveBack = async (key: string) => {
    // Below nothing used there is nothing to give: else whoever signs in often could ask without end
    const used = await limiter.get(key);
    if (used && used.consumedPoints > 0) await limiter.reward(key);
  };
  return Object.assign(use, { giveBack });
}
