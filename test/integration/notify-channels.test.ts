import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import type { LoggedNotification } from '../../contracts/notify.ts';
import { loadConfig } from '../../lib/config.ts';
import { readNewest } from '../../lib/feed-stream.ts';
import { accountsOf, type ProviderSimulator, startProviderSimulator } from '../../lib/standins/providers.ts';
import { request, signIn, type User } from '../support/clients.ts';
import { eventually } from '../support/eventually.ts';
import { withRedis } from '../support/redis-content.ts';
import { type System, startSystem } from '../support/system.ts';

const pushAckMs = 800;

describe('a user is notified on their channels', () => {
  let simulator: ProviderSimulator;
  let system: System;
  let user: User;
  let admin: User;
  let keys = 0;

  beforeAll(async () => {
    simulator = await startProviderSimulator(accountsOf(loadConfig({ NODE_ENV: 'test' })));
    system = await startSystem({
      only: ['notify', 'notify-log', 'accounts', 'api'],
      env: {
        PROVIDERS_SANDBOX_URL: simulator.url,
        NOTIFY_PUSH_ACK_MS: String(pushAckMs),
        NOTIFY_RECEIPT_AFTER_MS: '60000',
      },
    });
    user = await signIn(system);
    admin = await signIn(system, '+919800000000');
    const email = await api('PATCH', '/me', { email: 'asha@example.org' });
    expect(email.body).toMatchObject({ email: 'asha@example.org' });
    await api('PUT', '/me/push-token', { token: 'installation-of-asha', platform: 'android' });
  }, 60_000);
  afterEach(async () => {
    for (const provider of ['fcm', 'sendgrid', 'ses', 'whatsapp', 'twilio'] as const)
      simulator.clear(provider);
    await prefer({});
  });
  afterAll(async () => {
    await system.stop();
    await simulator.stop();
  });

  const api = (method: string, path: string, body?: object, as = user) =>
    request(system, method, `/api/v1${path}`, { token: as.token, ...(body ? { body } : {}) });
  const prefer = (preferences: object) => api('PUT', '/me/preferences', preferences);
  const notify = async (more: object = {}) => {
    const { notificationId } = await system.broker.call<{ notificationId: string }, object>('notify.send', {
      to: { userId: user.id },
      template: 'trip-ended',
      idempotencyKey: `channel-${++keys}`,
      expiresInMs: 3_600_000,
      ...more,
    });
    return notificationId;
  };
  const entry = async (id: string): Promise<LoggedNotification> => {
    const { body } = await api('GET', `/admin/notifications/${id}`, undefined, admin);
    return body as LoggedNotification;
  };
  const waysOf = async (id: string) =>
    (await entry(id)).attempts.map(({ provider, state }) => `${provider} ${state}`);

  test('R4.6 in the order of their preferences', async () => {
    await prefer({ channels: ['email', 'push'], language: 'hi' });
    const id = await notify();
    await eventually(async () =>
      expect(await waysOf(id)).toEqual([expect.stringMatching(/^sendgrid (accepted|sent)/)]),
    );
    const [message] = simulator.outbox({ to: 'asha@example.org', channel: 'email' });
    expect(message?.text).toMatch(/सवारी/);
  });

  test('R4.4 R4.6 SendGrid refuses: SES takes it; both are down: the next channel', async () => {
    await prefer({ channels: ['email', 'whatsapp'] });
    simulator.fail('sendgrid', { kind: 'reject', code: 400, times: 1 });
    const first = await notify();
    await eventually(async () => expect((await waysOf(first)).at(-1)).toMatch(/^ses/), 10_000);
    simulator.fail('sendgrid', { kind: 'reject', code: 400, times: 1 });
    simulator.fail('ses', { kind: '500' });
    const second = await notify();
    await eventually(async () => expect((await waysOf(second)).at(-1)).toMatch(/^whatsapp/), 20_000);
  }, 40_000);

  test('a push of high priority that the app does not acknowledge is sent by SMS; one that it does is not', async () => {
    await prefer({ channels: ['push', 'email', 'sms'] });
    const shown = await notify({ priority: 'high' });
    await eventually(async () => expect(await waysOf(shown)).toEqual(['fcm accepted']));
    expect((await api('POST', `/notifications/${shown}/ack`)).status).toBe(204);
    const missed = await notify({ priority: 'high' });
    await eventually(async () => expect((await waysOf(missed))[1]).toMatch(/^twilio/), 10_000);
    expect(await entry(shown)).toMatchObject({ status: 'delivered', attempts: [{ state: 'delivered' }] });
    expect((await api('POST', `/notifications/${shown}/ack`, undefined, admin)).status).toBe(404);
  });

  test('in quiet hours it waits, and a code does not', async () => {
    const now = new Date();
    const hhmm = (offsetMinutes: number) =>
      new Date(now.getTime() + offsetMinutes * 60_000).toISOString().slice(11, 16);
    await prefer({ timeZone: 'UTC', quietHours: { from: hhmm(-60), to: hhmm(30) } });
    const id = await notify();
    await eventually(async () =>
      expect(await entry(id)).toMatchObject({ status: 'queued', waitsFor: 'quiet-hours' }),
    );
    const code = await notify({ template: 'otp', data: { code: '483920' }, channels: ['sms'] });
    await eventually(async () => expect((await waysOf(code))[0]).toMatch(/^twilio/));
    expect((await entry(id)).attempts).toEqual([]);
    const short = await notify({ expiresInMs: 60_000 });
    await eventually(async () =>
      expect(await entry(short)).toMatchObject({ status: 'expired', reason: 'quiet-hours' }),
    );
  });

  test('an installation that FCM does not know any more loses its token', async () => {
    await prefer({ channels: ['push', 'sms'] });
    await api('PUT', '/me/push-token', { token: 'installation-that-is-gone', platform: 'android' });
    simulator.fail('fcm', { kind: 'reject', code: 'UNREGISTERED', times: 1 });
    const id = await notify();
    await eventually(async () => expect((await waysOf(id))[1]).toMatch(/^twilio/), 10_000);
    const { recipients } = await system.broker.call<{ recipients: { pushToken: string | null }[] }, object>(
      'accounts.recipients',
      { userIds: [user.id] },
    );
    expect(recipients).toMatchObject([{ pushToken: null }]);
    await api('PUT', '/me/push-token', { token: 'installation-of-asha', platform: 'android' });
  });

  test('R12.4 admins are told once when a provider gets bad', async () => {
    simulator.fail('twilio', { kind: '500' });
    const told = async () =>
      withRedis(system.config.redisUrl, async (redis) =>
        (await readNewest(redis, 100)).filter(({ kind }) => kind === 'notify.degraded'),
      );
    for (let i = 0; i < 25; i++)
      await notify({ template: 'otp', data: { code: '111111' }, channels: ['sms'], expiresInMs: 5000 });
    await eventually(async () => expect(await told()).not.toEqual([]), 20_000);
    const events = await told();
    expect(events.filter(({ data }) => data['provider'] === 'twilio')).toHaveLength(1);
    expect(events.find(({ data }) => data['provider'] === 'twilio')?.data).toMatchObject({
      channel: 'sms',
      recovered: false,
      rate: expect.any(Number),
    });
  }, 30_000);

  test('no address is where it can be read: not in the database, not in the log', async () => {
    const id = await notify();
    expect(JSON.stringify(await entry(id))).not.toMatch(/asha@|98\d{8}/);
    expect((await api('GET', `/admin/notifications/${id}`)).status).toBe(403);
    expect((await api('PATCH', '/me', { email: 'nobody' })).status).toBe(400);
    expect((await api('PATCH', '/me', {})).status).toBe(400);
    expect((await api('PATCH', '/me', { email: null })).body).toMatchObject({ email: null });
    await api('PATCH', '/me', { email: 'asha@example.org' });
  });
});
