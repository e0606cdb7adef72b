import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { activeTrip, aracaju, connectSocket, request } from '../support/clients.ts';
import { eventually } from '../support/eventually.ts';
import {
  type Application,
  freePort,
  processesMentioning,
  spawnApplication,
  untilReady,
} from '../support/process.ts';

describe('the process that npm start runs', () => {
  let dataDir: string;
  const started: Application[] = [];
  const start = async (env: Record<string, string> = {}) => {
    const application = await spawnApplication(dataDir, env);
    started.push(application);
    return application;
  };

  beforeAll(async () => {
    dataDir = await mkdtemp(join(tmpdir(), 'ride-process-'));
  });
  afterAll(async () => {
    for (const { child, exited } of started) {
      if (child.exitCode !== null || child.signalCode !== null) continue;
      child.kill('SIGTERM');
      await exited;
    }
    await rm(dataDir, { recursive: true, force: true });
  });

  test('keeps users, sessions, trips and positions over kill -9, and leaves nothing when it stops', async () => {
    const first = await start();
    await untilReady(first);
    expect(first.output()).toContain(`${first.apiUrl.replace('127.0.0.1', 'localhost')}/api/v1`);
    const { tripId, rider, driver } = await activeTrip(first);
    const driving = await connectSocket(first, driver.token);
    const backlog = { ...aracaju, accuracy: 5, speed: 4, heading: 10, timestamp: Date.now() };
    expect(await driving.emitWithAck('location:batch', { tripId, updates: [backlog] })).toMatchObject({
      ok: true,
      accepted: 1,
    });
    driving.close();
    first.child.kill('SIGKILL');
    await first.exited;

    const second = await start();
    await untilReady(second);
    const trip = await request(second, 'GET', `/api/v1/trips/${tripId}`, { token: rider.token });
    expect(trip.body).toMatchObject({ id: tripId, status: 'active', driverId: driver.id });
    const watching = await connectSocket(second, rider.token);
    expect(await watching.emitWithAck('trip:join', { tripId })).toMatchObject({ ok: true, last: backlog });
    watching.close();

    const stoppedAt = performance.now();
    second.child.kill('SIGINT');
    expect(await second.exited).toBe(0);
    expect(performance.now() - stoppedAt).toBeLessThan(8000);
    expect(await processesMentioning(dataDir)).toEqual([]);
  }, 60_000);

  test('starts without MongoDB, and ends in time while it waits for it and afterwards', async () => {
    const env = { MONGO_URI: `mongodb://127.0.0.1:${await freePort()}/ride` };
    const endsInTime = async ({ child, exited }: Application) => {
      const toldAt = performance.now();
      child.kill('SIGTERM');
      expect(await exited).toBe(0);
      expect(performance.now() - toldAt).toBeLessThan(8000);
    };
    const waiting = await start(env);
    // The services have begun to start, one after the other: the first to listen is not the last
    await eventually(
      async () => expect((await fetch(`${waiting.metricsUrl}/readyz`)).status).toBe(503),
      20_000,
    );
    await endsInTime(waiting);

    const alone = await start(env);
    await untilReady(alone);
    const { checks } = (await (await fetch(`${alone.metricsUrl}/readyz`)).json()) as {
      checks: { db: string };
    };
    expect(checks.db).not.toBe('ok');
    await endsInTime(alone);
    expect(await processesMentioning(dataDir)).toEqual([]);
  }, 60_000);

  test('names a port that is taken and ends, leaving nothing', async () => {
    const port = await freePort();
    const other = createServer().listen(port, '127.0.0.1');
    await once(other, 'listening');
    try {
      const application = await start({ API_PORT: String(port) });
      expect(await application.exited).toBe(1);
      expect(application.output()).toContain(`API_PORT: port ${port} is in use`);
      expect(await processesMentioning(dataDir)).toEqual([]);
    } finally {
      other.close();
      await once(other, 'close');
    }
  }, 30_000);

  test('names every bad setting at once and ends', async () => {
    const application = await start({ LOG_LEVEL: 'loud', OTP_TTL_S: 'soon' });
    expect(await application.exited).toBe(1);
    expect(application.output()).toContain('LOG_LEVEL');
    expect(application.output()).toContain('OTP_TTL_S');
    expect(application.output()).not.toMatch(/loud|soon|at file:/);
  }, 30_000);
});
