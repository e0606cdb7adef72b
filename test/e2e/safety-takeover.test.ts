import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import type { Redis } from 'ioredis';
import type { SafetyCheck } from '../../contracts/safety.ts';
import { readNewest } from '../../lib/feed-stream.ts';
import { shardCount, shardOf } from '../../lib/location-keys.ts';
import { type ProviderSimulator, startProviderSimulator } from '../../lib/standins/providers.ts';
import { activeTrip, aracaju, type ClientSocket, connectSocket, type Doors } from '../support/clients.ts';
import { eventually } from '../support/eventually.ts';
import { startNats, type TestNats } from '../support/nats.ts';
import { type RoleProcesses, startRoles } from '../support/process.ts';
import { startTestRedis, type TestRedis } from '../support/redis.ts';

const fleet = {
  rest: 'api,gateway,accounts,trips,notify,location',
  safety1: 'safety',
  safety2: 'safety',
};
const answerWithinMs = 4000;

let server: TestRedis;
let redis: Redis;
let nats: TestNats;
let simulator: ProviderSimulator;
let roles: RoleProcesses<keyof typeof fleet>;
let doors: Doors;
const sockets: ClientSocket[] = [];

beforeAll(async () => {
  server = await startTestRedis();
  redis = server.connect();
  nats = await startNats();
  simulator = await startProviderSimulator({
    twilio: { accountSid: 'AC00000000000000000000000000000000', authToken: 'development-only' },
  });
  roles = await startRoles(fleet, {
    NATS_URL: nats.url,
    REDIS_URL: server.url,
    PROVIDERS_SANDBOX_URL: simulator.url,
    LOCATION_TICK_MS: '200',
    RATE_LIMIT_PER_USER: '100000',
    SAFETY_READ_EVERY_MS: '200',
    SAFETY_ANSWER_WITHIN_MS: String(answerWithinMs),
  });
  doors = roles.of.rest;
}, 60_000);
afterAll(async () => {
  for (const socket of sockets) socket.close();
  await roles?.stop();
  await simulator?.stop();
  await nats?.stop();
  await server?.stop();
}, 30_000);

const ownerOf = async (tripId: string) => {
  const owner = await redis.hget('{safety}:shards', String(shardOf(tripId)));
  return owner?.startsWith('safety1') ? ('safety1' as const) : ('safety2' as const);
};
const alarms = async (tripId: string) =>
  (await readNewest(redis, 1000)).filter(
    ({ kind, data }) => kind === 'safety.alarm' && data['tripId'] === tripId,
  );

async function ride() {
  const { tripId, rider, driver } = await activeTrip(doors);
  const [riding, driving] = await Promise.all([
    connectSocket(doors, rider.token),
    connectSocket(doors, driver.token),
  ]);
  sockets.push(riding, driving);
  const checks: SafetyCheck[] = [];
  riding.on('safety:check', (check) => checks.push(check));
  /** Where it began, so many ms ago by the phone. */
  const standing = async (ms: number) => {
    const timestamp = Date.now() - ms;
    const fix = { tripId, ...aracaju, accuracy: 8, speed: 0, heading: null, timestamp };
    expect(await driving.emitWithAck('location:update', fix)).toEqual({ ok: true });
    await eventually(async () =>
      expect(await redis.hget(`{loc:${shardOf(tripId)}}:last`, tripId)).toContain(String(timestamp)),
    );
  };
  return { tripId, standing, checks };
}

describe('+ safety checks in two processes', () => {
  test('one is killed: its open question ends in one alarm, and the other goes on with its trips from where they stood', async () => {
    await eventually(async () => {
      const owners = Object.values(await redis.hgetall('{safety}:shards'));
      expect([owners.length, new Set(owners).size]).toEqual([shardCount, 2]);
    }, 10_000);
    const asked = await ride();
    const victim = await ownerOf(asked.tripId);
    // A trip of the same reader, which has stood for a while and is not yet suspected
    let watched = await ride();
    for (let n = 0; (await ownerOf(watched.tripId)) !== victim && n < 20; n++) watched = await ride();
    await watched.standing(400_000);
    await asked.standing(400_000);
    await asked.standing(1000);
    await eventually(() => expect(asked.checks).not.toEqual([]));

    await roles.of[victim].kill();
    await watched.standing(1000);
    // Within the lease and a reading
    await eventually(() => expect(watched.checks[0]).toMatchObject({ kind: 'long-stop' }), 8000);
    await eventually(async () => expect(await alarms(asked.tripId)).toHaveLength(1), answerWithinMs + 5000);
    await eventually(async () => expect(await alarms(watched.tripId)).toHaveLength(1), answerWithinMs + 5000);
    expect(await alarms(asked.tripId)).toMatchObject([{ data: { why: 'silence', kind: 'long-stop' } }]);
  }, 40_000);
});
