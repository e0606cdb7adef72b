import { createHash } from 'node:crypto';
import type { Redis, Result } from 'ioredis';
import type { Service } from 'moleculer';
import { brokerConfig } from '../lib/broker-config.ts';
import type { Mixin } from '../lib/define-service.ts';
import { AppError } from '../lib/errors.ts';
import { randomId } from '../lib/ids.ts';

/**
 * What a link shows: a trip, or an alert with its trip if it has one. It belongs to the alert then: the end of the trip does not
 * end it, and nobody who looks at the trip's links sees it. Times in ms.
 */
export interface Share {
  tripId: string | null;
  alertId: string | null;
  /** Who shares. */
  userId: string;
  createdAt: number;
  expiresAt: number;
  /** What is kept of the token; good for naming the link, not for watching. */
  hash: string;
}

export type NewShare = {
  userId: string;
  ttlMs: number /** More than so many at once are refused. */;
  max?: number;
} & ({ tripId: string; alertId?: string } | { tripId?: string; alertId: string });

/**
 * Links that let somebody watch without a login, on the SOS Redis: with nothing else alive an alert's contacts can still be
 * sent one, and follow it. Each ends by itself.
 */
export interface Shares {
  /** TOO_MANY_SHARES when the trip or the alert has `max` already. The token is shown this once. */
  create(share: NewShare): Promise<{ token: string; url: string; expiresAt: number; hash: string }>;
  /** What a token shows; null when it never was good, or is not any more. */
  resolve(token: unknown): Promise<Share | null>;
  /** The same for what is kept of a token. */
  byHash(hash: string): Promise<Share | null>;
  /** The links of a trip or an alert that work, oldest first. */
  list(subjectId: string): Promise<Share[]>;
  /** Ends a link, named by its hash or its token. Answers its hash, or null when that trip or alert has no such link. */
  revoke(subjectId: string, hashOrToken: string): Promise<string | null>;
  /** Lets the links of a trip or an alert go on for `graceMs` at most. */
  endWithin(subjectId: string, graceMs: number): Promise<void>;
  /** Ends all links of a trip or an alert; answers their hashes. */
  revokeAll(subjectId: string): Promise<string[]>;
}

/** Links show the end of a trip for so long, ms. */
export const shareGraceMs = 10 * 60_000;

/** 134 random bits. Letters and digits only, since phones cut other characters off a link's end. */
const tokenShape = /^shr_[0-9a-z]{26}$/;
const newToken = () => `shr_${randomId(26)}`;

/** A token cannot be guessed, so a plain hash does not give it away. */
const hashOf = (token: string) => createHash('sha256').update(token).digest('base64url');

/** Hash: the fields of a share. Gone when it ends. */
const shareKey = (hash: string) => `share:${hash}`;
/**
 * Sorted set of a trip's or an alert's shares: hash → its end, ms. Gone with the last. An alert's link is its alert's alone,
 * also when it shows a trip: whoever holds the rider's phone must not find it in a list, end it there, or miss its place.
 */
const indexKey = (subjectId: string) => `shares:${subjectId}`;

const now = `
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)`;

/** KEYS: share, index. ARGV: hash, ttl, max (0: any), trip, alert, user. Answers when it ends; false when there are `max`. */
const createScript = `${now}
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
local max = tonumber(ARGV[3])
if max > 0 and redis.call('ZCARD', KEYS[2]) >= max then return false end
local ends = now + tonumber(ARGV[2])
redis.call('HSET', KEYS[1], 'tripId', ARGV[4], 'alertId', ARGV[5], 'userId', ARGV[6], 'createdAt', now, 'expiresAt', ends)
redis.call('PEXPIREAT', KEYS[1], ends)
redis.call('ZADD', KEYS[2], ends, ARGV[1])
local last = redis.call('ZRANGE', KEYS[2], -1, -1, 'WITHSCORES')
redis.call('PEXPIREAT', KEYS[2], last[2])
return ends`;

/** KEYS: index, shares. ARGV: hashes in the same order. */
const revokeScript = `
for i = 2, #KEYS do
  redis.call('ZREM', KEYS[1], ARGV[i - 1])
  redis.call('DEL', KEYS[i])
end`;

/** KEYS: index, shares. ARGV: grace, hashes in the same order. An end only ever comes nearer. */
const endScript = `${now}
local ends = now + tonumber(ARGV[1])
for i = 2, #KEYS do
  local before = redis.call('HGET', KEYS[i], 'expiresAt')
  if before and tonumber(before) > ends then
    redis.call('HSET', KEYS[i], 'expiresAt', ends)
    redis.call('PEXPIREAT', KEYS[i], ends)
    redis.call('ZADD', KEYS[1], ends, ARGV[i])
  end
end`;

declare module 'ioredis' {
  interface RedisCommander<Context> {
    createShare(...args: (string | number)[]): Result<number | null, Context>;
  }
}

function sharesOn(redis: Redis, publicUrl: string): Shares {
  // A burst of alerts makes thousands at once: by its hash, the script is not sent each time
  redis.defineCommand('createShare', { numberOfKeys: 2, lua: createScript });
  async function read(hash: string): Promise<Share | null> {
    const { tripId, alertId, userId, createdAt, expiresAt } = await redis.hgetall(shareKey(hash));
    if (!userId) return null;
    return {
      tripId: tripId || null,
      alertId: alertId || null,
      userId,
      createdAt: Number(createdAt),
      expiresAt: Number(expiresAt),
      hash,
    };
  }
  const hashesOf = (subjectId: string) => redis.zrange(indexKey(subjectId), 0, -1);
  const end = (subjectId: string, hashes: string[]) =>
    redis.eval(revokeScript, 1 + hashes.length, indexKey(subjectId), ...hashes.map(shareKey), ...hashes);

  return {
    async create({ userId, ttlMs, max = 0, tripId = '', alertId = '' }) {
      const token = newToken();
      const hash = hashOf(token);
      const keys = [shareKey(hash), indexKey(alertId || tripId)];
      const expiresAt = await redis.createShare(...keys, hash, ttlMs, max, tripId, alertId, userId);
      if (typeof expiresAt !== 'number') throw new AppError('TOO_MANY_SHARES');
      return { token, url: `${publicUrl}/share/${token}`, expiresAt, hash };
    },
    async resolve(token) {
      return typeof token === 'string' && tokenShape.test(token) ? read(hashOf(token)) : null;
    },
    byHash: read,
    async list(subjectId) {
      const found = await Promise.all((await hashesOf(subjectId)).map(read));
      return found.filter((share) => share !== null).toSorted((a, b) => a.createdAt - b.createdAt);
    },
    async revoke(subjectId, hashOrToken) {
      const hash = tokenShape.test(hashOrToken) ? hashOf(hashOrToken) : hashOrToken;
      if ((await redis.zscore(indexKey(subjectId), hash)) === null) return null;
      await end(subjectId, [hash]);
      return hash;
    },
    async endWithin(subjectId, graceMs) {
      const hashes = await hashesOf(subjectId);
      if (hashes.length === 0) return;
      const keys = [indexKey(subjectId), ...hashes.map(shareKey)];
      await redis.eval(endScript, keys.length, ...keys, graceMs, ...hashes);
    },
    async revokeAll(subjectId) {
      const hashes = await hashesOf(subjectId);
      if (hashes.length > 0) await end(subjectId, hashes);
      return hashes;
    },
  };
}

/** `this.shares`, for a service that has `redis('sos')` too, behind it in its list. */
export const shares = (): Mixin<{ shares: Shares }> => ({
  created(this: Service & { sosRedis: Redis; shares?: Shares }) {
    const { publicUrl, apiPort } = brokerConfig(this.broker);
    this.shares = sharesOn(this.sosRedis, (publicUrl ?? `http://localhost:${apiPort}`).replace(/\/$/, ''));
  },
});
