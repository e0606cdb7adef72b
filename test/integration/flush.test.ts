import { setTimeout as pause } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import type { Redis } from 'ioredis';
import type { Service } from 'moleculer';
import type { Update } from '../../contracts/location.ts';
import { shardKeys, shardOf } from '../../lib/location-keys.ts';
import { readStream } from '../../lib/location-stream.ts';
import { activeTrip, aracaju, type ClientSocket, connectSocket, request } from '../support/clients.ts';
import { eventually } from '../support/eventually.ts';
import { startTestRedis, type TestRedis } from '../support/redis.ts';
import { type System, startSystem } from '../support/system.ts';

/** Longer than any test: nothing happens by itself. */
const never = '600000';

let server: TestRedis;
let redis: Redis;
let system: System | undefined;
const open: ClientSocket[] = [];

beforeEach(async () => {
  // Outlives the system, so that what it left can be read
  server = await startTestRedis();
  redis = server.connect();
});
afterEach(async () => {
  for (const socket of open.splice(0)) socket.close();
  await system?.stop();
  await server.stop();
});

/** A system on that Redis, with an active trip, and its two people connected. */
async function ride(env: Record<string, string>) {
  const running = await startSystem({ env: { ...env, REDIS_URL: server.url } });
  system = running;
  const { tripId, rider, driver } = await activeTrip(running);
  const watching = await connectSocket(running, rider.token);
  const driving = await connectSocket(running, driver.token);
  open.push(watching, driving);
  const seen: number[] = [];
  watching.on('location', (update) => seen.push(update.timestamp));
  await watching.emitWithAck('trip:join', { tripId });
  const base = Date.now();
  /** An update made `seconds` after the ride's beginning (or before, if negative). */
  const report = async (seconds: number) => {
    const fix = { tripId, ...aracaju, accuracy: 8, timestamp: base + seconds * 1000 };
    expect(await driving.emitWithAck('location:update', fix)).toEqual({ ok: true });
  };
  const streamed = async () => {
    const updates: Update[] = [];
    for await (const { live } of readStream(redis, shardOf(tripId), '-')) updates.push(...live);
    return updates.map((u) => (u.timestamp - base) / 1000);
  };
  const last = async () => {
    const value = await redis.hget(shardKeys(shardOf(tripId)).last, tripId);
    return value === null ? null : (Number(value.split(' ')[0]) - base) / 1000;
  };
  /** As a gateway does it. */
  const handOn = (...seconds: number[]) => {
    const fix = { tripId, userId: driver.id, ...aracaju, accuracy: 8, speed: null, heading: null };
    const updates = seconds.map((s) => ({ ...fix, timestamp: base + s * 1000 }));
    return running.broker.call('location.report', { updates });
  };
  return {
    system: running,
    tripId,
    driver,
    watching,
    report,
    handOn,
    streamed,
    last,
    seen: () => seen.map((t) => (t - base) / 1000),
  };
}

/** How many updates the location service has had that met this end. */
async function counted({ metricsUrl }: System, outcome: 'superseded' | 'retried'): Promise<number> {
  const text = await (await fetch(`${metricsUrl}/metrics`)).text();
  const line = new RegExp(`^location_updates_total\\{[^}]*"${outcome}"[^}]*\\} (\\d+)`, 'm');
  return Number(line.exec(text)?.[1] ?? 0);
}

/** What holds updates until their time, in the gateway. */
const outgoingOf = ({ broker }: System): { size: number; flush(): Promise<void> } =>
  (broker.getLocalService('gateway') as Service & { outgoing: { size: number; flush(): Promise<void> } })
    .outgoing;

describe('R2.4 the streams', () => {
  test('take half of the memory of Redis at most, whatever is configured: sessions and queues need the rest', async () => {
    const mb = 1024 * 1024;
    await redis.config('SET', 'maxmemory', String(16 * mb));
    const { system: running, tripId, driver } = await ride({ LOCATION_STREAMS_MAX_MB: '512' });
    const base = Date.now();
    // Some 180 KB, where a 64th of 8 MB is 128
    const updates = Array.from({ length: 1000 }, (_, n) => ({
      ...aracaju,
      accuracy: 8,
      speed: 9.25,
      heading: 120,
      timestamp: base + n,
    }));
    const put = (some: typeof updates) =>
      request(running, 'POST', `/api/v1/trips/${tripId}/locations`, {
        token: driver.token,
        body: { updates: some },
      });
    expect((await put(updates)).status).toBe(503);
    expect(await put(updates.slice(0, 100))).toMatchObject({ status: 200, body: { accepted: 100 } });
  });
});

describe('the buffer', () => {
  test('R2.1 R2.3 updates wait for the tick; then the newest of each trip is processed', async () => {
    const { system: running, report, streamed, last, seen } = await ride({ LOCATION_TICK_MS: never });
    for (const seconds of [0, 10, 5]) await report(seconds);
    expect([await streamed(), await last(), seen()]).toEqual([[], null, []]);
    expect(outgoingOf(running).size).toBe(1);
    await outgoingOf(running).flush();
    await eventually(() => expect(seen()).toEqual([10]));
    expect([await streamed(), await last()]).toEqual([[10], 10]);
  });

  test("R2.3 of what several gateways hand on at once each user's newest is processed, at once", async () => {
    const { system: running, handOn, streamed, seen } = await ride({ LOCATION_TICK_MS: never });
    await Promise.all([handOn(0, 10), handOn(5), handOn(10)]);
    await eventually(() => expect(seen()).toEqual([10]));
    expect(await streamed()).toEqual([10]);
    expect(await counted(running, 'superseded')).toBe(3);
  });

  test('R2.1 a gateway has its answer when Redis has the positions, and after a moment when Redis is slow', async () => {
    const { handOn, streamed } = await ride({ LOCATION_TICK_MS: never });
    await handOn(1);
    expect(await streamed()).toEqual([1]);
    await redis.call('CLIENT', 'PAUSE', '60000', 'WRITE');
    await handOn(2);
    expect(await streamed()).toEqual([1]);
    await redis.call('CLIENT', 'UNPAUSE');
    await eventually(async () => expect(await streamed()).toEqual([1, 2]));
  });

  test('R2.1 the tick processes it by itself', async () => {
    const { report, streamed, seen } = await ride({ LOCATION_TICK_MS: '20' });
    await report(0);
    await eventually(async () => expect(await streamed()).toEqual([0]));
    await report(5);
    await eventually(() => expect(seen()).toEqual([0, 5]));
  });
});

describe('a stop', () => {
  test('R2 + waits for the batch under way, and hands out what location has buffered', async () => {
    const { system: running, handOn, streamed } = await ride({ LOCATION_TICK_MS: never });
    const { buffer } = running.broker.getLocalService('location') as Service & { buffer: { size: number } };
    await redis.call('CLIENT', 'PAUSE', '1000', 'WRITE');
    await handOn(1);
    await eventually(() => expect(buffer.size).toBe(0));
    await handOn(2);
    expect(await streamed()).toEqual([]);
    await running.stop();
    system = undefined;
    expect(await streamed()).toEqual([1, 2]);
  });

  test('R2 + hands out what the gateway still holds, and tells its clients to go elsewhere', async () => {
    const { system: running, report, streamed, watching } = await ride({ LOCATION_TICK_MS: never });
    const drain = new Promise((resolve) => watching.once('server:drain', resolve));
    await report(0);
    await running.stop();
    system = undefined;
    expect(await streamed()).toEqual([0]);
    expect(await drain).toEqual({ reconnectInMs: expect.any(Number) });
    await eventually(() => expect(watching.connected).toBe(false));
  });
});

describe('Redis goes away', () => {
  test('R2.1 the newest is kept meanwhile, and processed and delivered once Redis is back', async () => {
    const { system: running, report, streamed, last, seen } = await ride({ LOCATION_TICK_MS: '50' });
    await report(0);
    await eventually(() => expect(seen()).toEqual([0]));
    await server.halt();
    for (const seconds of [1, 2, 9, 3]) await report(seconds);
    await eventually(async () => expect(await counted(running, 'retried')).toBeGreaterThan(0), 10_000);
    await server.resume();
    await eventually(async () => expect(await last()).toBe(9), 10_000);
    await eventually(() => expect(seen().at(-1)).toBe(9), 10_000);
    // What was on its way may have come before it, nothing after it or twice
    const all = await streamed();
    expect(all).toEqual([...new Set(all)].toSorted((a, b) => a - b));
    expect(seen()).toEqual(all);
    await report(20);
    await eventually(() => expect(seen()).toEqual([...all, 20]));
  }, 30_000);

  test('R2.1 hanging for 10 s under load it costs nothing but time: the buffer is bounded, the newest of each trip counts', async () => {
    const { system: running, report, seen } = await ride({ LOCATION_TICK_MS: '50' });
    const { broker } = running;
    const location: Service & { buffer?: { size: number } } = broker.getLocalService('location');
    const warnings: string[] = [];
    location.logger.warn = (text: string) => void warnings.push(text);
    const user = { id: 'usr_0', role: 'driver' as const, sessionId: 's' };
    const trips = Array.from({ length: 300 }, (_, n) => ({ tripId: `trp_${n}`, userId: `usr_${n}` }));
    for (const { tripId, userId } of trips)
      await eventually(() => broker.call('location.open', { tripId, driverId: userId }));
    const base = Date.now();
    const load = (ms: number) => {
      const timestamp = base + ms;
      const fix = { ...aracaju, accuracy: 8, speed: null, heading: null, timestamp };
      const updates = trips.map((trip) => ({ ...trip, ...fix }));
      return broker.call('location.report', { updates });
    };

    await report(0);
    await eventually(() => expect(seen()).toEqual([0]));
    // The server takes everything and answers nothing, to whoever asks
    await redis.call('CLIENT', 'PAUSE', '10000', 'ALL');
    const until = performance.now() + 10_000;
    const stranger = expect(
      broker.call('location.state', { tripId: 'trp_0' }, { meta: { user } }),
    ).rejects.toMatchObject({ type: 'UNAVAILABLE' });
    const sizes: number[] = [];
    let sent = 1;
    for (; performance.now() < until; sent++) {
      await load(sent);
      sizes.push(location.buffer?.size ?? Number.NaN);
      await report(sent);
      // Slow enough that the phone's clock, a second each, does not run a minute ahead
      await pause(200);
    }
    await stranger;
    expect(Math.max(...sizes)).toBe(trips.length + 1);
    expect(await counted(running, 'retried')).toBeGreaterThan(trips.length);
    expect(warnings).toContain('A batch of locations waits for Redis');
    // One each time that it was waited for in vain, and not one each tick
    expect(warnings.length).toBeLessThan(20);

    const newest = base + sent - 1;
    const lastOf = async ({ tripId }: { tripId: string }) => {
      const value = await redis.hget(shardKeys(shardOf(tripId)).last, tripId);
      return Number(value?.split(' ')[0]);
    };
    await eventually(async () => {
      expect(new Set(await Promise.all(trips.map(lastOf)))).toEqual(new Set([newest]));
      expect(seen().at(-1)).toBe(sent - 1);
    }, 10_000);
    expect(location.buffer?.size).toBe(0);
  }, 60_000);
});
