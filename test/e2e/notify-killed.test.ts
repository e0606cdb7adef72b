import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { loadConfig } from '../../lib/config.ts';
import { newId } from '../../lib/ids.ts';
import { sealerOf } from '../../lib/sealed.ts';
import { type ProviderSimulator, startProviderSimulator } from '../../lib/standins/providers.ts';
import { begun } from '../../services/notify/notification.ts';
import { NotificationRecords } from '../../services/notify/records.ts';
import { newPhone } from '../support/clients.ts';
import { eventually } from '../support/eventually.ts';
import { type MongoSimulator, startMongoSimulator } from '../support/mongo-simulator/index.ts';
import { type Application, spawnApplication, untilReady } from '../support/process.ts';
import { startTestRedis, type TestRedis } from '../support/redis.ts';

const readyWithinMs = 45_000;
const messages = 200;

let server: TestRedis;
let mongo: MongoSimulator;
let simulator: ProviderSimulator;
let dataDir: string;
const running = new Set<Application>();

beforeAll(async () => {
  server = await startTestRedis();
  mongo = await startMongoSimulator();
  simulator = await startProviderSimulator({
    twilio: { accountSid: `AC${'0'.repeat(32)}`, authToken: 'development-only' },
  });
  dataDir = await mkdtemp(join(tmpdir(), 'ride-notify-'));
});
afterAll(async () => {
  await Promise.all([...running].map(kill));
  await simulator.stop();
  await mongo.stop();
  await server.stop();
  await rm(dataDir, { recursive: true, force: true });
});

async function startHub(): Promise<Application> {
  const hub = await spawnApplication(join(dataDir, newId('ntf')), {
    SERVICES: 'notify',
    REDIS_URL: server.url,
    MONGO_URI: mongo.uri,
    PROVIDERS_SANDBOX_URL: simulator.url,
    NOTIFY_IN_FLIGHT: '16',
  });
  running.add(hub);
  return hub;
}

async function kill(hub: Application): Promise<void> {
  running.delete(hub);
  hub.child.kill('SIGKILL');
  await hub.exited;
}

/** Messages that a process has sent again without knowing whether they were. */
async function resentBy({ metricsUrl }: Application): Promise<number> {
  const text = await (await fetch(`${metricsUrl}/metrics`)).text();
  return Number(/^notify_resent_total\{.*\} (\d+)/m.exec(text)?.[1] ?? 0);
}

test('R4.1 P4 kill -9 of a worker in the middle of a lot: every message is sent, and none twice that is not counted', async () => {
  const hubs = await Promise.all([startHub(), startHub()]);
  await Promise.all(hubs.map((hub) => untilReady(hub, readyWithinMs)));
  simulator.fail('twilio', { kind: 'slow', delayMs: 150 });
  const records = new NotificationRecords(server.connect());
  const sealer = sealerOf(loadConfig({ NODE_ENV: 'test' }));
  const phones = Array.from({ length: messages }, newPhone);
  const now = Date.now();
  await Promise.all(
    phones.map((phone) =>
      records.create({
        id: newId('ntf'),
        request: {
          template: 'trip-ended@1',
          lane: 'high',
          userId: null,
          channels: ['sms'],
          createdAt: now,
          expiresAt: now + 300_000,
          sendAt: null,
        },
        sealed: sealer.seal(JSON.stringify({ phone, data: {} })),
        progress: begun,
        dueAt: now,
      }),
    ),
  );
  const sent = () => simulator.outbox({ channel: 'sms' }).map(({ to }) => to);
  await eventually(() => expect(sent().length).toBeGreaterThan(messages / 8), 20_000);
  const [victim, survivor] = hubs;
  if (!victim || !survivor) throw new Error('There are two');
  const resentBefore = await resentBy(victim);
  await kill(victim);
  expect(sent().length).toBeLessThan(messages);
  await eventually(() => expect(new Set(sent()).size).toBe(messages), 60_000);
  // Whatever the dead one left without an outcome has been looked into
  const redis = server.connect();
  await eventually(async () => {
    const ids = await redis.zrange('{notify}:due', 0, -1);
    const found = await records.readMany(ids);
    expect(found.filter((one) => one?.progress.attempts.some(({ state }) => state === 'sending'))).toEqual(
      [],
    );
  }, 30_000);
  // Twilio is asked before anything is sent again; on a machine too busy for its answer it is sent, and counted
  expect(sent().length - messages).toBeLessThanOrEqual(resentBefore + (await resentBy(survivor)));
}, 120_000);
