import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import type { LoggedNotification } from '../../contracts/notify.ts';
import { metricsText } from '../../lib/metrics.ts';
import { type ProviderSimulator, startProviderSimulator } from '../../lib/standins/providers.ts';
import { newPhone } from '../support/clients.ts';
import { eventually } from '../support/eventually.ts';
import { redisContent } from '../support/redis-content.ts';
import { type System, startSystem } from '../support/system.ts';

const support = { id: 'usr_admin', role: 'support', sessionId: 's' } as const;

describe('notify', () => {
  let simulator: ProviderSimulator;
  let system: System;
  let keys = 0;

  beforeAll(async () => {
    simulator = await startProviderSimulator({
      twilio: { accountSid: `AC${'0'.repeat(32)}`, authToken: 'development-only' },
    });
    system = await startSystem({
      only: ['notify', 'notify-log', 'accounts'],
      env: { PROVIDERS_SANDBOX_URL: simulator.url, NOTIFY_RECEIPT_AFTER_MS: '400' },
    });
  });
  afterEach(() => simulator.clear('twilio'));
  afterAll(async () => {
    await system.stop();
    await simulator.stop();
  });

  const call = <T>(action: string, params: object, meta: object = {}) =>
    system.broker.call<T, object>(action, params, { meta });
  const send = async (
    to: string,
    more: { code?: string; idempotencyKey?: string; expiresInMs?: number } & Record<string, unknown> = {},
  ) => {
    const { code = '482915', ...rest } = more;
    const { notificationId } = await call<{ notificationId: string }>('notify.send', {
      to: { phone: to },
      template: 'otp',
      data: { code },
      idempotencyKey: `key-${++keys}`,
      expiresInMs: 60_000,
      channels: ['sms'],
      ...rest,
    });
    return notificationId;
  };
  const entry = (id: string) => call<LoggedNotification>('notify-log.get', { id }, { user: support });
  const untilEnded = (id: string, status: string) =>
    eventually(async () => expect(await entry(id)).toMatchObject({ status }), 15_000);
  const receipts = (...list: object[]) => call('notify.receipts', { receipts: list });
  const sentTo = (to: string) => simulator.outbox({ to });
  const content = async () => (await redisContent(system.config.redisUrl)).join('\n');
  const metric = (name: string, ...labels: string[]) =>
    metricsText(system.broker)
      .split('\n')
      .filter((line) => line.startsWith(`${name}{`) && labels.every((label) => line.includes(label)))
      .reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0);
  /** What Twilio calls the message, as we keep it. */
  const messageIdOf = async (id: string) => {
    const lines = await redisContent(system.config.redisUrl);
    const found = lines.find((line) => line.startsWith('{notify}:message:twilio:') && line.includes(id));
    return /twilio:(\w+)/.exec(found ?? '')?.[1] ?? '';
  };

  test('R4.1 R4.2 R4.7 a code goes through its own queue and the real client to Twilio, and its time is measured', async () => {
    const to = newPhone();
    const handedOver = metric('notify_otp_handover_time_count');
    const id = await send(to, { code: '193746' });
    await eventually(() => expect(sentTo(to)).toHaveLength(1));
    expect(sentTo(to)[0]).toMatchObject({ channel: 'sms', provider: 'twilio', to });
    expect(sentTo(to)[0]?.text).toContain('193746');
    expect(await content()).toContain('{notify-otp}:notify-otp:');
    await eventually(async () =>
      expect(await entry(id)).toMatchObject({
        priority: 'otp',
        template: 'otp@1',
        attempts: [{ channel: 'sms', provider: 'twilio' }],
      }),
    );
    expect(metric('notify_otp_handover_time_count')).toBe(handedOver + 1);
  });

  test('no code and no number can be read in Redis or the log, and nothing sealed is left once it has ended', async () => {
    const to = newPhone();
    simulator.fail('twilio', { kind: 'slow', delayMs: 500, times: 1 });
    const id = await send(to, { code: '660172' });
    const waiting = await content();
    expect(waiting).toMatch(new RegExp(`record:${id} .*sealed\\W+development\\.`));
    expect(waiting).not.toMatch(new RegExp(`660172|${to.slice(1)}`));
    await eventually(() => expect(sentTo(to)).toHaveLength(1));
    const providerMessageId = await eventually(async () => {
      const found = await messageIdOf(id);
      expect(found).not.toBe('');
      return found;
    });
    await receipts({ provider: 'twilio', providerMessageId, state: 'delivered', at: Date.now() });
    expect(await entry(id)).toMatchObject({ status: 'delivered', attempts: [{ state: 'delivered' }] });
    const after = await content();
    expect(after).not.toMatch(new RegExp(`record:${id} .*sealed`));
    expect(after).not.toMatch(new RegExp(`660172|${to.slice(1)}`));
    expect(JSON.stringify(await entry(id))).not.toMatch(new RegExp(`660172|${to.slice(1)}`));
  });

  test('R4.6 a provider that fails is tried again, later each time, until it takes the message', async () => {
    const to = newPhone();
    // One of them may hit what else is asked of Twilio
    simulator.fail('twilio', { kind: '500', times: 2 });
    const id = await send(to, { template: 'trip-ended', data: {}, priority: 'normal' });
    await eventually(() => expect(sentTo(to)).toHaveLength(1), 10_000);
    const { attempts } = await entry(id);
    expect(attempts.length).toBeGreaterThan(1);
    for (const [index, { state, code, at }] of attempts.slice(0, -1).entries()) {
      expect([state, code]).toEqual(['failed', expect.any(String)]);
      // At least half of 1, 2 … s of backoff
      const waitedMs = Date.parse(attempts[index + 1]?.at ?? '') - Date.parse(at);
      expect(waitedMs).toBeGreaterThanOrEqual(500 * 2 ** index);
    }
  });

  test('R4.2 R4.6 what Twilio refuses for good goes to MSG91; when nobody takes it, that is recorded, counted and a dead letter', async () => {
    const to = newPhone();
    const failed = metric('notify_ended_total', 'status="failed"');
    simulator.fail('twilio', { kind: 'reject', code: 21408 });
    simulator.fail('msg91', { kind: 'reject', code: 400 });
    const id = await send(to, { code: '550417' });
    await untilEnded(id, 'failed');
    simulator.clear('msg91');
    const { attempts, reason } = await entry(id);
    expect(reason).toBe('refused');
    expect(attempts.map(({ provider, state }) => [provider, state])).toEqual([
      ['twilio', 'failed'],
      ['msg91', 'failed'],
    ]);
    expect(attempts[0]?.code).toBe('21408');
    expect(sentTo(to)).toEqual([]);
    expect(metric('notify_ended_total', 'status="failed"')).toBe(failed + 1);
    expect(await content()).toMatch(new RegExp(`notify}:dead .*${id}`));
  });

  test('R4.3 a message that its provider could not deliver goes the next way', async () => {
    const id = await send(newPhone());
    const providerMessageId = await eventually(async () => {
      const found = await messageIdOf(id);
      expect(found).not.toBe('');
      return found;
    });
    await receipts({ provider: 'twilio', providerMessageId, state: 'failed', code: '30003', at: Date.now() });
    await eventually(async () => {
      const { attempts } = await entry(id);
      expect(attempts[0]).toMatchObject({ provider: 'twilio', state: 'failed', code: '30003' });
      expect(attempts[1]).toMatchObject({ provider: 'msg91' });
    });
  });

  test('R4.3 a receipt that comes before its message is recorded is kept for it', async () => {
    const to = newPhone();
    simulator.fail('twilio', { kind: 'slow', delayMs: 400, times: 1 });
    const id = await send(to);
    // It has the message and is slow to say so; its receipt is faster
    const early = eventually(() => {
      const [message] = sentTo(to);
      expect(message).toBeDefined();
      return message;
    });
    const message = await early;
    const providerMessageId = (message as { id?: string } | undefined)?.id ?? '';
    await receipts({ provider: 'twilio', providerMessageId, state: 'delivered', at: Date.now() });
    await untilEnded(id, 'delivered');
  });

  test('R4.3 Twilio is asked about a message that no receipt comes for', async () => {
    const id = await send(newPhone());
    await eventually(async () => {
      const { status } = await entry(id);
      expect(['delivered', 'unconfirmed']).toContain(status);
    }, 15_000);
  });

  test('the same idempotency key is one notification with one id, also at once and after it was sent', async () => {
    const to = newPhone();
    const again = () => send(to, { idempotencyKey: 'once' });
    const ids = await Promise.all(Array.from({ length: 20 }, again));
    await eventually(() => expect(sentTo(to)).toHaveLength(1));
    ids.push(await again());
    expect(new Set(ids).size).toBe(1);
    // A message behind it has been sent, so a second one would have been by now
    const next = newPhone();
    await send(next);
    await eventually(() => expect(sentTo(next)).toHaveLength(1));
    expect(sentTo(to)).toHaveLength(1);
  });

  test('what has expired is not sent', async () => {
    const to = newPhone();
    simulator.fail('twilio', { kind: '500', times: 1 });
    simulator.fail('msg91', { kind: '500', times: 1 });
    const id = await send(to, { expiresInMs: 1 });
    await untilEnded(id, 'expired');
    simulator.clear('msg91');
    expect(sentTo(to)).toEqual([]);
  });

  test('what is for later is sent then', async () => {
    const to = newPhone();
    const sendAt = Date.now() + 600;
    const id = await send(to, { template: 'trip-ended', data: {}, sendAt });
    await eventually(() => expect(sentTo(to)).toHaveLength(1));
    expect(Date.parse((await entry(id)).attempts[0]?.at ?? '')).toBeGreaterThanOrEqual(sendAt);
  });

  test('STOP closes SMS to a number for all but codes, START opens it again', async () => {
    const phone = newPhone();
    const text = { template: 'trip-ended', data: {} };
    await call('notify.optOut', { channel: 'sms', phone, optedOut: true, provider: 'twilio' });
    const refused = await send(phone, text);
    await untilEnded(refused, 'failed');
    expect(await entry(refused)).toMatchObject({ reason: 'no-channel', attempts: [] });
    await send(phone);
    await eventually(() => expect(sentTo(phone)).toHaveLength(1));
    await call('notify.optOut', { channel: 'sms', phone, optedOut: false, provider: 'twilio' });
    await send(phone, text);
    await eventually(() => expect(sentTo(phone)).toHaveLength(2));
  });

  test('nothing goes to an email address that bounced', async () => {
    const email = 'gone@example.com';
    await call('notify.suppress', { email, reason: 'bounce' });
    const id = await send('', { to: { email }, template: 'trip-ended', data: {}, channels: ['email'] });
    await untilEnded(id, 'failed');
    expect(await entry(id)).toMatchObject({ reason: 'no-channel' });
  });

  test('a user that there is not ends it; only its user acknowledges a push', async () => {
    const id = await send('', { to: { userId: 'usr_none' }, template: 'trip-ended', data: {} });
    await untilEnded(id, 'failed');
    expect(await entry(id)).toMatchObject({ reason: 'no-user' });
    const rider = { id: 'usr_other', role: 'rider', sessionId: 's' };
    await expect(call('notify.ack', { id }, { user: rider })).rejects.toMatchObject({
      type: 'NOTIFICATION_NOT_FOUND',
    });
    await expect(call('notify.ack', { id }, { user: { ...rider, id: 'usr_none' } })).resolves.toBeNull();
  });

  test('the log outlives Redis: it is in the database, and nobody but admins reads it', async () => {
    const id = await send(newPhone());
    await eventually(async () => {
      expect(await content()).not.toMatch(new RegExp(`unlogged .*${id}`));
      expect(await content()).toContain(id);
    }, 10_000);
    const rider = { id: 'usr_1', role: 'rider', sessionId: 's' };
    await expect(call('notify-log.get', { id }, { user: rider })).rejects.toMatchObject({
      type: 'FORBIDDEN',
    });
    await expect(call('notify-log.get', { id: 'ntf_unknown' }, { user: support })).rejects.toMatchObject({
      type: 'NOTIFICATION_NOT_FOUND',
    });
  });

  test('bad input is refused with a code before anything is kept', async () => {
    const before = (await content()).match(/\{notify\}:record/g)?.length ?? 0;
    const refusals: [object, string][] = [
      [{ to: { phone: '12345' } }, 'VALIDATION'],
      [{ to: { email: 'nobody' } }, 'VALIDATION'],
      [{ to: { phone: newPhone(), email: 'a@example.com' } }, 'VALIDATION'],
      [{ to: {} }, 'VALIDATION'],
      [{ channels: ['email'] }, 'VALIDATION'],
      [{ channels: ['fax'] }, 'VALIDATION'],
      [{ priority: 'urgent' }, 'VALIDATION'],
      [{ expiresInMs: -1 }, 'VALIDATION'],
      [{ template: 'poem' }, 'TEMPLATE_UNKNOWN'],
      [{ data: {} }, 'TEMPLATE_VARIABLE_MISSING'],
      [{ data: { code: '<b>' } }, 'TEMPLATE_VARIABLE_INVALID'],
    ];
    for (const [bad, type] of refusals)
      await expect(send(newPhone(), bad as never)).rejects.toMatchObject({ type });
    expect((await content()).match(/\{notify\}:record/g)?.length ?? 0).toBe(before);
  });

  test('garbage for receipts is refused, and a receipt of nothing known does nothing', async () => {
    await expect(receipts({ provider: 'nobody', state: 'delivered' })).rejects.toMatchObject({
      type: 'VALIDATION',
    });
    const found = metric('notify_receipts_total', 'found="false"');
    await receipts({
      provider: 'ses',
      providerMessageId: 'unknown',
      state: 'read',
      at: 1,
      notificationId: 'x',
    });
    expect(metric('notify_receipts_total', 'found="false"')).toBe(found + 1);
  });
});

describe('a stop', () => {
  test('with nothing to do waits for none of the four queues', async () => {
    const system = await startSystem({ only: ['notify'] });
    const began = performance.now();
    await system.stop();
    // Bull itself takes 500 ms for each
    expect(performance.now() - began).toBeLessThan(4 * 500);
  });

  test('with a provider that hangs waits for all queues at once, not for one after the other', async () => {
    const simulator = await startProviderSimulator({
      twilio: { accountSid: `AC${'0'.repeat(32)}`, authToken: 'development-only' },
    });
    const system = await startSystem({
      only: ['notify'],
      env: { PROVIDERS_SANDBOX_URL: simulator.url },
    });
    try {
      simulator.fail('twilio', { kind: 'slow', delayMs: 30_000 });
      const lanes = ['otp', 'safety-check', 'trip-accepted', 'trip-ended'];
      const data: Record<string, object> = {
        otp: { code: '482915' },
        'safety-check': { answerBy: '12:30' },
        'trip-accepted': { driver: 'Asha', vehicle: 'Swift', plate: 'KA01' },
        'trip-ended': {},
      };
      const priorities = ['high', 'high', 'normal', 'low'];
      const phones = lanes.map(() => newPhone());
      for (const [n, template] of lanes.entries())
        await system.broker.call('notify.send', {
          to: { phone: phones[n] },
          template,
          data: data[template],
          priority: priorities[n],
          idempotencyKey: `stop-${template}`,
          expiresInMs: 60_000,
          channels: ['sms'],
        });
      await eventually(() => {
        for (const to of phones) expect(simulator.outbox({ to })).toHaveLength(1);
      });
    } finally {
      const began = performance.now();
      await system.stop();
      // One after the other they take over 7 s
      expect(performance.now() - began).toBeLessThan(6500);
      await simulator.stop();
    }
  }, 30_000);
});
