import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { Cluster, type Redis } from 'ioredis';
import { loadConfig } from '../../lib/config.ts';
import { newId } from '../../lib/ids.ts';
import { shardCount, shardKeys, shardOf } from '../../lib/location-keys.ts';
import { rateLimit } from '../../lib/rate-limit.ts';
import {
  closeConnection,
  commandConnection,
  isReady,
  ownersOf,
  type RedisConnection,
  siblingOf,
  subscriberConnection,
  workerConnection,
} from '../../lib/redis-client.ts';
import { memoryOf } from '../../lib/redis-memory.ts';
import { pipelined } from '../../lib/redis-pipelines.ts';
import { parseRedisUrl, type RedisTarget } from '../../lib/redis-url.ts';
import { replicated } from '../../lib/replicated.ts';
import { loginCodes } from '../../services/accounts/login-codes.ts';
import { TripFanout } from '../../services/gateway/trip-fanout.ts';
import { LiveIndex } from '../../services/location/live-index.ts';
import { safetyRules } from '../../services/safety/rules.ts';
import { ShardLeases } from '../../services/safety/shard-leases.ts';
import { ShardReader } from '../../services/safety/shard-reader.ts';
import { newPhone } from '../support/clients.ts';
import { eventually } from '../support/eventually.ts';
import { reportedAt, timesInStream } from '../support/positions.ts';
import { startTestRedis } from '../support/redis.ts';
import { type RedisTopology, startCluster, startSentinel } from '../support/redis-topology.ts';

const hour = 3_600_000;
const driver = 'usr_driver';

function targetOf(url: string): RedisTarget {
  const parsed = parseRedisUrl(url);
  if ('problem' in parsed) throw new Error(parsed.problem);
  return parsed.target;
}

/** A connection as services have it. */
async function connectTo(target: RedisTarget): Promise<RedisConnection> {
  const connection = commandConnection(target);
  // Failing servers are part of the tests; commands that fail say so themselves
  connection.on('error', () => undefined);
  expect(await isReady(connection, 5000)).toBe(true);
  return connection;
}

const backends: [string, () => Promise<{ url: string; stop(): Promise<void> }>][] = [
  ['one Redis', startTestRedis],
  ['a Cluster', startCluster],
];

describe.each(backends)('R8 + on %s', (_name, start) => {
  let server: { url: string; stop(): Promise<void> };
  let redis: RedisConnection;
  let index: LiveIndex;

  beforeAll(async () => {
    server = await start();
    redis = await connectTo(targetOf(server.url));
    index = new LiveIndex(redis, hour);
  }, 40_000);
  afterAll(async () => {
    closeConnection(redis);
    await server.stop();
  });

  /** So many active trips, in shards of every node. */
  async function openTrips(howMany: number): Promise<string[]> {
    const trips = Array.from({ length: howMany }, () => newId('trp'));
    for (const tripId of trips) expect(await index.open(tripId, driver)).toBe(driver);
    return trips;
  }

  test('R2.2 P3 a batch over all shards is taken once, also when it comes twice', async () => {
    const trips = await openTrips(100);
    const batch = trips.map((tripId) => reportedAt(tripId, 10));
    expect(await index.apply(batch)).toMatchObject({ accepted: 100, failed: [], broken: [] });
    expect(await index.apply(batch)).toMatchObject({ accepted: 0, late: 100, failed: [], broken: [] });
    const states = await Promise.all(trips.map((tripId) => index.state(tripId)));
    expect(states.map(({ driverId, last }) => [driverId, last?.timestamp])).toEqual(
      trips.map(() => [driver, 10]),
    );
  });

  test('R2 nearby trips of all nodes, nearest first; an ended one is not among them', async () => {
    const trips = await openTrips(12);
    for (const [n, tripId] of trips.entries())
      await index.apply([reportedAt(tripId, 1, { lat: 10 + (n + 1) / 1000, lng: 20 })]);
    const near = async (limit: number) =>
      (await index.nearby(10, 20, 5000, limit)).map(({ tripId }) => tripId);
    expect(await near(20)).toEqual(trips);
    expect(await near(5)).toEqual(trips.slice(0, 5));
    await index.close(trips[0] ?? '');
    expect(await near(5)).toEqual(trips.slice(1, 6));
  });

  test('R2 a backlog is in the track, and moves the position', async () => {
    const [tripId = ''] = await openTrips(1);
    await index.append(
      tripId,
      driver,
      [5, 6, 7].map((timestamp) => reportedAt(tripId, timestamp)),
    );
    expect(await timesInStream(redis, tripId)).toEqual([5, 6, 7]);
    expect((await index.missed(tripId, 0)).last).toMatchObject({ timestamp: 7 });
  });

  test('+ safety checks see the trips of all nodes', async () => {
    const trips = await openTrips(30);
    const from = { lat: 12.97, lng: 77.59 };
    const now = Date.now();
    for (const ms of [400_000, 1000])
      await index.apply(trips.map((tripId) => reportedAt(tripId, now - ms, from)));
    const leases = new ShardLeases(redis, { reader: 'a', leaseMs: 4000, shards: shardCount });
    const reader = new ShardReader({
      redis,
      rules: safetyRules(loadConfig({ NODE_ENV: 'test' })),
      plansOf: async (ids) =>
        ids
          .filter((id) => trips.includes(id))
          .map((tripId) => ({
            tripId,
            riderId: 'usr_r',
            driverId: driver,
            from,
            to: { lat: 13, lng: 77.6 },
            startedAt: now,
            route: null,
            durationS: null,
          })),
      onTrouble: (text, error) => {
        throw new Error(text, { cause: error });
      },
    });
    const { now: at, shards } = await leases.renew();
    const suspicions = await reader.read(shards, at);
    expect(suspicions.map(({ kind, watch }) => `${kind} ${watch.plan.tripId}`).toSorted()).toEqual(
      trips.map((tripId) => `long-stop ${tripId}`).toSorted(),
    );
    await leases.release();
  });

  test('P1 updates of watched trips are delivered, wherever their shards are', async () => {
    const subscriber = subscriberConnection(targetOf(server.url));
    const seen: string[] = [];
    const troubles: string[] = [];
    const fanout = new TripFanout({
      redis,
      subscriber,
      deliver: ({ tripId }) => seen.push(tripId),
      onTrouble: (text) => troubles.push(text),
    });
    try {
      expect(await isReady(subscriber)).toBe(true);
      const trips = await openTrips(20);
      await Promise.all(trips.map((tripId) => fanout.watch(tripId)));
      await index.apply(trips.map((tripId) => reportedAt(tripId, 1)));
      await eventually(() => expect(seen.toSorted()).toEqual(trips.toSorted()));

      // Its node falls silent: nothing is published to it any more, and nothing says so
      await subscriber.unsubscribe();
      await index.apply(trips.map((tripId) => reportedAt(tripId, 2)));
      await fanout.catchUp();
      await eventually(async () => {
        await fanout.catchUp();
        expect(seen).toHaveLength(40);
      });
      await isReady(subscriber);
      await eventually(async () => {
        const before = seen.length;
        await index.apply([reportedAt(trips[0] ?? '', Date.now())]);
        await eventually(() => expect(seen.length).toBeGreaterThan(before), 500);
      });
      expect(troubles).toEqual([]);
    } finally {
      subscriber.disconnect();
    }
  });

  test('its memory is that of all primaries, without a limit when one has none', async () => {
    const primaries = redis instanceof Cluster ? redis.nodes('master') : [redis];
    expect(await memoryOf(redis)).toMatchObject({ limit: 0 });
    for (const primary of primaries) await primary.config('SET', 'maxmemory', '100mb');
    const { used, limit } = await memoryOf(redis);
    expect(limit).toBe(primaries.length * 100 * 1024 * 1024);
    expect(used).toBeGreaterThan(primaries.length * 500_000);
    await primaries[0]?.config('SET', 'maxmemory', '0');
    expect(await memoryOf(redis)).toMatchObject({ limit: 0 });
    for (const primary of primaries) await primary.config('SET', 'maxmemory', '0');
  });

  test('R4 + codes and limits', async () => {
    const codes = loginCodes(redis, loadConfig({ NODE_ENV: 'test' }));
    const phone = newPhone();
    const code = await codes.issue(phone, '10.0.0.1');
    await expect(codes.issue(phone, '10.0.0.1')).rejects.toMatchObject({ type: 'OTP_RESEND_TOO_SOON' });
    await expect(codes.use(phone, `${code}0`)).rejects.toMatchObject({ type: 'OTP_INVALID' });
    await codes.use(phone, code);
    const limit = rateLimit(redis, { name: 'topologies', points: 2, durationS: 60 });
    for (const key of ['a', 'b', 'a', 'b']) await limit(key);
    await expect(limit('a')).rejects.toMatchObject({ type: 'RATE_LIMITED' });
  });
});

describe('R8 + a slot of a Cluster moves to another node', () => {
  let topology: RedisTopology;
  let redis: RedisConnection;

  beforeAll(async () => {
    topology = await startCluster();
    redis = await connectTo(targetOf(topology.url));
  }, 40_000);
  afterAll(async () => {
    closeConnection(redis);
    await topology.stop();
  });

  /** The key's slot on its way to another node, the keys there already; `end` says so to both, the others hear of it. */
  async function beginMove(key: string): Promise<{ to: number; keys: string[]; end: () => Promise<void> }> {
    const from = await topology.primaryOf(key);
    const to = topology.ports.slice(0, 3).find((port) => port !== from) ?? 0;
    const [source, destination] = [topology.connect(from), topology.connect(to)];
    const slot = await source.cluster('KEYSLOT', key);
    const [sourceId, destinationId] = await Promise.all(
      [source, destination].map(async (node) => String(await node.call('CLUSTER', 'MYID'))),
    );
    await destination.call('CLUSTER', 'SETSLOT', slot, 'IMPORTING', sourceId ?? '');
    await source.call('CLUSTER', 'SETSLOT', slot, 'MIGRATING', destinationId ?? '');
    const keys = (await source.call('CLUSTER', 'GETKEYSINSLOT', slot, 100)) as string[];
    await source.call('MIGRATE', '127.0.0.1', to, '', 0, 5000, 'KEYS', ...keys);
    const end = async () => {
      for (const node of [destination, source])
        await node.call('CLUSTER', 'SETSLOT', slot, 'NODE', destinationId ?? '');
    };
    return { to, keys, end };
  }

  test('what goes to the wrong node is done by the right one, during and after the move', async () => {
    const index = new LiveIndex(redis, hour);
    const [moving, staying] = [newId('trp'), newId('trp')];
    for (const tripId of [moving, staying]) await index.open(tripId, driver);
    let clock = 0;
    const reported = async () => {
      clock++;
      const outcome = await index.apply([moving, staying].map((tripId) => reportedAt(tripId, clock)));
      expect(outcome).toMatchObject({ accepted: 2, failed: [], broken: [] });
    };
    await reported();

    const { stream } = shardKeys(shardOf(moving));
    const { to, keys, end } = await beginMove(stream);
    expect(keys.length).toBeGreaterThan(2);
    await reported();
    await end();
    await reported();
    await index.append(moving, driver, [reportedAt(moving, ++clock)]);
    expect((await index.state(moving)).last).toMatchObject({ timestamp: clock });
    expect(await timesInStream(redis, moving)).toEqual([1, 2, 3, 4]);
    if (redis instanceof Cluster) expect(ownersOf(redis, stream)).toContain(`:${to}`);
  }, 20_000);

  test('R8.4 a write that must survive goes to the right one, though whoever is asked does not know of the move yet', async () => {
    const write = (value: string) => replicated(redis, 'moved', (primary) => primary.set('moved', value));
    await write('before');
    const { to, end } = await beginMove('moved');
    await end();
    const own = siblingOf(redis);
    if (!(own instanceof Cluster)) throw new Error('This is no Cluster');
    const refresh = own.refreshSlotsCache.bind(own);
    // What a node says that has not heard of it: what was known before
    own.refreshSlotsCache = (done) => done?.();
    try {
      expect(await write('after')).toMatchObject({ value: 'OK', kept: true });
    } finally {
      own.refreshSlotsCache = refresh;
    }
    expect(await topology.connect(to).get('moved')).toBe('after');
  });

  test('results come in the order of the commands, whichever node they went to', async () => {
    const keys = Array.from({ length: 50 }, (_, n) => `k${n}`);
    await pipelined(
      redis,
      keys,
      (key) => key,
      (pipeline, key) => pipeline.set(key, `value of ${key}`),
    );
    const read = await pipelined(
      redis,
      keys,
      (key) => key,
      (pipeline, key) => pipeline.get(key),
    );
    expect(read).toEqual(keys.map((key) => [null, `value of ${key}`]));
  });
});

describe('R8.4 a write that must survive its primary', () => {
  let topology: RedisTopology;
  let redis: RedisConnection;

  beforeAll(async () => {
    topology = await startSentinel();
    redis = await connectTo(targetOf(topology.url));
  }, 40_000);
  afterAll(async () => {
    closeConnection(redis);
    await topology.stop();
  });

  test('is acknowledged once a replica has it, not while the replica is silent, and alone when there is none', async () => {
    const write = (n: number) => replicated(redis, 'k', (primary) => primary.set('k', n), 200);
    expect(await write(1)).toEqual({ value: 'OK', replicated: true, kept: true });
    const [, replica = 0] = topology.ports;
    expect(await topology.connect(replica).get('k')).toBe('1');

    topology.hang(replica);
    expect(await write(2)).toEqual({ value: 'OK', replicated: false, kept: false });
    // Writes that come at once share their waits: one after the other they would take 2 s
    const since = performance.now();
    await Promise.all(Array.from({ length: 10 }, (_, n) => write(n)));
    expect(performance.now() - since).toBeLessThan(1500);
    topology.wake(replica);
    await eventually(async () => expect(await write(3)).toMatchObject({ replicated: true }));

    await topology.kill(replica);
    await eventually(async () =>
      expect(await write(4)).toEqual({ value: 'OK', replicated: false, kept: true }),
    );
  }, 20_000);
});

describe('R8.4 the primary of a Sentinel group hangs', () => {
  let sentinel: RedisTopology;
  const connections: Redis[] = [];
  beforeAll(async () => {
    sentinel = await startSentinel();
  }, 40_000);
  afterAll(async () => {
    for (const connection of connections) closeConnection(connection);
    await sentinel.stop();
  });

  test('every connection goes to the one that took over, also those that nobody uses', async () => {
    const target = targetOf(sentinel.url);
    const command = commandConnection(target) as Redis;
    const blocked = workerConnection(target, 60_000) as Redis;
    const sibling = siblingOf(command) as Redis;
    connections.push(command, blocked, subscriberConnection(target));
    for (const connection of [...connections, sibling]) {
      connection.on('error', () => undefined);
      expect(await isReady(connection, 5000)).toBe(true);
    }
    const port = await sentinel.primaryOf('');
    const popped = blocked.blpop('a-list', 0);

    sentinel.hang(port);
    await eventually(async () => expect(await sentinel.primaryOf('')).not.toBe(port), 10_000);
    const next = await sentinel.primaryOf('');
    await eventually(() => {
      for (const { stream, status } of [...connections, sibling])
        expect({ status, port: stream.remotePort }).toEqual({ status: 'ready', port: next });
    }, 2000);

    await command.rpush('a-list', 'one');
    expect(await popped).toEqual(['a-list', 'one']);
    sentinel.wake(port);
  }, 30_000);
});
