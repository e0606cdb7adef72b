import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from '@jest/globals';
import { type DevelopmentRedis, startRedis } from '../../lib/standins/redis.ts';
import { newPhone, request, signIn } from '../support/clients.ts';
import { eventually } from '../support/eventually.ts';
import { freePort } from '../support/process.ts';
import { startTestRedis, type TestRedis } from '../support/redis.ts';
import { type System, startSystem } from '../support/system.ts';

describe('R8 + the main Redis is away when a process starts', () => {
  let system: System | undefined;
  let sosRedis: TestRedis | undefined;
  let late: DevelopmentRedis | undefined;
  let dataDir: string | undefined;

  afterEach(async () => {
    await system?.stop();
    await late?.stop();
    await sosRedis?.stop();
    if (dataDir) await rm(dataDir, { recursive: true });
    system = sosRedis = late = dataDir = undefined;
  });

  const readiness = async ({ metricsUrl }: System) => {
    const answer = await fetch(`${metricsUrl}/readyz`);
    return { status: answer.status, body: (await answer.json()) as { checks: Record<string, string> } };
  };

  test('its doors open all the same, say what is missing, and all works once Redis comes', async () => {
    sosRedis = await startTestRedis();
    dataDir = await mkdtemp(join(tmpdir(), 'ride-late-'));
    const since = performance.now();
    system = await startSystem({
      env: { REDIS_URL: join(dataDir, 'redis.sock'), SOS_REDIS_URL: sosRedis.url },
    });
    // 2 s of waiting, and what a start takes on a busy machine
    expect(performance.now() - since).toBeLessThan(8000);
    const { status, body } = await readiness(system);
    expect(status).toBe(200);
    expect(body.checks).toMatchObject({ sosRedis: 'ok' });
    expect(body.checks['redis']).not.toBe('ok');
    const refused = await request(system, 'POST', '/api/v1/auth/otp', { body: { phone: '+919812345678' } });
    expect([refused.status, refused.body.error.code]).toEqual([503, 'UNAVAILABLE']);
    const key = { idempotencyKey: 'k', expiresInMs: 60_000 };
    const message = { to: { phone: '+919812345678' }, template: 'otp', data: { code: '1234' }, ...key };
    await expect(system.broker.call('notify.send', message)).rejects.toMatchObject({ type: 'UNAVAILABLE' });

    late = await startRedis({ dataDir });
    const running = system;
    await eventually(async () => {
      expect((await readiness(running)).body.checks['redis']).toBe('ok');
      expect((await signIn(running)).token).toEqual(expect.any(String));
    }, 10_000);
  }, 40_000);

  test.each([
    ['Sentinel', 'redis-sentinel://HOST/rides'],
    ['a Cluster', 'redis-cluster://HOST'],
  ])(
    'with %s it starts too, refuses within 5 s, and stops',
    async (_name, url) => {
      sosRedis = await startTestRedis();
      const host = `127.0.0.1:${await freePort()}`;
      const since = performance.now();
      system = await startSystem({
        env: { REDIS_URL: url.replace('HOST', host), SOS_REDIS_URL: sosRedis.url },
      });
      expect(performance.now() - since).toBeLessThan(8000);
      expect((await readiness(system)).body.checks['redis']).not.toBe('ok');
      const asked = performance.now();
      const refused = await request(system, 'POST', '/api/v1/auth/otp', { body: { phone: '+919812345678' } });
      expect([refused.status, refused.body.error.code]).toEqual([503, 'UNAVAILABLE']);
      expect(performance.now() - asked).toBeLessThan(5000);
    },
    40_000,
  );
});

test("+ R3.4 the SOS Redis is away: the door writes to contacts by itself, in the raiser's language", async () => {
  const [main, sos] = [await startTestRedis(), await startTestRedis()];
  const system = await startSystem({ env: { REDIS_URL: main.url, SOS_REDIS_URL: sos.url } });
  try {
    const { token } = await signIn(system);
    const phone = newPhone();
    const contacts = [{ name: 'Friend', phone, relation: 'friend' }];
    const put = (path: string, body: object) => request(system, 'PUT', `/api/v1/me/${path}`, { token, body });
    expect((await put('emergency-contacts', { contacts })).status).toBe(200);
    expect((await put('preferences', { language: 'hi' })).status).toBe(200);
    await sos.halt();
    const body = { location: { lat: 12.97161, lng: 77.59461, accuracy: 9 } };
    expect((await request(system, 'POST', '/api/v1/sos', { token, body })).status).toBe(202);
    await eventually(async () => {
      const answer = await request(system, 'GET', `/dev/outbox?to=${encodeURIComponent(phone)}`);
      expect(answer.body.messages.map(({ text }: { text: string }) => text)).toEqual([
        'SOS: Asha को मदद चाहिए। यहाँ https://maps.google.com/?q=12.97161,77.59461 (अभी)। फ़ोन करें।',
      ]);
    }, 20_000);
  } finally {
    await system.stop();
    await main.stop();
    await sos.stop();
  }
}, 60_000);
