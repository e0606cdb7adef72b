import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import type { Recipient as Person } from '../../../contracts/accounts.ts';
import { preferences } from '../../../contracts/accounts.ts';
import type { Request } from '../../../services/notify/notification.ts';
import { quietUntil, timeOfDay } from '../../../services/notify/quiet-hours.ts';
import { recipientOf, recipientsOf, suppressionId } from '../../../services/notify/recipients.ts';

const request = (more: Partial<Request> = {}): Request => ({
  template: 'trip-ended@1',
  lane: 'normal',
  userId: 'usr_1',
  channels: null,
  createdAt: 0,
  expiresAt: 1e9,
  sendAt: null,
  ...more,
});
const person = (more: Partial<Person> = {}): Person => ({
  userId: 'usr_1',
  name: 'Asha',
  phone: '+919811111111',
  email: 'asha@example.com',
  pushToken: 'token-1',
  preferences: preferences.parse({}),
  vehicle: null,
  ...more,
});
const open = () => false;

describe('to whom a notification goes', () => {
  test("R4.6 a user's channels in their order, those without an address left out", () => {
    const channels = ['email', 'push', 'sms'] as const;
    const one = person({ email: null, preferences: preferences.parse({ channels: [...channels] }) });
    expect(recipientOf(request(), {}, one, open, 0).channels).toEqual(['push', 'sms']);
  });

  test('channels that are asked for go before, but only those that the user wants', () => {
    const one = person({ preferences: preferences.parse({ channels: ['push', 'sms'] }) });
    const asked = request({ channels: ['email', 'sms'] });
    expect(recipientOf(asked, {}, one, open, 0).channels).toEqual(['sms']);
  });

  test('opt-out and suppression close a channel, but not to a code or an SOS', () => {
    const closed = (channel: string) => channel === 'sms' || channel === 'email';
    expect(recipientOf(request(), {}, person(), closed, 0).channels).toEqual(['push', 'whatsapp']);
    for (const template of ['otp@1', 'sos-raised@1', 'sos-over@1'])
      expect(recipientOf(request({ template }), {}, person(), closed, 0).channels).toContain('sms');
    const none = person({ preferences: preferences.parse({ channels: [] }) });
    expect(recipientOf(request(), {}, none, open, 0).channels).toEqual([]);
    expect(recipientOf(request({ template: 'sos-raised@1' }), {}, none, open, 0).channels).toHaveLength(4);
  });

  test('an address gets what it can', () => {
    const to = { phone: '+919822222222' };
    const asked = request({ userId: null });
    expect(recipientOf(asked, to, null, open, 0)).toMatchObject({ channels: ['sms'], language: 'en' });
    expect(recipientOf(asked, { email: 'a@example.com' }, null, open, 0).channels).toEqual(['email']);
  });

  test('when nobody can say who has opted out, what is urgent goes on and the rest waits', async () => {
    const found = await recipientsOf(
      (['high', 'normal'] as const).map((lane) => ({
        id: lane,
        request: request({ lane, userId: null }),
        contents: { phone: '+919822222222', data: {} },
      })),
      {
        peopleOf: async () => [],
        closed: async () => Promise.reject(new Error('The DB is away')),
        hashSecret: 's',
        now: () => 0,
      },
    );
    expect(found.get('high')).toMatchObject({ channels: ['sms'] });
    expect(found.get('normal')).toBeInstanceOf(Error);
  });

  test('users who cannot be looked up hold up nobody else', async () => {
    const found = await recipientsOf(
      [
        { id: 'user', request: request(), contents: { data: {} } },
        { id: 'number', request: request({ userId: null }), contents: { phone: '+919822222222', data: {} } },
      ],
      {
        peopleOf: async () => Promise.reject(new Error('accounts is away')),
        closed: async () => new Set(),
        hashSecret: 's',
        now: () => 0,
      },
    );
    expect(found.get('user')).toBeInstanceOf(Error);
    expect(found.get('number')).toMatchObject({ channels: ['sms'] });
  });

  test('an address is known by a keyed hash, however it is written', () => {
    expect(suppressionId('s', 'email', 'A@Example.com')).toBe(suppressionId('s', 'email', 'a@example.com'));
    expect(suppressionId('s', 'sms', '+919811111111')).not.toContain('9811111111');
  });
});

describe('quiet hours', () => {
  const at = (iso: string) => Date.parse(iso);
  const night = { from: '22:00', to: '07:00' };

  test('go past midnight, in the time zone of the person', () => {
    expect(quietUntil(at('2026-01-15T18:00:00Z'), 'Asia/Kolkata', night)).toBe(at('2026-01-16T01:30:00Z'));
    expect(quietUntil(at('2026-01-15T16:29:00Z'), 'Asia/Kolkata', night)).toBeNull();
    expect(quietUntil(at('2026-01-15T16:30:00Z'), 'Asia/Kolkata', night)).toBe(at('2026-01-16T01:30:00Z'));
    expect(quietUntil(at('2026-01-15T18:00:00Z'), 'Europe/London', night)).toBeNull();
    expect(quietUntil(0, 'Asia/Kolkata', null)).toBeNull();
  });

  test('are over when they say so, and a time zone that nobody knows is UTC', () => {
    const time = fc.integer({ min: 0, max: 1439 }).map((m) => timeOfDay(m * 60_000, 'UTC'));
    const zones = fc.constantFrom('Asia/Kolkata', 'UTC', 'America/St_Johns', 'Mars/Olympus');
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 2e12 }), time, time, zones, (now, from, to, zone) => {
        const until = quietUntil(now, zone, { from, to });
        if (until === null) return;
        expect(until).toBeGreaterThan(now);
        expect(until - now).toBeLessThanOrEqual(86_400_000);
        if (zone !== 'America/St_Johns') expect(timeOfDay(until, zone)).toBe(to);
      }),
    );
  });
});
