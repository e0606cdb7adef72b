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
  await redis.eval(
    "for n = 1, ARGV[1] do redis.call('XADD', KEYS[1], n .. '-0', 'kind', 'k', 'at', n, 'data', '{}') end",
    1,
    feedKeys.stream,
    events,
  );
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

describe('a user who presses without end', () => {
  const press = (key: string, tripId: string | null = null) =>
    readPress(
      { key, ...(tripId === null ? {} : { tripId }) },
      { id: 'usr_many', standing: 'live' },
      Date.now(),
    );

  test('+ leaves nothing behind with each press of an open alert', async () => {
    const { alertId } = await records.take(press('first'));
    for (let n = 0; n < 300; n++)
      expect(await records.take(press(`again${n}`))).toMatchObject({ alertId, how: 'joined' });
    expect((await redis.keys('sos:alias:*')).length).toBeLessThan(101);
    expect(await redis.llen(sosKeys.log(alertId))).toBeLessThan(25);
    expect(await redis.hget(sosKeys.alert(alertId), 'presses')).toBe('301');
    // The first of them are known again
    expect(await records.take(press('again7'))).toMatchObject({ alertId, how: 'same' });
  });

  test('+ joins the newest alert that is open to them; without one it is a new one', async () => {
    const few = new SosRecords(redis, { replicas: 0, replicaWithinMs: 0, alertsPerUser: 3 });
    let n = 0;
    const raise = async () => (await few.take(press(`k${++n}`, `trp_${n}`))).alertId;
    const [first, second, third] = [await raise(), await raise(), await raise()];
    const state = (id: string | undefined, field: string) => redis.hset(sosKeys.alert(id ?? ''), field, '1');
    expect(await raise()).toBe(third);
    await state(third, 'endedAt');
    expect(await raise()).toBe(second);
    // The raiser sees it cancelled: what they press then is a new one
    await state(second, 'duress');
    expect(await raise()).toBe(first);
    await state(first, 'endedAt');
    const fresh = await raise();
    expect([first, second, third]).not.toContain(fresh);
    expect(await raise()).toBe(fresh);
    expect(await redis.pttl(sosKeys.recentOf('usr_many', false))).toBeGreaterThan(0);
  });

  test('+ raised and taken back without end: the newest stay for a week, the others for a minute once the database has them', async () => {
    const few = new SosRecords(redis, { replicas: 0, replicaWithinMs: 0, alertsPerUser: 3 });
    const ids: string[] = [];
    const copy = async (id: string) => records.projected([(await records.read(id))!]);
    for (let n = 0; n < 12; n++) {
      const { alertId, how } = await few.take(press(`loop${n}`));
      expect(how).toBe('new');
      ids.push(alertId);
      expect(
        await records.step((await records.read(alertId))!, 'cancel', { at: Date.now(), who: 'usr_many' }),
      ).toBe('ok');
      // Of some the copy comes later
      if (n % 2 === 0) await copy(alertId);
    }
    for (const [n, id] of ids.entries()) if (n % 2 === 1) await copy(id);
    const ttls = await Promise.all(ids.map((id) => redis.pttl(sosKeys.alert(id))));
    const [old, newest] = [ttls.slice(0, 8), ttls.slice(-3)];
    expect(old.every((ttl) => ttl > 0 && ttl <= 60_000)).toBe(true);
    expect(newest.every((ttl) => ttl > 6 * day)).toBe(true);
    expect(await redis.zcard(sosKeys.all)).toBeLessThanOrEqual(4);
    expect(await redis.zcard(sosKeys.unprojected)).toBe(0);
  });

  test('+ what the database does not have in its newest form stays, whoever raised it', async () => {
    const few = new SosRecords(redis, { replicas: 0, replicaWithinMs: 0, alertsPerUser: 1 });
    const raiseAndCancel = async (key: string) => {
      const { alertId } = await few.take(press(key));
      await records.step((await records.read(alertId))!, 'cancel', { at: Date.now(), who: 'usr_many' });
      await records.projected([(await records.read(alertId))!]);
      return alertId;
    };
    const first = await raiseAndCancel('a');
    await redis.zadd(sosKeys.unprojected, Date.now(), first);
    for (const key of ['b', 'c', 'd']) await raiseAndCancel(key);
    expect(await redis.pttl(sosKeys.alert(first))).toBeGreaterThan(6 * day);
    expect(await redis.zscore(sosKeys.all, first)).not.toBeNull();
    await records.projected([(await records.read(first))!]);
    expect(await redis.pttl(sosKeys.alert(first))).toBeLessThanOrEqual(60_000);
  });

  test('+ six hours later it is as at first', async () => {
    const few = new SosRecords(redis, { replicas: 0, replicaWithinMs: 0, alertsPerUser: 2 });
    const raise = async (key: string) => (await few.take(press(key, `trp_${key}`))).alertId;
    const early = [await raise('a'), await raise('b')];
    expect(early).toContain(await raise('c'));
    for (const id of early)
      await redis.zadd(sosKeys.recentOf('usr_many', false), Date.now() - 7 * 3_600_000, id);
    expect(early).not.toContain(await raise('d'));
  });
});
