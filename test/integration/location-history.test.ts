import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import type { Reported } from '../../contracts/location.ts';
import { newId } from '../../lib/ids.ts';
import { shardKeys, shardOf } from '../../lib/location-keys.ts';
import { closeConnection, commandConnection, isReady, type RedisConnection } from '../../lib/redis-client.ts';
import { parseRedisUrl } from '../../lib/redis-url.ts';
import { LiveIndex } from '../../services/location/live-index.ts';
import { activeTrip, request } from '../support/clients.ts';
import { eventually } from '../support/eventually.ts';
import { mongoBackend, startMongo, type TestMongo } from '../support/mongo.ts';
import { reportedAt, timesInStream } from '../support/positions.ts';
import { startTestRedis } from '../support/redis.ts';
import { startCluster } from '../support/redis-topology.ts';
import { type System, startSystem } from '../support/system.ts';

const hour = 3_600_000;
/** Longer than any test: nothing happens by itself. */
const never = '600000';
const driver = 'usr_driver';
/** What is older than 30 days is not kept: times are counted from here. */
const base = Date.now() - hour;
const fixAt = (tripId: string, time: number) => reportedAt(tripId, base + time);

/** What the database itself holds, and its going away, only the simulator shows. */
const isSimulated = mongoBackend.startsWith('the simulator');

interface Point {
  tripId: string;
  timestamp: number;
}
interface History {
  read(tripId: string, range: object): Promise<{ points: (Point & object)[]; more: boolean }>;
}

/** What the database has of a trip, read as services do: equals once. */
async function storedTimes(system: System, tripId: string): Promise<number[]> {
  const service = system.broker.getLocalService('location-history') as unknown as { series: History };
  const { points } = await service.series.read(tripId, { from: 0, to: Date.now() + hour, limit: 10_000 });
  return points.map(({ timestamp }) => timestamp - base);
}

const sync = (system: System) => system.broker.call('location-history.sync', {});

async function metricOf({ metricsUrl }: System, name: string): Promise<number> {
  const text = await (await fetch(`${metricsUrl}/metrics`)).text();
  return Number(new RegExp(`^${name}\\{[^}]*\\} (\\S+)`, 'm').exec(text)?.[1] ?? 0);
}

async function connectionTo(url: string): Promise<RedisConnection> {
  const parsed = parseRedisUrl(url);
  if ('problem' in parsed) throw new Error(parsed.problem);
  const connection = commandConnection(parsed.target);
  connection.on('error', () => undefined);
  expect(await isReady(connection)).toBe(true);
  return connection;
}

describe.each([
  ['one Redis', 'NeDB', startTestRedis],
  ['one Redis', mongoBackend, startTestRedis],
  ['a Cluster', mongoBackend, startCluster],
] as const)('location history from %s to %s', (topology, database, startRedis) => {
  let server: { url: string; stop(): Promise<void> };
  let sosServer: { url: string; stop(): Promise<void> } | undefined;
  let mongo: TestMongo | undefined;
  let redis: RedisConnection;
  let index: LiveIndex;
  let system: System;
  let env: Record<string, string>;

  beforeAll(async () => {
    server = await startRedis();
    // Alerts are never on a Cluster
    sosServer = topology === 'a Cluster' ? await startTestRedis() : undefined;
    mongo = database === 'NeDB' ? undefined : await startMongo();
    redis = await connectionTo(server.url);
    index = new LiveIndex(redis, hour);
    env = {
      REDIS_URL: server.url,
      ...(sosServer ? { SOS_REDIS_URL: sosServer.url } : {}),
      ...(mongo ? { MONGO_URI: mongo.uri } : {}),
      LOCATION_HISTORY_INTERVAL_MS: never,
    };
    system = await startSystem({ env });
  }, 40_000);
  afterAll(async () => {
    await system.stop();
    closeConnection(redis);
    await mongo?.stop();
    await server.stop();
    await sosServer?.stop();
  });

  const openTrip = async () => {
    const tripId = newId('trp');
    await index.open(tripId, driver);
    return tripId;
  };
  const cursor = (tripId: string) => redis.hget(shardKeys(shardOf(tripId)).head, 'synced');
  const newest = (tripId: string) => redis.hget(shardKeys(shardOf(tripId)).head, 'id');
  /** As if whoever moved them had died before the cursor: the next one finds them again. */
  const forget = (tripId: string) => redis.hdel(shardKeys(shardOf(tripId)).head, 'synced', 'turn');
  /** How often the database itself has each point; only the simulator can be asked. */
  const copies = (tripId: string): number[] =>
    mongo?.simulator
      ?.database()
      .collection('location-history')
      .find({ tripId })
      .map(({ timestamp }) => (timestamp as Date).getTime()) ?? [];

  test('R2.4 R9.2 all points are moved, live ones and backlogs, of every shard, and the cursor behind them', async () => {
    const trips = await Promise.all(Array.from({ length: 40 }, openTrip));
    for (const timestamp of [1000, 2000, 3000])
      await index.apply(trips.map((tripId) => fixAt(tripId, timestamp)));
    const [first = ''] = trips;
    await index.append(
      first,
      driver,
      [500, 1000, 1500].map((timestamp) => fixAt(first, timestamp)),
    );
    await sync(system);
    for (const tripId of trips) {
      expect(await storedTimes(system, tripId)).toEqual(
        tripId === first ? [500, 1000, 1500, 2000, 3000] : [1000, 2000, 3000],
      );
      expect(await cursor(tripId)).toBe(await newest(tripId));
    }
    // What the database has stays for an hour
    expect(await timesInStream(redis, first)).toEqual(
      [500, 1000, 1500, 2000, 3000].map((time) => base + time),
    );
  });

  test('R2.4 what was stored before the cursor moved is not stored twice, and the rest is', async () => {
    const tripId = await openTrip();
    await index.apply([fixAt(tripId, 1000)]);
    await index.apply([fixAt(tripId, 2000)]);
    await sync(system);
    await forget(tripId);
    await index.apply([fixAt(tripId, 3000)]);
    await index.append(
      tripId,
      driver,
      [1000, 2500].map((timestamp) => fixAt(tripId, timestamp)),
    );
    await sync(system);
    await sync(system);
    expect(await storedTimes(system, tripId)).toEqual([1000, 2000, 2500, 3000]);
    if (mongo?.simulator) expect(copies(tripId)).toHaveLength(4);
    expect(await cursor(tripId)).toBe(await newest(tripId));
  });

  test('R2.4 more than fits into a turn is moved in several', async () => {
    const tripId = await openTrip();
    for (let n = 0; n < 3; n++) {
      const points = Array.from({ length: 400 }, (_, i) => fixAt(tripId, 10_000 * (n + 1) + i));
      await index.append(tripId, driver, points);
    }
    for (let timestamp = 50_001; timestamp <= 50_100; timestamp++)
      await index.apply([fixAt(tripId, timestamp)]);
    await sync(system);
    expect(await storedTimes(system, tripId)).toHaveLength(1300);
    expect(await cursor(tripId)).toBe(await newest(tripId));
  });

  test("R2.4 a shard in somebody else's turn is left alone until that has ended", async () => {
    const tripId = await openTrip();
    await index.apply([fixAt(tripId, 1000)]);
    const { mover } = shardKeys(shardOf(tripId));
    await redis.set(mover, 'a process that died', 'PX', 60_000);
    await sync(system);
    expect(await storedTimes(system, tripId)).toEqual([]);
    await redis.del(mover);
    await sync(system);
    expect(await storedTimes(system, tripId)).toEqual([1000]);
    expect(await redis.exists(mover)).toBe(0);
  });

  test('R2.4 an entry that cannot be read stops nothing', async () => {
    const tripId = await openTrip();
    const refused = await metricOf(system, 'location_history_refused_total');
    await index.apply([fixAt(tripId, 1000)]);
    await redis.xadd(shardKeys(shardOf(tripId)).stream, '*', 'b', '{"at":1,"upd');
    await index.apply([fixAt(tripId, 2000)]);
    await sync(system);
    expect(await storedTimes(system, tripId)).toEqual([1000, 2000]);
    expect(await metricOf(system, 'location_history_refused_total')).toBe(refused + 1);
  });

  test('R2.4 the track joins stream and database: each point once, in order, by range and page', async () => {
    const { tripId, rider, driver: its } = await activeTrip(system);
    const began = Date.now() - 60_000;
    const add = (...seconds: number[]) =>
      index.append(
        tripId,
        its.id,
        seconds.map((s) => reportedAt(tripId, began + s * 1000, { userId: its.id, lat: s })),
      );
    const track = async (query = '') => {
      const { status, body } = await request(system, 'GET', `/api/v1/trips/${tripId}/track${query}`, {
        token: rider.token,
      });
      expect(status).toBe(200);
      const { times, next } = body.properties as { times: number[]; next: number | null };
      const lats = (body.geometry.coordinates as [number, number][]).map(([, lat]) => lat);
      expect(times.map((time) => (time - began) / 1000)).toEqual(lats);
      return { lats, next: next === null ? null : (next - began) / 1000 };
    };
    await add(10, 20, 30);
    expect(await track()).toEqual({ lats: [10, 20, 30], next: null });
    await sync(system);
    await add(15, 20, 40);
    expect(await track()).toEqual({ lats: [10, 15, 20, 30, 40], next: null });
    expect(await track(`?from=${began + 15_000}&to=${began + 30_000}`)).toMatchObject({ lats: [15, 20, 30] });
    expect(await track('?limit=2')).toEqual({ lats: [10, 15], next: 15.001 });
    // The stream's share is gone: as after an hour
    await sync(system);
    await redis.xtrim(shardKeys(shardOf(tripId)).stream, 'MAXLEN', 0);
    expect(await track()).toEqual({ lats: [10, 15, 20, 30, 40], next: null });
    const { lats, next } = await track('?limit=3');
    expect(lats).toEqual([10, 15, 20]);
    expect(await track(`?from=${began + Number(next) * 1000}`)).toEqual({ lats: [30, 40], next: null });
    const bad = await request(system, 'GET', `/api/v1/trips/${tripId}/track?from=${'9'.repeat(40)}`, {
      token: rider.token,
    });
    expect([bad.status, bad.body.error.code]).toEqual([400, 'VALIDATION']);
  });

  test('R2 + a backlog by REST is sorted, each time once, and never moves the live marker back', async () => {
    const { tripId, rider, driver: its } = await activeTrip(system);
    const began = Date.now() - 30_000;
    const point = (s: number) => {
      const { tripId: _, userId: __, ...fix } = reportedAt(tripId, began + s * 1000);
      return fix;
    };
    await index.apply([{ ...reportedAt(tripId, began + 20_000), userId: its.id }]);
    const { last } = await index.state(tripId);
    const send = (updates: object[]) =>
      request(system, 'POST', `/api/v1/trips/${tripId}/locations`, { token: its.token, body: { updates } });
    for (let time = 1; time <= 2; time++)
      expect((await send([point(10), point(0), point(10), { lat: 91 }, point(5)])).body).toEqual({
        accepted: 4,
        rejected: [{ index: 3, code: 'LOCATION_INVALID' }],
      });
    expect((await index.state(tripId)).last).toEqual(last);
    await sync(system);
    const { body } = await request(system, 'GET', `/api/v1/trips/${tripId}/track`, { token: rider.token });
    expect(body.properties.times.map((time: number) => (time - began) / 1000)).toEqual([0, 5, 10, 20]);
  });
});

describe.each([mongoBackend])('location history on %s', () => {
  let server: Awaited<ReturnType<typeof startTestRedis>>;
  let mongo: TestMongo;
  let redis: RedisConnection;
  let index: LiveIndex;
  const systems: System[] = [];

  beforeAll(async () => {
    server = await startTestRedis();
    mongo = await startMongo();
    redis = await connectionTo(server.url);
    index = new LiveIndex(redis, hour);
  });
  afterEach(async () => {
    mongo.simulator?.delay(0);
    await Promise.all(systems.splice(0).map((system) => system.stop()));
    await redis.flushall();
  });
  afterAll(async () => {
    closeConnection(redis);
    await mongo.stop();
    await server.stop();
  });

  const start = async (intervalMs: number | string) => {
    const system = await startSystem({
      only: ['location-history', 'monitor'],
      env: {
        REDIS_URL: server.url,
        MONGO_URI: mongo.uri,
        LOCATION_HISTORY_INTERVAL_MS: String(intervalMs),
      },
    });
    systems.push(system);
    return system;
  };
  /** So many new trips with points at 1, 2 … s. */
  const drive = async (trips: number, points: number): Promise<string[]> => {
    const ids = Array.from({ length: trips }, () => newId('trp'));
    await Promise.all(ids.map((tripId) => index.open(tripId, driver)));
    for (let n = 1; n <= points; n++)
      await index.apply(ids.map((tripId): Reported => fixAt(tripId, n * 1000)));
    return ids;
  };
  /** Every point that the database has, as often as it has it. */
  const copies = (): string[] =>
    (mongo.simulator?.database().collection('location-history').find({}) ?? [])
      .map(({ tripId, timestamp }) => `${String(tripId)} ${(timestamp as Date).getTime() - base}`)
      .toSorted();
  const expected = (ids: readonly string[], points: number) =>
    ids
      .flatMap((tripId) => Array.from({ length: points }, (_, n) => `${tripId} ${(n + 1) * 1000}`))
      .toSorted();
  const ofThese = (ids: readonly string[]) => {
    const these = new Set(ids);
    return copies().filter((point) => these.has(point.split(' ')[0] ?? ''));
  };
  /** Counts until all are there; only then what is there is compared, for a difference is dear to tell. */
  const untilStored = async (ids: readonly string[], points: number, withinMs: number) => {
    await eventually(() => {
      const stored = ofThese(ids).length;
      if (stored < ids.length * points) throw new Error(`Only ${stored} points have been stored`);
    }, withinMs);
    expect(ofThese(ids)).toEqual(expected(ids, points));
  };

  // It counts what is stored: of a MONGO_URI only the simulator can be read from here
  const onSimulator = isSimulated ? test : test.skip;

  onSimulator(
    'R2.4 three processes at once, round after round, share the work and double nothing',
    async () => {
      const running = await Promise.all([start(100), start(100), start(100)]);
      const ids: string[] = [];
      for (let round = 0; round < 6; round++) ids.push(...(await drive(60, 3)));
      await untilStored(ids, 3, 10_000);
      const shares = await Promise.all(
        running.map((system) => metricOf(system, 'location_history_stored_total')),
      );
      expect(shares.reduce((sum, share) => sum + share, 0)).toBe(ids.length * 3);
      expect(Math.min(...shares)).toBeGreaterThan(0);
    },
    30_000,
  );

  onSimulator(
    'R9.2 is asked what is there, of a majority, then inserted in bulk with the word of a majority',
    async () => {
      const system = await start(never);
      const ids = await drive(30, 5);
      mongo.simulator?.forget();
      await sync(system);
      expect(ofThese(ids)).toEqual(expected(ids, 5));
      const inserts = mongo.simulator?.commands('insert').map(({ command }) => command) ?? [];
      // 30 trips of some 28 shards: a command for each group of shards, not for each shard
      expect(inserts.length).toBeLessThanOrEqual(32);
      for (const command of inserts)
        expect(command).toMatchObject({
          insert: 'location-history',
          ordered: false,
          writeConcern: { w: 'majority', j: true },
        });
      for (const { node, command } of mongo.simulator?.commands('find') ?? []) {
        expect(node).toBe('primary');
        expect(command).toMatchObject({ readConcern: { level: 'majority' } });
      }
    },
  );

  onSimulator('R2.4 what the database refuses by itself is told, and holds up nothing', async () => {
    const system = await start(never);
    const [tripId = ''] = await drive(1, 3);
    mongo.simulator?.fail('insert', 1, {
      ok: 1,
      n: 2,
      writeErrors: [{ index: 1, code: 121, errmsg: 'Document failed validation' }],
    });
    await sync(system);
    expect(await metricOf(system, 'location_history_refused_total')).toBe(1);
    expect(await metricOf(system, 'location_history_stored_total')).toBe(2);
    const { head } = shardKeys(shardOf(tripId));
    expect(await redis.hget(head, 'synced')).toBe(await redis.hget(head, 'id'));
  });

  onSimulator(
    'R2.4 a stop finishes the batch under way',
    async () => {
      const system = await start(100);
      mongo.simulator?.delay(300, 'insert');
      mongo.simulator?.forget();
      const ids = await drive(5, 4);
      await eventually(() => expect(mongo.simulator?.commands('find').length).toBeGreaterThan(0));
      systems.pop();
      await system.stop();
      // Where there is a point of a shard, the cursor is behind it: nobody has to look at it again
      const moved = ofThese(ids);
      expect(moved.length).toBeGreaterThan(0);
      for (const tripId of new Set(moved.map((point) => point.split(' ')[0] ?? ''))) {
        const { head, mover } = shardKeys(shardOf(tripId));
        expect(await redis.hget(head, 'synced')).not.toBeNull();
        expect(await redis.exists(mover)).toBe(0);
      }
      mongo.simulator?.delay(0);
      await sync(await start(never));
      expect(ofThese(ids)).toEqual(expected(ids, 4));
    },
    20_000,
  );

  onSimulator(
    'R2.4 the database away: it waits in Redis and says so; back, all of it is there, once',
    async () => {
      const system = await start(200);
      const ids = await drive(40, 2);
      await untilStored(ids, 2, 5000);
      await mongo.simulator?.halt();
      for (let n = 3; n <= 5; n++) await index.apply(ids.map((tripId) => fixAt(tripId, n * 1000)));
      await eventually(async () => {
        expect(await metricOf(system, 'location_history_failed_total')).toBeGreaterThan(0);
        expect(await metricOf(system, 'location_history_lag')).toBeGreaterThan(1000);
      }, 10_000);
      expect(await timesInStream(redis, ids[0] ?? '')).toEqual([1, 2, 3, 4, 5].map((n) => base + n * 1000));
      await mongo.simulator?.resume();
      await untilStored(ids, 5, 15_000);
      await eventually(async () => expect(await metricOf(system, 'location_history_lag')).toBe(0));
    },
    40_000,
  );
});
