import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import type { Redis } from 'ioredis';
import { feedKeys } from '../../lib/feed-stream.ts';
import { makeRoom, type Room } from '../../services/sos/make-room.ts';
import { readPress } from '../../services/sos/read-press.ts';
import { SosRecords } from '../../services/sos/records.ts';
import { sosKeys } from '../../services/sos/sos-keys.ts';
import { startTestRedis, type TestRedis } from '../support/redis.ts';

const day = 86_400_000;
let server: TestRedis;
let redis: Redis;
let records: SosRecords;
let counter = 0;

beforeAll(async () => {
  server = await startTestRedis();
  redis = server.connect();
  records = new SosRecords(redis, { replicas: 0, replicaWithinMs: 0 });
});
beforeEach(async () => {
  await redis.config('SET', 'maxmemory', '0');
  await redis.flushall();
});
afterAll(() => server.stop());

const usedBytes = async () => Number(/^used_memory:(\d+)/m.exec(await redis.info('memory'))?.[1]);
/** As if its memory were used to this share. */
const tighten = async (share: number) =>
  redis.config('SET', 'maxmemory', Math.floor((await usedBytes()) / share));

async function fillFeed(events: number): Promise<void> {
  const pipeline = redis.pipeline();
  for (let n = 0; n < events; n++)
    pipeline.xadd(feedKeys.stream, `${n + 1}-0`, 'kind', 'k', 'at', n, 'data', '{}');
  await pipeline.exec();
}

/** An alert that was accepted, and perhaps ended, so long ago; the database may have it. */
async function alert(ago: { acceptedMs: number; endedMs?: number; copied?: boolean }): Promise<string> {
  const { acceptedMs, endedMs, copied = true } = ago;
  const now = Date.now();
  const press = readPress(
    { key: `k${++counter}` },
    { id: `usr_${counter}`, standing: 'live' },
    now - acceptedMs,
  );
  const { alertId } = await records.take(press);
  if (endedMs !== undefined) await redis.hset(sosKeys.alert(alertId), 'endedAt', now - endedMs);
  await redis.zrem(sosKeys.unprocessed, alertId);
  const record = await records.read(alertId);
  if (copied && record) await records.projected([record]);
  return alertId;
}

const isThere = async (alertId: string) =>
  (await redis.exists(sosKeys.alert(alertId), sosKeys.log(alertId))) === 2;

describe('a SOS Redis that is short of memory', () => {
  test('+ takes alerts again before it is full: the oldest events go first, as many as it takes', async () => {
    await fillFeed(150_001);
    const over = await alert({ acceptedMs: 3 * day, endedMs: 2 * day });
    await tighten(0.74);
    expect(await makeRoom(redis, records, Date.now())).toMatchObject({ events: 0, alerts: 0 });

    await tighten(1.1);
    const press = readPress({ key: 'late' }, { id: 'usr_late', standing: 'live' }, Date.now());
    await expect(records.take(press)).rejects.toThrow('OOM');
    const made: Room[] = [];
    do made.push(await makeRoom(redis, records, Date.now()));
    while ((made.at(-1)?.events ?? 0) > 0);
    expect(made[0]).toMatchObject({ events: 100_000, alerts: 0 });
    expect(made.at(-1)?.share).toBeLessThan(0.75);
    expect(await redis.xlen(feedKeys.stream)).toBeGreaterThanOrEqual(50_000);
    const [newest] = await redis.xrevrange(feedKeys.stream, '+', '-', 'COUNT', 1);
    expect(newest?.[1]).toContain('sos.triggered');
    expect(await isThere(over)).toBe(true);
    expect(await records.take(press)).toMatchObject({ how: 'new' });
  });

  test('+ then alerts go that ended a day ago and are in the database, and no others', async () => {
    const stay = [
      await alert({ acceptedMs: 3 * day }),
      await alert({ acceptedMs: 3 * day, endedMs: day / 2 }),
      await alert({ acceptedMs: 3 * day, endedMs: 2 * day, copied: false }),
      await alert({ acceptedMs: 1000 }),
    ];
    const go = [
      await alert({ acceptedMs: 4 * day, endedMs: 2 * day }),
      await alert({ acceptedMs: 2 * day, endedMs: 1.5 * day }),
    ];
    // One that has changed since the database took it
    const changed = await alert({ acceptedMs: 3 * day, endedMs: 2 * day });
    await redis.zadd(sosKeys.unprojected, Date.now(), changed);
    await tighten(1.1);
    expect(await makeRoom(redis, records, Date.now())).toMatchObject({ events: 0, alerts: go.length });
    for (const each of [...stay, changed]) expect(await isThere(each)).toBe(true);
    for (const each of go) {
      expect(await isThere(each)).toBe(false);
      expect(await redis.zscore(sosKeys.all, each)).toBeNull();
    }
  });

  test('+ looks behind alerts that nobody has ended', async () => {
    const open = await Promise.all(Array.from({ length: 1500 }, () => alert({ acceptedMs: 5 * day })));
    const over = await Promise.all(
      Array.from({ length: 600 }, () => alert({ acceptedMs: 3 * day, endedMs: 2 * day })),
    );
    expect(await records.dropEnded(Date.now() - day, 500)).toBe(500);
    expect(await records.dropEnded(Date.now() - day, 500)).toBe(over.length - 500);
    expect(await redis.zcard(sosKeys.all)).toBe(open.length);
  });

  test('without a limit there is nothing to do', async () => {
    await fillFeed(50_001);
    expect(await makeRoom(redis, records, Date.now())).toEqual({ share: 0, events: 0, alerts: 0 });
  });
});
