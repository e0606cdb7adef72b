import type { Redis } from 'ioredis';
import type { Service } from 'moleculer';
import type { Role } from '../contracts/common.ts';
import { brokerConfig } from '../lib/broker-config.ts';
import type { Mixin } from '../lib/define-service.ts';
import { AppError } from '../lib/errors.ts';
import { randomId } from '../lib/ids.ts';
import type { Caller } from '../lib/permissions.ts';
import type { RedisConnection } from '../lib/redis-client.ts';
import { replicated } from '../lib/replicated.ts';
import type { Secret } from '../lib/secret.ts';
import { issueToken, readToken } from '../lib/session-token.ts';
import { redis } from './redis.ts';

/**
 * Sessions in Redis: a hash for each user with a field for each session (`s:<id>` → when it ends, ms) and the
 * user's role, so one round trip says whether a token is good and what its holder may do now.
 */
export interface Sessions {
  /** `roleVersion`: of the record that the role comes from; an older one never replaces a newer. */
  create(
    userId: string,
    role: Role,
    roleVersion: number,
  ): Promise<{ token: string; sessionId: string; expiresAt: number }>;
  /** The holder of a token. UNAUTHENTICATED when it is not good, SESSION_STORE_UNAVAILABLE when Redis cannot say. */
  resolve(token: string | undefined): Promise<Caller>;
  /**
   * Like `resolve`, for SOS: whoever ever had a session is let in. `standing` says what is known of it; Redis gets 50 ms
   * to tell. UNAUTHENTICATED for what is no token of ours.
   */
  admit(token: string | undefined): Promise<Caller & { standing: 'live' | 'ended' | 'unknown' }>;
  revoke(userId: string, sessionId: string): Promise<void>;
  revokeAll(userId: string): Promise<void>;
  /** Tokens in use have the new role from now on. */
  setRole(userId: string, role: Role, roleVersion: number): Promise<void>;
  /**
   * Users whose sessions or role changed after `cursor` (an id of a Redis stream: ms and a number), and the cursor to
   * ask with the next time.
   */
  changedSince(cursor: string): Promise<{ cursor: string; users: Set<string> }>;
}

/** Every change of the last while, for whoever keeps a copy: an event alone can be lost. */
const changesKey = 'sessions:changes';
const changesKept = 100_000;

/** KEYS session hash; ARGV role, its version, then what to do with the session: field, ends at (ms), TTL (ms), now (ms). */
const createScript = `
for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
  if field:sub(1, 2) == 's:' and tonumber(redis.call('HGET', KEYS[1], field)) < tonumber(ARGV[6]) then
    redis.call('HDEL', KEYS[1], field)
  end
end
if tonumber(redis.call('HGET', KEYS[1], 'roleVersion') or '0') <= tonumber(ARGV[2]) then
  redis.call('HSET', KEYS[1], 'role', ARGV[1], 'roleVersion', ARGV[2])
end
redis.call('HSET', KEYS[1], ARGV[3], ARGV[4])
redis.call('PEXPIRE', KEYS[1], ARGV[5])
return 1`;

/** Also without a session: a login that is under way must not bring an older role. ARGV as above, but TTL third. */
const setRoleScript = `
if tonumber(redis.call('HGET', KEYS[1], 'roleVersion') or '0') > tonumber(ARGV[2]) then return 0 end
redis.call('HSET', KEYS[1], 'role', ARGV[1], 'roleVersion', ARGV[2])
if redis.call('PTTL', KEYS[1]) < 0 then redis.call('PEXPIRE', KEYS[1], ARGV[3]) end
return 1`;

const keyOf = (userId: string) => `sessions:{${userId}}`;

/** An SOS does not wait longer for a session to be looked up, ms. */
const admitWithinMs = 50;

function sessionsOn(
  connection: RedisConnection,
  secrets: Secret<readonly string[]>,
  ttlMs: number,
): Sessions {
  /** A sign-in, a sign-out and a role outlive the primary once they are answered. */
  async function kept<T>(userId: string, write: (primary: Redis) => Promise<T>): Promise<T> {
    const { value, kept: isKept } = await replicated(connection, keyOf(userId), write);
    if (!isKept) throw new AppError('SESSION_STORE_UNAVAILABLE', { retryAfterS: 2 });
    return value;
  }
  const noteChange = (userId: string) =>
    connection.xadd(changesKey, 'MAXLEN', '~', changesKept, '*', 'user', userId);

  return {
    async create(userId, role, roleVersion) {
      const sessionId = randomId();
      const now = Date.now();
      const expiresAt = now + ttlMs;
      const args = [role, roleVersion, `s:${sessionId}`, expiresAt, ttlMs, now];
      await kept(userId, (primary) => primary.eval(createScript, 1, keyOf(userId), ...args)).catch(() => {
        throw new AppError('SESSION_STORE_UNAVAILABLE', { retryAfterS: 1 });
      });
      return { token: issueToken(secrets, { userId, sessionId }), sessionId, expiresAt };
    },
    async resolve(token) {
      const identity = token === undefined ? null : readToken(secrets, token);
      if (!identity) throw new AppError('UNAUTHENTICATED');
      const { userId, sessionId } = identity;
      const [expiresAt, role] = await connection.hmget(keyOf(userId), `s:${sessionId}`, 'role').catch(() => {
        throw new AppError('SESSION_STORE_UNAVAILABLE', { retryAfterS: 1 });
      });
      if (!expiresAt || !role || Number(expiresAt) < Date.now()) throw new AppError('UNAUTHENTICATED');
      // Only create and setRole write this field
      return { id: userId, role: role as Role, sessionId };
    },
    async admit(token) {
      const identity = token === undefined ? null : readToken(secrets, token);
      if (!identity) throw new AppError('UNAUTHENTICATED');
      const { userId: id, sessionId } = identity;
      const stranger = { id, sessionId, role: 'rider' as const };
      let timer: NodeJS.Timeout | undefined;
      const late = new Promise<Caller & { standing: 'unknown' }>((resolve) => {
        // When this process itself was busy, the answer may have come meanwhile: it is read before what is due immediately
        timer = setTimeout(() => setImmediate(resolve, { ...stranger, standing: 'unknown' }), admitWithinMs);
      });
      const known = this.resolve(token).then(
        (caller) => ({ ...caller, standing: 'live' as const }),
        (error: unknown) => {
          const ended = error instanceof AppError && error.type === 'UNAUTHENTICATED';
          return { ...stranger, standing: ended ? ('ended' as const) : ('unknown' as const) };
        },
      );
      return Promise.race([known, late]).finally(() => clearTimeout(timer));
    },
    async revoke(userId, sessionId) {
      await kept(userId, (primary) => primary.hdel(keyOf(userId), `s:${sessionId}`));
      await noteChange(userId);
    },
    async revokeAll(userId) {
      await kept(userId, (primary) => primary.del(keyOf(userId)));
      await noteChange(userId);
    },
    async setRole(userId, role, roleVersion) {
      await kept(userId, (primary) =>
        primary.eval(setRoleScript, 1, keyOf(userId), role, roleVersion, ttlMs),
      );
      await noteChange(userId);
    },
    async changedSince(cursor) {
      const [stream] = (await connection.xread('STREAMS', changesKey, cursor)) ?? [];
      const entries = stream?.[1] ?? [];
      return {
        cursor: entries.at(-1)?.[0] ?? cursor,
        users: new Set(entries.flatMap(([, [, userId]]) => userId ?? [])),
      };
    },
  };
}

/** `this.sessions`, on the main Redis. Not behind an action: a door must know who knocks with no other service alive. */
export const sessions = (): Mixin<{ sessions: Sessions; redis: RedisConnection }> => ({
  mixins: [redis()],
  created(this: Service & { redis?: RedisConnection }) {
    const { sessionSecret, sessionTtlHours } = brokerConfig(this.broker);
    if (this.redis)
      Object.assign(this, { sessions: sessionsOn(this.redis, sessionSecret, sessionTtlHours * 3_600_000) });
  },
});
