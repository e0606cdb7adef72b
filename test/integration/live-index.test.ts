import { afterAll, beforeAll, beforeEach, describe, expect, jest, test } from '@jest/globals';
import * as fc from 'fast-check';
import type { Redis } from 'ioredis';
import type { Reported, Update } from '../../contracts/location.ts';
import { newId } from '../../lib/ids.ts';
import { LatestPerUser } from '../../lib/latest-per-user.ts';
import { closedKey, shardChannel, shardKeys, shardOf } from '../../lib/location-keys.ts';
import { parseBatch, readStream } from '../../lib/location-stream.ts';
import { LiveIndex } from '../../services/location/live-index.ts';
import { eventually } from '../support/eventually.ts';
import { reportedAt, timesInStream, tripsOfOneShard, tripsOfShards } from '../support/positions.ts';
import { startTestRedis, type TestRedis } from '../support/redis.ts';

const driver = 'usr_driver';
const hour = 3_600_000;

let server: TestRedis;
let redis: Redis;
let index: LiveIndex;
let other: LiveIndex;
/** What went over pub/sub, parsed, in order. */
let published: Update[];

beforeAll(async () => {
  server = await startTestRedis();
  redis = server.connect();
  index = new LiveIndex(redis, hour);
  other = new LiveIndex(server.connect(), hour);
  const subscriber = server.connect();
  subscriber.on('pmessage', (_pattern, _channel, message: string) => {
    published.push(...parseBatch(message.split(' ').slice(2).join(' ')));
  });
  await subscriber.psubscribe('*:live');
});
afterAll(() => server.stop());
beforeEach(async () => {
  await redis.flushall();
  published = [];
});

const openTrip = async (tripId = newId('trp')): Promise<string> => {
  await index.open(tripId, driver);
  return tripId;
};

/** Everything in Redis, by key, for comparing. */
async function snapshot() {
  const keys = (await redis.keys('*')).toSorted();
  return Promise.all(keys.map(async (key) => [key, await redis.dumpBuffer(key)] as const));
}

async function streamed(tripId: string): Promise<Update[]> {
  const updates: Update[] = [];
  for await (const { live } of readStream(redis, shardOf(tripId), '-')) updates.push(...live);
  return updates.filter((u) => u.tripId === tripId);
}

describe('P3 R2.3', () => {
  // Two of the trips share a shard; the last one is not active
  const [a = '', b = ''] = tripsOfOneShard(2);
  const trips = [a, b, newId('trp'), newId('trp')];
  const active = trips.slice(0, 3);
  // The place follows from the timestamp, so that equal timestamps are true duplicates
  const update = fc
    .record({
      tripId: fc.constantFrom(...trips),
      userId: fc.constantFrom(driver, driver, driver, 'usr_other'),
      timestamp: fc.integer({ min: 1, max: 40 }),
    })
    .map(({ tripId, userId, timestamp }) =>
      reportedAt(tripId, timestamp, { userId, lat: timestamp, lng: -timestamp }),
    );
  /** A batch as the buffer hands it on. */
  const batch = fc.array(update, { maxLength: 12 }).map((updates) => {
    const buffer = new LatestPerUser<Reported>();
    for (const one of updates) buffer.add(one);
    return buffer.take();
  });
  const batches = fc.array(batch, { minLength: 1, maxLength: 6 });
  const counts = (u: Reported) => u.userId === driver && active.includes(u.tripId);

  const reset = async () => {
    await redis.flushall();
    published = [];
    for (const tripId of active) await index.open(tripId, driver);
  };
  /** All that was published has arrived when it is as much as is in the streams. */
  const allPublished = async () => {
    const inStreams = (await Promise.all(trips.map(streamed))).flat();
    await eventually(() => expect(published).toHaveLength(inStreams.length));
    return published;
  };
  const expectPositions = async (all: readonly Reported[]) => {
    for (const tripId of trips) {
      const newest = Math.max(
        0,
        ...all.filter((u) => u.tripId === tripId && counts(u)).map((u) => u.timestamp),
      );
      const { last } = await index.state(tripId);
      const [position] = await redis.geopos(shardKeys(shardOf(tripId)).geo, tripId);
      expect(last?.timestamp ?? 0).toBe(newest);
      if (newest === 0) expect(position).toBeNull();
      else {
        expect(last).toMatchObject({ lat: newest, lng: -newest, userId: driver });
        expect(Number(position?.[0])).toBeCloseTo(-newest, 3);
        expect(Number(position?.[1])).toBeCloseTo(newest, 3);
      }
    }
  };

  test('processing a batch twice equals processing it once', async () => {
    await fc.assert(
      fc.asyncProperty(batches, async (sequence) => {
        await reset();
        const expected: string[] = [];
        const newest = new Map<string, number>();
        for (const updates of sequence) {
          const first = await index.apply(updates);
          const before = await snapshot();
          const second = await index.apply(updates);
          expect(await snapshot()).toEqual(before);

          const taken = updates.filter((u) => counts(u) && u.timestamp > (newest.get(u.tripId) ?? 0));
          for (const u of taken) newest.set(u.tripId, u.timestamp);
          expected.push(...taken.map((u) => `${u.tripId} ${u.timestamp}`));
          const notActive = updates.filter((u) => !counts(u)).length;
          const late = updates.length - notActive - taken.length;
          expect(first).toEqual({ accepted: taken.length, late, notActive, failed: [], broken: [], lost: 0 });
          expect(second).toEqual({
            accepted: 0,
            late: taken.length + late,
            notActive,
            failed: [],
            broken: [],
            lost: 0,
          });
        }
        const seen = (await allPublished()).map((u) => `${u.tripId} ${u.timestamp}`);
        expect(seen.toSorted()).toEqual(expected.toSorted());
        await expectPositions(sequence.flat());
      }),
      { numRuns: 40 },
    );
  });

  test('shuffled, repeated and by two nodes at once: the newest stays, and nothing older follows it', async () => {
    const disorder = batches.chain((sequence) =>
      fc.tuple(
        fc.constant(sequence),
        fc.shuffledSubarray([...sequence, ...sequence], { minLength: sequence.length * 2 }),
        fc.shuffledSubarray([...sequence], { minLength: sequence.length }),
      ),
    );
    await fc.assert(
      fc.asyncProperty(disorder, async ([sequence, here, there]) => {
        await reset();
        const outcomes = await Promise.all([
          ...here.map((updates) => index.apply(updates)),
          ...there.map((updates) => other.apply(updates)),
        ]);
        const all = await allPublished();
        await expectPositions(sequence.flat());
        expect(outcomes.reduce((sum, { accepted }) => sum + accepted, 0)).toBe(all.length);
        for (const tripId of trips) {
          const mine = all.filter((u) => u.tripId === tripId);
          const times = mine.map((u) => u.timestamp);
          expect(times).toEqual([...new Set(times)].toSorted((x, y) => x - y));
          expect(mine).toEqual(await streamed(tripId));
          expect(mine.at(-1) ?? null).toEqual((await index.state(tripId)).last);
        }
      }),
      { numRuns: 40 },
    );
  });
});

describe('a batch', () => {
  test('R2.2 is one pipeline; index, last position, stream and channel all have it', async () => {
    const trips = await Promise.all(Array.from({ length: 20 }, () => openTrip()));
    const pipelines = jest.spyOn(redis, 'pipeline');
    const outcome = await index.apply(trips.map((tripId, i) => reportedAt(tripId, 1000, { lat: i })));
    expect(pipelines).toHaveBeenCalledTimes(1);
    pipelines.mockRestore();
    expect(outcome).toEqual({ accepted: 20, late: 0, notActive: 0, failed: [], broken: [], lost: 0 });
    await eventually(() => expect(published).toHaveLength(20));
    for (const [i, tripId] of trips.entries()) {
      const { last } = await index.state(tripId);
      expect(last).toEqual({ ...reportedAt(tripId, 1000, { lat: i }), at: expect.any(Number) });
      expect(Math.abs((last?.at ?? 0) - Date.now())).toBeLessThan(5000);
      expect(await streamed(tripId)).toEqual([last]);
      expect(published).toContainEqual(last);
      const [position] = await redis.geopos(shardKeys(shardOf(tripId)).geo, tripId);
      expect(Number(position?.[1])).toBeCloseTo(i, 3);
    }
  });

  test('R2.2 updates of a shard share an entry, and entries name the one before', async () => {
    const trips = tripsOfOneShard(3);
    for (const tripId of trips) await openTrip(tripId);
    const shard = shardOf(trips[0] ?? '');
    const messages: string[] = [];
    const listener = server.connect();
    listener.on('message', (_channel, message: string) => messages.push(message));
    await listener.subscribe(shardChannel(shard));
    for (const timestamp of [1, 2]) await index.apply(trips.map((tripId) => reportedAt(tripId, timestamp)));
    const entries = await redis.xrange(shardKeys(shard).stream, '-', '+');
    expect(entries).toHaveLength(2);
    await eventually(() => expect(messages).toHaveLength(2));
    const [first, second] = entries.map(([id]) => id);
    expect(messages.map((m) => m.split(' ').slice(0, 2))).toEqual([
      [first, '0-0'],
      [second, first],
    ]);
    listener.disconnect();
  });

  test('R2.2 of any size goes in: 600 trips of one shard', async () => {
    const trips = tripsOfOneShard(600);
    await redis.hset(
      shardKeys(shardOf(trips[0] ?? '')).active,
      Object.fromEntries(trips.map((t) => [t, driver])),
    );
    expect(await index.apply(trips.map((tripId) => reportedAt(tripId, 1)))).toMatchObject({ accepted: 600 });
    expect(await redis.zcard(shardKeys(shardOf(trips[0] ?? '')).geo)).toBe(600);
  });

  test('R2.5 trips that are not active, and other users, change nothing at all', async () => {
    const tripId = await openTrip();
    const before = await snapshot();
    const outcome = await index.apply([
      reportedAt(newId('trp'), 1),
      reportedAt(tripId, 1, { userId: 'usr_other' }),
    ]);
    expect(outcome).toEqual({ accepted: 0, late: 0, notActive: 2, failed: [], broken: [], lost: 0 });
    expect(await snapshot()).toEqual(before);
    expect(published).toEqual([]);
  });

  test('R2 `at` never goes back, also when the shard is ahead of the clock of Redis', async () => {
    const tripId = await openTrip();
    const { head } = shardKeys(shardOf(tripId));
    const ahead = Date.now() + hour;
    await redis.hset(head, 'at', ahead, 'id', `${ahead}-0`);
    for (const timestamp of [1, 2, 3]) await index.apply([reportedAt(tripId, timestamp)]);
    const seen = await streamed(tripId);
    expect(seen.map((u) => u.at)).toEqual([ahead, ahead, ahead]);
    const ids = (await redis.xrange(shardKeys(shardOf(tripId)).stream, '-', '+')).map(([id]) => id);
    expect(ids).toEqual([0, 1, 2].map((n) => `${ahead}-${n}`));
    expect(await redis.hgetall(head)).toMatchObject({ at: String(ahead), id: `${ahead}-2` });
  });

  test('R2.4 the stream is trimmed to what is to be kept, but only behind what the database has', async () => {
    const short = new LiveIndex(server.connect(), 1);
    const [kept = '', held = '', trimmed = ''] = tripsOfShards(3);
    for (const tripId of [kept, held, trimmed]) await openTrip(tripId);
    const length = (tripId: string) => redis.xlen(shardKeys(shardOf(tripId)).stream);
    const newest = async (tripId: string) => (await redis.hget(shardKeys(shardOf(tripId)).head, 'id')) ?? '';
    for (let timestamp = 1; timestamp <= 400; timestamp++) {
      await index.apply([reportedAt(kept, timestamp)]);
      await short.apply([reportedAt(held, timestamp), reportedAt(trimmed, timestamp)]);
      for (const tripId of [kept, trimmed])
        await redis.hset(shardKeys(shardOf(tripId)).head, 'synced', await newest(tripId));
      if (timestamp === 200) await redis.hset(shardKeys(shardOf(held)).head, 'synced', await newest(held));
    }
    expect(await length(kept)).toBeGreaterThanOrEqual(400);
    // Redis trims by whole nodes of 100 entries
    expect(await length(held)).toBeGreaterThanOrEqual(200);
    expect(await length(held)).toBeLessThan(350);
    expect(await length(trimmed)).toBeLessThan(250);
    expect((await index.state(trimmed)).last).toMatchObject({ timestamp: 400 });
  });

  describe('R2.4 with no room left', () => {
    // Redis frees a stream's memory by nodes of 4 kB: here an entry has one of its own, as in a busy shard
    const small = 400_000;
    const full = async () => {
      const bounded = new LiveIndex(server.connect(), hour, small);
      const trips = tripsOfOneShard(25);
      const [tripId = ''] = trips;
      const { stream, head } = shardKeys(shardOf(tripId));
      for (const each of trips) await openTrip(each);
      for (let timestamp = 1; timestamp <= 100; timestamp++)
        await index.apply(trips.map((each) => reportedAt(each, timestamp)));
      expect(await redis.memory('USAGE', stream)).toBeGreaterThan(small);
      // Its size is looked at every 10 s
      await redis.hdel(head, 'measured');
      return { bounded, tripId, stream, head };
    };

    test('what the database has goes first, and nothing is lost', async () => {
      const { bounded, tripId, stream, head } = await full();
      const entries = await redis.xrange(stream, '-', '+');
      await redis.hset(head, 'synced', entries[79]?.[0] ?? '');
      expect(await bounded.apply([reportedAt(tripId, 101)])).toMatchObject({ accepted: 1, lost: 0 });
      expect((await streamed(tripId)).map((u) => u.timestamp)).toEqual(
        Array.from({ length: 21 }, (_, n) => 81 + n),
      );
    });

    test('then the oldest is lost, and counted; the size stays within its bound', async () => {
      const { bounded, tripId, stream } = await full();
      const outcome = await bounded.apply([reportedAt(tripId, 101)]);
      expect(outcome.accepted).toBe(1);
      expect(outcome.lost).toBe(101 - (await redis.xlen(stream)));
      expect(outcome.lost).toBeGreaterThan(10);
      expect(await redis.memory('USAGE', stream)).toBeLessThan(small);
      expect((await streamed(tripId)).at(-1)).toMatchObject({ timestamp: 101 });
    });

    test('a backlog is refused rather than that anything is lost', async () => {
      const { bounded, tripId, stream } = await full();
      const before = await redis.xlen(stream);
      await expect(bounded.append(tripId, driver, [reportedAt(tripId, 101)])).rejects.toMatchObject({
        type: 'UNAVAILABLE',
      });
      expect(await redis.xlen(stream)).toBe(before);
      expect((await index.state(tripId)).last).toMatchObject({ timestamp: 100 });
    });
  });

  test('what Redis refuses is set apart, the rest is processed', async () => {
    const [good = '', bad = ''] = tripsOfShards(2);
    for (const tripId of [good, bad]) await openTrip(tripId);
    await redis.set(shardKeys(shardOf(bad)).stream, 'not a stream');
    const updates = [reportedAt(good, 1), reportedAt(bad, 1)];
    expect(await index.apply(updates)).toEqual({
      accepted: 1,
      late: 0,
      notActive: 0,
      failed: [],
      broken: [updates[1]],
      lost: 0,
    });
    expect((await index.state(bad)).last).toBeNull();
  });

  test('a position near a pole, where the geo-index ends, holds up nothing and is kept', async () => {
    const tripId = await openTrip();
    const pole = { ...reportedAt(tripId, 1), lat: 89.9 };
    expect(await index.apply([pole])).toMatchObject({ accepted: 1, broken: [] });
    expect((await index.state(tripId)).last).toMatchObject({ lat: 89.9 });
  });
});

describe('the life of a trip', () => {
  test('R2.5 the first driver stays', async () => {
    const tripId = newId('trp');
    expect(await index.open(tripId, driver)).toBe(driver);
    expect(await index.open(tripId, driver)).toBe(driver);
  });

  test('R2 close takes it out of every index, and a late open does not bring it back', async () => {
    const tripId = await openTrip();
    await index.apply([reportedAt(tripId, 1)]);
    expect(await index.nearby(12.97, 77.59, 1000, 10)).toHaveLength(1);
    await index.close(tripId);
    expect(await index.state(tripId)).toEqual({ driverId: null, last: null });
    expect(await index.nearby(12.97, 77.59, 1000, 10)).toEqual([]);
    const { geo, last, active } = shardKeys(shardOf(tripId));
    expect(await redis.exists(geo, last, active)).toBe(0);

    expect(await index.open(tripId, driver)).toBeNull();
    expect(await index.apply([reportedAt(tripId, Date.now() + hour)])).toMatchObject({
      accepted: 0,
      notActive: 1,
    });
    expect(await redis.exists(geo, last, active)).toBe(0);
    // What it drove is still to be had
    expect(await timesInStream(redis, tripId)).toEqual([1]);
  });

  test('R2 updates from before the end count, wherever they were; later ones, and the index, do not come back', async () => {
    const tripId = await openTrip();
    const now = Date.now();
    await index.apply([reportedAt(tripId, now - 10_000)]);
    await index.close(tripId);
    const late = [now - 12_000, now - 5000, now - 5000, now + 30_000].map((timestamp) =>
      reportedAt(tripId, timestamp),
    );
    const outcomes = [];
    for (const update of late) outcomes.push(await other.apply([update]));
    expect(outcomes.map(({ accepted, late: tooOld, notActive }) => [accepted, tooOld, notActive])).toEqual([
      [0, 1, 0],
      [1, 0, 0],
      [0, 1, 0],
      [0, 0, 1],
    ]);
    expect(await other.apply([reportedAt(tripId, now - 4000, { userId: 'usr_other' })])).toMatchObject({
      notActive: 1,
    });
    expect((await streamed(tripId)).map((u) => u.timestamp - now)).toEqual([-10_000, -5000]);
    await eventually(() => expect(published.map((u) => u.timestamp - now)).toEqual([-10_000, -5000]));
    expect(await index.state(tripId)).toEqual({ driverId: null, last: null });
    expect(await redis.exists(shardKeys(shardOf(tripId)).geo)).toBe(0);
    // A second close keeps the first end
    await index.close(tripId);
    expect(await other.apply([reportedAt(tripId, now - 1000)])).toMatchObject({ accepted: 1 });
    expect(await redis.ttl(closedKey(shardOf(tripId), tripId))).toBeGreaterThan(86_000);
  });

  test('close of one trip leaves the others of its shard', async () => {
    const [closing = '', staying = ''] = tripsOfOneShard(2);
    for (const tripId of [closing, staying]) await openTrip(tripId);
    await index.apply([reportedAt(closing, 1), reportedAt(staying, 1)]);
    await index.close(closing);
    await index.close(closing);
    expect((await index.nearby(12.97, 77.59, 1000, 10)).map((t) => t.tripId)).toEqual([staying]);
  });
});

describe('nearby', () => {
  // One thousandth of a degree north is 111 m
  const at = async (north: number) => {
    const tripId = await openTrip();
    await index.apply([reportedAt(tripId, 1, { lat: 10 + north / 1000, lng: 20 })]);
    return tripId;
  };
  /** As if its last update had come `ms` ago. */
  const silence = async (tripId: string, ms: number) => {
    const { last } = shardKeys(shardOf(tripId));
    const json = JSON.stringify(reportedAt(tripId, 1));
    await redis.hset(last, tripId, `1 ${Date.now() - ms} ${json}`);
  };

  test('R2 is sorted by distance, within the radius, at most as many as asked for', async () => {
    const [far, near, middle] = [await at(9), await at(1), await at(-5)];
    await at(30);
    const found = await index.nearby(10, 20, 1500, 10);
    expect(found.map((t) => t.tripId)).toEqual([near, middle, far]);
    expect(found.map((t) => Math.round(t.distanceM / 10))).toEqual([11, 56, 100]);
    expect(found[0]?.lat).toBeCloseTo(10.001, 4);
    expect(found[0]?.lng).toBeCloseTo(20, 4);
    expect((await index.nearby(10, 20, 1500, 2)).map((t) => t.tripId)).toEqual([near, middle]);
  });

  test('R2 leaves out trips that have been silent for ten minutes', async () => {
    const [silent, quiet] = [await at(1), await at(2)];
    await silence(silent, 601_000);
    await silence(quiet, 590_000);
    expect(await index.dropSilent()).toBe(1);
    expect((await index.nearby(10, 20, 1500, 10)).map((t) => t.tripId)).toEqual([quiet]);
  });

  test('R2 silent trips do not crowd out those that report', async () => {
    const reporting = await at(4);
    const silent = tripsOfOneShard(5, reporting);
    for (const tripId of silent) {
      await openTrip(tripId);
      await index.apply([reportedAt(tripId, 1, { lat: 10.001, lng: 20 })]);
      await silence(tripId, 601_000);
    }
    expect(await index.dropSilent()).toBe(5);
    expect(await index.dropSilent()).toBe(0);
    expect((await index.nearby(10, 20, 1500, 2)).map((t) => t.tripId)).toEqual([reporting]);
    const [back = ''] = silent;
    await index.apply([reportedAt(back, 2, { lat: 10.001, lng: 20 })]);
    expect((await index.nearby(10, 20, 1500, 2)).map((t) => t.tripId)).toEqual([back, reporting]);
  });
});

describe('missed and backlog', () => {
  test('R1.2 missed are those with at ≥ after, of this trip only', async () => {
    const [tripId = '', neighbour = ''] = tripsOfOneShard(2);
    for (const trip of [tripId, neighbour]) await openTrip(trip);
    for (let timestamp = 1; timestamp <= 600; timestamp++)
      await index.apply([reportedAt(tripId, timestamp), reportedAt(neighbour, timestamp)]);
    const all = await streamed(tripId);
    expect(all).toHaveLength(600);
    const after = all[299]?.at ?? 0;
    expect(await index.missed(tripId, after)).toEqual({
      last: all[599],
      missed: all.filter((u) => u.at >= after),
    });
    expect(await index.missed(tripId, undefined)).toEqual({ last: all[599], missed: [] });
  });

  test('R2 live points and backlogs are all in the stream', async () => {
    const tripId = await openTrip();
    const live = [10_000, 30_000];
    for (const timestamp of live) await index.apply([reportedAt(tripId, timestamp)]);
    const backlog = [5000, 10_000, 20_000].map((timestamp) => reportedAt(tripId, timestamp));
    await index.append(tripId, driver, backlog);
    await index.append(tripId, driver, backlog);
    expect(await timesInStream(redis, tripId)).toEqual([5000, 10_000, 20_000, 30_000]);
  });

  test('P3 a backlog never moves the live marker back, and is not sent to the rooms', async () => {
    const tripId = await openTrip();
    await index.apply([reportedAt(tripId, 30_000, { lat: 1 })]);
    const { last } = await index.state(tripId);
    await index.append(tripId, driver, [reportedAt(tripId, 20_000, { lat: 2 }), reportedAt(tripId, 30_000)]);
    expect((await index.state(tripId)).last).toEqual(last);
    expect((await streamed(tripId)).map((u) => u.timestamp)).toEqual([30_000]);
    const [position] = await redis.geopos(shardKeys(shardOf(tripId)).geo, tripId);
    expect(Number(position?.[1])).toBeCloseTo(1, 3);
  });

  test('R2 the newest point of a backlog moves the marker forward while the trip is active', async () => {
    const tripId = await openTrip();
    const points = [20_000, 40_000].map((timestamp) => reportedAt(tripId, timestamp));
    await index.append(tripId, driver, points);
    expect((await index.state(tripId)).last).toMatchObject({ timestamp: 40_000 });
    expect((await streamed(tripId)).map((u) => u.timestamp)).toEqual([40_000]);
    await index.close(tripId);
    await index.append(tripId, driver, [reportedAt(tripId, 50_000)]);
    expect(await index.state(tripId)).toEqual({ driverId: null, last: null });
    expect(await timesInStream(redis, tripId)).toEqual([20_000, 40_000, 50_000]);
  });
});
