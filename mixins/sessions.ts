import type { Redis } from 'ioredis';
import type { Service } from 'moleculer';
import type { Role } from '../contracts/common.ts';
import { brokerConfig } from '../lib/broker-config.ts';
import type { Mixin } from '../lib/define-service.ts';
import { AppError } from '../lib/errors.ts';
import { randomId } from '../lib/ids.ts';
import type { Caller } from '../lib/permissions.ts';
import type { Secret } from '../lib/secret.ts';
import { issueToken, readToken } from '../lib/session-token.ts';
import { redis } from './redis.ts';

/**
 * Sessions in Redis: a hash for each user with a field for each session (`s:<id>` → when it ends, ms) and the
 * user's role, so one round trip says whether a token is good and what its holder may do now.
 */
export interface Sessions {
  create(userId: string, role: Role): Promise<{ token: string; sessionId: string; expiresAt: number }>;
  /** The holder of a token. UNAUTHENTICATED when it is not good, SESSION_STORE_UNAVAILABLE when Redis cannot say. */
  resolve(token: string | undefined): Promise<Caller>;
  revoke(userId: string, sessionId: string): Promise<void>;
  revokeAll(userId: string): Promise<void>;
  /** Tokens in use have the new role from now on. */
  setRole(userId: string, role: Role): Promise<void>;
}

const keyOf = (userId: string) => `sessions:{${userId}}`;

function sessionsOn(connection: Redis, secrets: Secret<readonly string[]>, ttlMs: number): Sessions {
  return {
    async create(userId, role) {
      const sessionId = randomId();
      const expiresAt = Date.now() + ttlMs;
      const key = keyOf(userId);
      const old = await connection.hgetall(key);
      const expired = Object.keys(old).filter(
        (field) => field.startsWith('s:') && Number(old[field]) < Date.now(),
      );
      const transaction = connection
        .multi()
        .hset(key, `s:${sessionId}`, expiresAt, 'role', role)
        .pexpire(key, ttlMs);
      if (expired.length > 0) transaction.hdel(key, ...expired);
      const results = await transaction.exec();
      const failed = results?.find(([error]) => error);
      if (!results || failed) throw new AppError('SESSION_STORE_UNAVAILABLE', { retryAfterS: 1 });
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
    async revoke(userId, sessionId) {
      await connection.hdel(keyOf(userId), `s:${sessionId}`);
    },
    async revokeAll(userId) {
      await connection.del(keyOf(userId));
    },
    async setRole(userId, role) {
      const key = keyOf(userId);
      if ((await connection.exists(key)) === 1) await connection.hset(key, 'role', role);
    },
  };
}

/** `this.sessions`, on the main Redis. Not behind an action: a door must know who knocks with no other service alive. */
export const sessions = (): Mixin<{ sessions: Sessions; redis: Redis }> => ({
  mixins: [redis()],
  created(this: Service & { redis?: Redis }) {
    const { sessionSecret, sessionTtlHours } = brokerConfig(this.broker);
    if (this.redis)
      Object.assign(this, { sessions: sessionsOn(this.redis, sessionSecret, sessionTtlHours * 3_600_000) });
  },
});
