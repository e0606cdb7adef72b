import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import type { Redis } from 'ioredis';
import { newId } from '../../lib/ids.ts';
import { LiveIndex } from '../../services/location/live-index.ts';
import { eventually } from '../support/eventually.ts';
import { type MongoSimulator, startMongoSimulator } from '../support/mongo-simulator/index.ts';
import { reportedAt } from '../support/positions.ts';
import { type Application, spawnApplication, untilReady } from '../support/process.ts';
import { startTestRedis, type TestRedis } from '../support/redis.ts';

const driver = 'usr_driver';
const kills = 5;
/** On a busy machine, ms. */
const readyWithinMs = 45_000;

let server: TestRedis;
let redis: Redis;
let mongo: MongoSimulator;
let dataDir: string;
const running = new Set<Application>();

beforeAll(async () => {
  server = await startTestRedis();
  redis = server.connect();
  mongo = await startMongoSimulator();
  dataDir = await mkdtemp(join(tmpdir(), 'ride-history-'));
});
afterAll(async () => {
  await Promise.all([...running].map(kill));
  await mongo.stop();
  await server.stop();
  await rm(dataDir, { recursive: true, force: true });
});

/** A process that does nothing but move the history. */
async function startMover(): Promise<Application> {
  const mover = await spawnApplication(join(dataDir, newId('ntf')), {
    SERVICES: 'location/location-history.service.ts',
    REDIS_URL: server.url,
    MONGO_URI: mongo.uri,
    PROVIDERS_SANDBOX_URL: 'http://127.0.0.1:1',
    LOCATION_HISTORY_INTERVAL_MS: '500',
  });
  running.add(mover);
  return mover;
}

async function kill(mover: Application): Promise<void> {
  running.delete(mover);
  mover.child.kill('SIGKILL');
  await mover.exited;
}

/** Every point that the database has, as often as it has it. */
const stored = (): string[] =>
  mongo
    .database()
    .collection('location-history')
    .find({})
    .map(({ tripId, timestamp }) => `${String(tripId)} ${(timestamp as Date).getTime()}`)
    .toSorted();

test('R2.4 R9.2 kill -9 of one history worker after the other, at any point, loses nothing and doubles nothing', async () => {
  const index = new LiveIndex(redis, 3_600_000);
  const trips = Array.from({ length: 80 }, () => newId('trp'));
  await Promise.all(trips.map((tripId) => index.open(tripId, driver)));
  const base = Date.now() - 3_600_000;
  const accepted: string[] = [];
  const over = new AbortController();
  const write = async () => {
    for (let n = 1; !over.signal.aborted; n++) {
      const batch = trips.map((tripId) => reportedAt(tripId, base + n * 1000));
      expect(await index.apply(batch)).toMatchObject({ accepted: trips.length, lost: 0 });
      accepted.push(...batch.map(({ tripId, timestamp }) => `${tripId} ${timestamp}`));
      // A backlog with a point that is there already
      const tripId = trips[n % trips.length] ?? '';
      const backlog = [base + n * 1000 - 500, base + n * 1000].map((time) => reportedAt(tripId, time));
      await index.append(tripId, driver, backlog);
      accepted.push(`${tripId} ${base + n * 1000 - 500}`);
      await pause(150);
    }
  };
  // Long enough under way to die in the middle of it
  mongo.delay(15, 'insert');
  const movers = await Promise.all(Array.from({ length: kills + 1 }, startMover));
  await Promise.all(movers.map((mover) => untilReady(mover, readyWithinMs)));
  const writing = write();
  try {
    for (const [n, victim] of movers.slice(1).entries()) {
      if (n % 2 === 0) await pause(Math.random() * 1000);
      else {
        // It is on its way, and the server will carry it out when its sender is dead
        const before = mongo.commands('insert').length;
        await eventually(() => expect(mongo.commands('insert').length).toBeGreaterThan(before));
      }
      await kill(victim);
    }
  } finally {
    over.abort();
    await writing;
  }
  const expected = accepted.toSorted();
  // What the dead were at, the last one takes over after 7.5 s
  await eventually(() => expect(stored().length).toBeGreaterThanOrEqual(expected.length), 15_000);
  expect(stored()).toEqual(expected);
}, 120_000);
