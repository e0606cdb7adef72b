/** From a provider's own signed callback, over the webhook, into the delivery log. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import type { LoggedNotification } from '../../contracts/notify.ts';
import { loadConfig } from '../../lib/config.ts';
import { accountsOf, type ProviderSimulator, startProviderSimulator } from '../../lib/standins/providers.ts';
import { request, signIn, type User } from '../support/clients.ts';
import { eventually } from '../support/eventually.ts';
import { freePort } from '../support/process.ts';
import { type System, startSystem } from '../support/system.ts';

/** Whose receipt is looked at, on which channel, and who has to refuse the message for that one to get it. */
const ways = [
  ['twilio', 'sms', []],
  ['msg91', 'sms', ['twilio']],
  ['whatsapp', 'whatsapp', []],
  ['sendgrid', 'email', []],
  ['ses', 'email', ['sendgrid']],
] as const;
const refusals = { twilio: 21211, sendgrid: 400 } as const;

describe('R4.3 + receipts of providers', () => {
  let simulator: ProviderSimulator;
  let system: System;
  let user: User;
  let admin: User;
  let keys = 0;

  beforeAll(async () => {
    const [port, accounts] = [await freePort(), accountsOf(loadConfig({ NODE_ENV: 'test' }))];
    const callbacks = `http://127.0.0.1:${port}`;
    simulator = await startProviderSimulator({ ...accounts, callbacks, deliverAfterMs: 50 });
    system = await startSystem({
      only: ['notify', 'notify-log', 'accounts', 'api'],
      env: {
        API_PORT: String(port),
        PUBLIC_URL: callbacks,
        PROVIDERS_SANDBOX_URL: simulator.url,
        // Only a receipt can tell in time
        NOTIFY_RECEIPT_AFTER_MS: '600000',
      },
    });
    user = await signIn(system);
    admin = await signIn(system, '+919800000000');
    const { token } = user;
    await request(system, 'PATCH', '/api/v1/me', { token, body: { email: 'asha@example.org' } });
  }, 60_000);
  afterEach(() => {
    for (const [provider] of ways) simulator.clear(provider);
  });
  afterAll(async () => {
    await system.stop();
    await simulator.stop();
  });

  async function notify(channel: string): Promise<string> {
    const { notificationId } = await system.broker.call<{ notificationId: string }, object>('notify.send', {
      to: { userId: user.id },
      template: 'trip-ended',
      channels: [channel],
      idempotencyKey: `receipt-${++keys}`,
      expiresInMs: 3_600_000,
    });
    return notificationId;
  }
  async function last(id: string): Promise<LoggedNotification['attempts'][number] | undefined> {
    const { token } = admin;
    const { body } = await request(system, 'GET', `/api/v1/admin/notifications/${id}`, { token });
    return (body as LoggedNotification).attempts.at(-1);
  }

  test.each(ways)(
    '%s: what became of a message stands in the log',
    async (provider, channel, refusing) => {
      const refuse = () => {
        for (const name of refusing) simulator.fail(name, { kind: 'reject', code: refusals[name], times: 1 });
      };
      refuse();
      const arrived = await notify(channel);
      await eventually(
        async () => expect(await last(arrived)).toMatchObject({ provider, state: 'delivered' }),
        10_000,
      );

      refuse();
      simulator.receipts(provider, { kind: 'reordered', times: 1 });
      const disordered = await notify(channel);
      await eventually(
        async () => expect(await last(disordered)).toMatchObject({ provider, state: 'delivered' }),
        10_000,
      );
    },
    40_000,
  );

  test('a message that does not arrive is sent by the next provider', async () => {
    simulator.receipts('twilio', { kind: 'failed', code: 30003, times: 1 });
    const id = await notify('sms');
    await eventually(
      async () => expect(await last(id)).toMatchObject({ provider: 'msg91', state: 'delivered' }),
      20_000,
    );
  }, 30_000);

  test('who answers STOP gets no more SMS, until START', async () => {
    const say = (text: string) => simulator.receive('twilio', { from: user.phone, text });
    expect(await say('STOP')).toBe(true);
    const refused = await notify('sms');
    const entry = async (id: string) =>
      (await request(system, 'GET', `/api/v1/admin/notifications/${id}`, { token: admin.token })).body;
    await eventually(async () =>
      expect(await entry(refused)).toMatchObject({ status: 'failed', reason: 'no-channel', attempts: [] }),
    );
    expect(await say('START')).toBe(true);
    const again = await notify('sms');
    await eventually(async () => expect(await last(again)).toMatchObject({ state: 'delivered' }), 10_000);
  }, 30_000);

  test('a rider hears once of the end of a trip, and who drives hears nothing', async () => {
    const driver = await signIn(system);
    const sentTo = ({ phone }: User) =>
      simulator.outbox({ to: phone }).filter(({ template }) => template?.includes('trip'));
    const before = sentTo(user).length;
    const event = {
      tripId: 'trp_1',
      riderId: user.id,
      driverId: driver.id,
      status: 'ended',
      at: Date.now(),
    };
    await system.broker.emit('trip.ended', event);
    await system.broker.emit('trip.ended', event);
    await eventually(() => expect(sentTo(user)).toHaveLength(before + 1));
    await system.broker.emit('trip.cancelled', { ...event, tripId: 'trp_2', status: 'cancelled' });
    await eventually(() => expect(sentTo(user)).toHaveLength(before + 2));
    expect(sentTo(driver)).toEqual([]);
  });
});
