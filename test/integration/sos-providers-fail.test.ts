import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { type ProviderSimulator, startProviderSimulator } from '../../lib/standins/providers.ts';
import { connectAdmin, newPhone, request, signIn, type User } from '../support/clients.ts';
import { eventually } from '../support/eventually.ts';
import { redisContent, withRedis } from '../support/redis-content.ts';
import { type System, startSystem } from '../support/system.ts';

const twilio = { accountSid: 'AC00000000000000000000000000000000', authToken: 'development-only' };
const onCall = '+12025550199';

let simulator: ProviderSimulator;
let system: System;
let admin: User;

beforeAll(async () => {
  simulator = await startProviderSimulator({ twilio });
  system = await startSystem({
    env: { PROVIDERS_SANDBOX_URL: simulator.url, RATE_LIMIT_PER_USER: '100000' },
  });
  admin = await signIn(system, '+919800000000');
}, 30_000);
afterAll(async () => {
  await system.stop();
  await simulator.stop();
});
beforeEach(() => {
  for (const provider of ['twilio', 'twilio-voice', 'msg91', 'whatsapp', 'pagerduty'] as const)
    simulator.clear(provider);
});

interface Entry {
  at: string;
  what: string;
  note?: string;
}

/** Somebody with so many contacts. */
async function userWith(howMany: number) {
  const user = await signIn(system);
  const phones = Array.from({ length: howMany }, newPhone);
  const contacts = phones.map((phone, n) => ({ name: `Friend ${n}`, phone, relation: 'friend' }));
  const put = { token: user.token, body: { contacts } };
  expect((await request(system, 'PUT', '/api/v1/me/emergency-contacts', put)).status).toBe(200);
  return { user, phones };
}
const press = async ({ token }: User, body: object = {}): Promise<string> =>
  (await request(system, 'POST', '/api/v1/sos', { token, body })).body.alertId;
const logOf = async (alertId: string): Promise<Entry[]> =>
  (await request(system, 'GET', `/api/v1/admin/sos/${alertId}`, { token: admin.token })).body.log;
const whats = (log: readonly Entry[]) => log.map(({ what }) => what);
const sms = (to: string) => simulator.outbox({ to, channel: 'sms' });

describe('notifications of an SOS that fail', () => {
  test('R3.6 a failed notification is retried with exponential backoff, 3 times per channel; then the next channel; then a person on call is told', async () => {
    const { user, phones } = await userWith(1);
    simulator.fail('twilio', { kind: '500' });
    simulator.fail('msg91', { kind: '429' });
    // Not on WhatsApp: once is enough
    simulator.fail('whatsapp', { kind: 'reject', code: 131026 });
    const alertId = await press(user);
    const log = await eventually(async () => {
      const entries = await logOf(alertId);
      expect(whats(entries)).toEqual(
        expect.arrayContaining(['contact-not-reached', 'incident-opened', 'on-call-called']),
      );
      return entries;
    }, 14_000);
    // Six are followed by another; the seventh is the last
    const tries = log.filter(({ what }) => what === 'contact-try-failed' || what === 'contact-not-reached');
    expect(tries.map(({ note }) => /by (\w+)/.exec(note ?? '')?.[1])).toEqual([
      'twilio',
      'twilio',
      'twilio',
      'msg91',
      'msg91',
      'msg91',
      undefined,
    ]);
    const times = tries.map(({ at }) => Date.parse(at));
    const waits = times.slice(1).map((at, n) => at - times[n]!);
    // Half of 1 s and 2 s at least, half being chance; the next channel is due at once
    for (const [n, least] of [500, 1000, 0, 500, 1000, 0].entries())
      expect(waits[n]).toBeGreaterThanOrEqual(least - 20);
    expect(waits[2]).toBeLessThan(waits[0]! + waits[1]!);
    expect(sms(phones[0]!)).toEqual([]);
    expect(simulator.outbox({ to: onCall, channel: 'call' }).length).toBeGreaterThan(0);
    expect(simulator.incidents().some(({ dedupKey }) => dedupKey === alertId)).toBe(true);
    // Kept for people to look at, without a number
    const dead = (await redisContent(system.config.redisUrl)).find((line) =>
      line.startsWith('sos:dead-letters'),
    );
    expect(dead).toContain(alertId);
    expect(dead).not.toContain(phones[0]);
    const { events } = (
      await request(system, 'GET', '/api/v1/admin/events?limit=1000', { token: admin.token })
    ).body;
    expect(events).toContainEqual(
      expect.objectContaining({
        kind: 'sos.updated',
        data: expect.objectContaining({ alertId, what: 'contact-not-reached' }),
      }),
    );
  }, 30_000);

  test('R3.6 R4.2 what one provider refuses for good the next sends at once; others of the group are not held up', async () => {
    const { user, phones } = await userWith(3);
    simulator.fail('twilio', { kind: 'reject', code: 21211, times: 1 });
    const alertId = await press(user);
    await eventually(() => expect(phones.flatMap(sms)).toHaveLength(3), 3000);
    expect(
      phones
        .flatMap(sms)
        .map(({ provider }) => provider)
        .toSorted(),
    ).toEqual(['msg91', 'twilio', 'twilio']);
    await eventually(async () =>
      expect(whats(await logOf(alertId)).filter((what) => what === 'contact-told')).toHaveLength(3),
    );
  });

  test.each([
    ['takes it and loses the connection', { kind: 'dropped', times: 1 }],
    ['takes it and answers too late', { kind: 'slow', delayMs: 60_000, times: 1 }],
    ['is not there', { kind: 'down', times: 1 }],
    ['has too much to do', { kind: '429', times: 1 }],
  ] as const)(
    'R3.6 a provider that %s: the contact is told once',
    async (_, script) => {
      const { user, phones } = await userWith(1);
      simulator.fail('twilio', script);
      const alertId = await press(user);
      await eventually(async () => expect(whats(await logOf(alertId))).toContain('contact-told'), 12_000);
      expect(sms(phones[0]!)).toHaveLength(1);
    },
    20_000,
  );

  test('R3.1 the queue is its own: on the SOS Redis, apart from notifications', async () => {
    const { user } = await userWith(1);
    const alertId = await press(user);
    await eventually(async () => expect(whats(await logOf(alertId))).toContain('contact-told'));
    const keys = await withRedis(system.config.redisUrl, (redis) => redis.keys('*'));
    const prefixes = new Set(keys.flatMap((key) => /^\{(\w[\w-]*)\}:/.exec(key)?.[1] ?? []));
    expect([...prefixes]).toEqual(expect.arrayContaining(['sos', 'sos-send', 'notify']));
    const ofNotify = (await redisContent(system.config.redisUrl)).filter((line) =>
      line.startsWith('{notify}:'),
    );
    expect(ofNotify.join()).not.toContain(alertId);
  });

  test('R3.5 admins get it on their socket, with a map link, the user, the trip and the alarm sound', async () => {
    const { user } = await userWith(0);
    const events: { kind: string; data: { alertId?: string } }[] = [];
    const socket = await connectAdmin(system, admin.token);
    try {
      socket.on('events', (came) => events.push(...(came as typeof events)));
      expect(await socket.emitWithAck('subscribe', { kinds: ['sos.triggered'] })).toMatchObject({ ok: true });
      const location = { lat: -10.939341, lng: -37.062742, accuracy: 12 };
      const alertId = await press(user, { location, tripId: 'trp_1' });
      const triggered = await eventually(() => {
        const found = events.find(({ data }) => data.alertId === alertId);
        expect(found).toBeDefined();
        return found;
      });
      expect(triggered).toMatchObject({
        kind: 'sos.triggered',
        data: {
          userId: user.id,
          name: 'Asha',
          tripId: 'trp_1',
          location,
          mapUrl: 'https://maps.google.com/?q=-10.93934,-37.06274',
          sound: true,
          drill: false,
        },
      });
    } finally {
      socket.close();
    }
  });
});
