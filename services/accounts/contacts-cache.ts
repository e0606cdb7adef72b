/**
 * The emergency contacts of each user in Redis, sealed, with the version of the record that they come from. A slow
 * reader cannot put back what a newer write replaced, and a writer that dies half-way leaves no old contacts behind:
 * it fences the cache before it writes to the DB.
 */
import type { RedisConnection } from '../../lib/redis-client.ts';

export interface ContactsCache {
  /** The sealed contacts; null when they must be read from the DB. */
  read(userId: string): Promise<string | null>;
  /** Keeps what a record of this version has, unless the cache knows or awaits a newer one. */
  fill(userId: string, version: number, sealed: string): Promise<void>;
  /** From here on nothing older than `version` is kept or read. For writers, before they write to the DB. */
  fence(userId: string, version: number): Promise<void>;
}

const keyOf = (userId: string) => `contacts:{${userId}}`;

/** As long as a session lasts, s. */
const keptForS = 86_400;
/** If the writer then writes nothing, s: longer than any reader is on its way. */
const fencedForS = 60;

const fillScript = `
if tonumber(redis.call('HGET', KEYS[1], 'version') or '0') > tonumber(ARGV[1]) then return 0 end
redis.call('HSET', KEYS[1], 'version', ARGV[1], 'sealed', ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[3])
return 1`;

const fenceScript = `
if tonumber(redis.call('HGET', KEYS[1], 'version') or '0') >= tonumber(ARGV[1]) then return 0 end
redis.call('HSET', KEYS[1], 'version', ARGV[1])
redis.call('HDEL', KEYS[1], 'sealed')
redis.call('EXPIRE', KEYS[1], ARGV[2])
return 1`;

export const contactsCache = (redis: RedisConnection): ContactsCache => ({
  read: (userId) => redis.hget(keyOf(userId), 'sealed'),
  async fill(userId, version, sealed) {
    await redis.eval(fillScript, 1, keyOf(userId), version, sealed, keptForS);
  },
  async fence(userId, version) {
    await redis.eval(fenceScript, 1, keyOf(userId), version, fencedForS);
  },
});
