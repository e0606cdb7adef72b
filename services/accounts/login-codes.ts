import { randomInt } from 'node:crypto';
import type { Config } from '../../lib/config.ts';
import { AppError } from '../../lib/errors.ts';
import { keyedHash } from '../../lib/pins.ts';
import { type RateLimit, rateLimit } from '../../lib/rate-limit.ts';
import type { RedisConnection } from '../../lib/redis-client.ts';
import { replicated } from '../../lib/replicated.ts';
import { countryOf, isAllowedCountry, networkOf, prefixOf } from './otp-defence.ts';

/**
 * KEYS: the code's record. ARGV: hash of what was typed, most tries. A right code is used up; a wrong one counts.
 * One script, so that ten guesses at once are ten tries.
 */
const tryScript = `
local stored = redis.call('HGET', KEYS[1], 'hash')
if not stored then return 'none' end
local tries = redis.call('HINCRBY', KEYS[1], 'tries', 1)
if tries > tonumber(ARGV[2]) then return 'locked' end
if stored ~= ARGV[1] then
  if tries == tonumber(ARGV[2]) then return 'locked' end
  return 'wrong'
end
local network = redis.call('HGET', KEYS[1], 'network') or ''
redis.call('DEL', KEYS[1])
return 'right ' .. network`;

/** A login code: 6 digits, each as likely as any other. */
export const newCode = (): string => String(randomInt(1_000_000)).padStart(6, '0');

/**
 * Codes for signing in: hashed in Redis, short-lived, few tries; not too often for one number, for numbers that begin alike, for one
 * address or network; only to numbers of countries that are served. Whether a number is known makes no difference to any of it.
 */
export interface LoginCodes {
  /**
   * A new code for the number (E.164), replacing an older one. OTP_COUNTRY_REFUSED; OTP_RESEND_TOO_SOON or OTP_TOO_MANY when
   * asked too often.
   */
  issue(phone: string, ip: string): Promise<string>;
  /** Uses the code up. OTP_INVALID or OTP_LOCKED. */
  use(phone: string, code: string): Promise<void>;
}

export function loginCodes(redis: RedisConnection, config: Config): LoginCodes {
  const { hashSecret, otpTtlS, otpMaxTries, otpResendS } = config;
  const limits = { durationS: 3600, code: 'OTP_TOO_MANY' } as const;
  const perNumber: RateLimit = rateLimit(redis, {
    name: 'otp-number',
    points: config.otpPerNumberPerHour,
    ...limits,
  });
  const perIp: RateLimit = rateLimit(redis, { name: 'otp-ip', points: config.otpPerIpPerHour, ...limits });
  const perPrefix = rateLimit(redis, { name: 'otp-prefix', points: config.otpPerPrefixPerHour, ...limits });
  const perNetwork = rateLimit(redis, {
    name: 'otp-network',
    points: config.otpPerNetworkPerHour,
    ...limits,
  });
  // The number itself is in no key
  const keyOf = (phone: string) => `otp:{${keyedHash(hashSecret, phone)}}`;
  /** Neither is the beginning of one, which is most of it. */
  const prefixKey = (phone: string) => keyedHash(hashSecret, prefixOf(phone));
  const codeHash = (phone: string, code: string) => keyedHash(hashSecret, `${phone}:${code}`);

  return {
    async issue(phone, ip) {
      const key = keyOf(phone);
      if (!isAllowedCountry(countryOf(phone), config.otpCountries, config.phoneRegion))
        throw new AppError('OTP_COUNTRY_REFUSED');
      const network = networkOf(ip);
      await perIp(ip);
      await perNetwork(network);
      const first = await redis.set(`${key}:resend`, '1', 'EX', otpResendS, 'NX');
      if (first === null) {
        const waitMs = await redis.pttl(`${key}:resend`);
        throw new AppError('OTP_RESEND_TOO_SOON', { retryAfterS: Math.max(1, Math.ceil(waitMs / 1000)) });
      }
      await perNumber(key);
      await perPrefix(prefixKey(phone));
      const code = newCode();
      // The code that is sent must still be known when the primary has died meanwhile
      const { kept } = await replicated(redis, key, (primary) =>
        primary
          .multi()
          .del(key)
          .hset(key, 'hash', codeHash(phone, code), 'tries', 0, 'network', network)
          .expire(key, otpTtlS)
          .exec(),
      );
      if (!kept) throw new AppError('UNAVAILABLE', { retryAfterS: 2 });
      return code;
    },
    async use(phone, code) {
      const outcome = await redis.eval(tryScript, 1, keyOf(phone), codeHash(phone, code), otpMaxTries);
      if (typeof outcome === 'string' && outcome.startsWith('right')) {
        const network = outcome.slice('right '.length);
        // A limit that stays a little lower harms nobody; a sign-in that fails for it would
        await Promise.allSettled([perPrefix.giveBack(prefixKey(phone)), perNetwork.giveBack(network)]);
        return;
      }
      if (outcome !== 'locked') throw new AppError('OTP_INVALID');
      const waitMs = await redis.pttl(`${keyOf(phone)}:resend`);
      throw new AppError('OTP_LOCKED', { retryAfterS: Math.max(1, Math.ceil(waitMs / 1000)) });
    },
  };
}
