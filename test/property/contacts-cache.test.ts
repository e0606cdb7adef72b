import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import * as fc from 'fast-check';
import type { Redis } from 'ioredis';
import { type ContactsCache, contactsCache } from '../../services/accounts/contacts-cache.ts';
import { startTestRedis, type TestRedis } from '../support/redis.ts';

let server: TestRedis;
let redis: Redis;
let cache: ContactsCache;
beforeAll(async () => {
  server = await startTestRedis();
  redis = server.connect();
  cache = contactsCache(redis);
});
afterAll(() => server.stop());

/** A user's record, and the two ways in which accounts goes about it; each step waits for its turn. */
function accountsOn(scheduler: fc.Scheduler, userId: string) {
  let record = { version: 1, sealed: 'contacts 1' };
  const step = <T>(name: string, act: () => Promise<T>): Promise<T> =>
    scheduler.schedule(Promise.resolve(), name).then(act);
  return {
    record: () => record,
    /** Dies after so many steps of four. */
    async write(sealed: string, steps: number): Promise<void> {
      for (;;) {
        const { version } = await step('read the record', async () => record);
        if (steps > 1) await step('fence', () => cache.fence(userId, version + 1));
        if (steps <= 2) return;
        const wrote = await step('write the record', async () => {
          if (record.version !== version) return false;
          record = { version: version + 1, sealed };
          return true;
        });
        if (!wrote) continue;
        const mine = record;
        if (steps > 3) await step('fill', () => cache.fill(userId, mine.version, mine.sealed));
        return;
      }
    },
    async read(): Promise<string> {
      const cached = await step('read the cache', () => cache.read(userId));
      if (cached !== null) return cached;
      const found = await step('read the record', async () => record);
      await step('fill', () => cache.fill(userId, found.version, found.sealed));
      return found.sealed;
    },
  };
}

const write = fc.record({ steps: fc.integer({ min: 1, max: 4 }) });
const act = fc.oneof(write, fc.constant('read' as const));

let users = 0;

describe('the contacts cache', () => {
  test('P8 R8.3 whatever overlaps or dies half-way, who asks after a change gets that change or a newer one', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.scheduler(),
        fc.array(act, { minLength: 1, maxLength: 8 }),
        async (scheduler, acts) => {
          const userId = `usr_${++users}`;
          const accounts = accountsOn(scheduler, userId);
          const under = acts.map(async (one, n) => {
            if (one !== 'read') return accounts.write(`contacts of ${n}`, one.steps);
            await scheduler.schedule(Promise.resolve(), 'begin');
            const since = accounts.record();
            const got = await accounts.read();
            // Nothing older than what was there when it asked, unless that was written meanwhile
            if (since.version === accounts.record().version) expect(got).toBe(since.sealed);
          });
          await scheduler.waitFor(Promise.all(under));
          // All is quiet: whoever asks now, and again from the cache, gets what the DB has
          const late = [accounts.read(), accounts.read()];
          await scheduler.waitFor(Promise.all(late));
          const asked = accounts.read();
          await scheduler.waitFor(asked);
          expect([...(await Promise.all(late)), await asked]).toEqual(
            Array(3).fill(accounts.record().sealed),
          );
          await redis.del(`contacts:{${userId}}`);
        },
      ),
      { numRuns: 150 },
    );
  }, 30_000);

  test('R8.3 a fence that nobody filled is gone after a minute, contacts after a day', async () => {
    await cache.fence('usr_fenced', 7);
    expect(await redis.ttl('contacts:{usr_fenced}')).toBeGreaterThan(50);
    expect(await redis.ttl('contacts:{usr_fenced}')).toBeLessThanOrEqual(60);
    await cache.fill('usr_fenced', 7, 'sealed');
    expect(await redis.ttl('contacts:{usr_fenced}')).toBeGreaterThan(86_000);
    expect(await cache.read('usr_fenced')).toBe('sealed');
  });
});
