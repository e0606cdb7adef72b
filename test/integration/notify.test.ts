import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { metricsText } from '../../lib/metrics.ts';
import { type ProviderSimulator, startProviderSimulator } from '../../lib/standins/providers.ts';
import { newPhone } from '../support/clients.ts';
import { eventually } from '../support/eventually.ts';
import { redisContent } from '../support/redis-content.ts';
import { type System, startSystem } from '../support/system.ts';

describe('notify', () => {
  let simulator: ProviderSimulator;
  let system: System;
  let keys = 0;

  beforeAll(async () => {
    simulator = await startProviderSimulator({
      twilio: { accountSid: `AC${'0'.repeat(32)}`, authToken: 'development-only' },
    });
    system = await startSystem({ only: ['notify'], env: { PROVIDERS_SANDBOX_URL: simulator.url } });
  });
  afterEach(() => simulator.clear('twilio'));
  afterAll(async () => {
    await system.stop();
    await simulator.stop();
  });

  const send = (to: string, more: { code?: string; key?: string; expiresInMs?: number } = {}) =>
    system.broker.call('notify.send', {
      channel: 'sms',
      to,
      template: 'otp',
      data: { code: more.code ?? '482915' },
      idempotencyKey: more.key ?? `key-${++keys}`,
      expiresInMs: more.expiresInMs ?? 60_000,
    });
  const sentTo = (to: string) => simulator.outbox({ to });
  const outcome = (name: string) => {
    const line = metricsText(system.broker)
      .split('\n')
      .find(
        (candidate) => candidate.includes('notify_sms_total{') && candidate.includes(`outcome="${name}"`),
      );
    return Number(line?.split(' ').at(-1) ?? 0);
  };
  /** The queue's jobs as Redis holds them, by the end of their key. */
  const jobs = async (key: string) =>
    (await redisContent(system.config.redisUrl)).filter((line) => line.startsWith(`{notify}:notify:${key} `));

  test('R4.1 R4.2 a message goes through the queue and the real client to Twilio', async () => {
    const to = newPhone();
    expect(await send(to, { code: '193746', key: 'first' })).toEqual({ notificationId: 'first' });
    await eventually(() => expect(sentTo(to)).toHaveLength(1));
    expect(sentTo(to)[0]).toMatchObject({ channel: 'sms', provider: 'twilio', to });
    expect(sentTo(to)[0]?.text).toContain('193746');
  });

  test('no code and no number can be read in Redis while it waits, and nothing is left once it is sent', async () => {
    const to = newPhone();
    simulator.fail('twilio', { kind: 'slow', delayMs: 300, times: 1 });
    await send(to, { code: '660172', key: 'waiting' });
    const waiting = (await jobs('waiting')).join();
    expect(waiting).toMatch(/sealed\W+development\./);
    expect(waiting).not.toMatch(new RegExp(`660172|${to.slice(1)}`));
    await eventually(() => expect(sentTo(to)).toHaveLength(1));
    const before = outcome('sent');
    await send(to, { code: '719253', key: 'forgotten' });
    await eventually(async () => {
      expect(outcome('sent')).toBe(before + 1);
      expect((await jobs('forgotten')).join()).toContain('finishedOn');
      expect((await jobs('forgotten')).join()).toMatch(/sealed\W+expiresAt/);
    });
    const content = (await redisContent(system.config.redisUrl)).join('\n');
    expect(content).not.toContain('719253');
    expect(content).not.toContain(to.slice(1));
  });

  test('R4.6 a provider that fails is tried again, later each time, until it takes the message', async () => {
    const to = newPhone();
    simulator.fail('twilio', { kind: '500', times: 2 });
    const before = performance.now();
    await send(to);
    await eventually(() => expect(sentTo(to)).toHaveLength(1), 10_000);
    // At least half of 1 s and half of 2 s of backoff
    expect(performance.now() - before).toBeGreaterThan(1400);
  });

  test('a message that a provider refuses for good is not sent again, is counted, and forgotten', async () => {
    const to = newPhone();
    const failed = outcome('failed');
    simulator.fail('twilio', { kind: 'reject', code: 21408, times: 1 });
    await send(to, { key: 'refused', code: '550417' });
    // The next attempt would be taken: the script plays once
    await eventually(async () => {
      const [job = ''] = await jobs('refused');
      expect(job).toContain('finishedOn');
      expect(job).toContain('"attemptsMade":"1"');
      // What was sealed is gone: nothing stands between this field and the next
      expect(job).toMatch(/sealed\W+expiresAt/);
    });
    expect(sentTo(to)).toEqual([]);
    expect(outcome('failed')).toBe(failed + 1);
  });

  test('the same idempotency key is sent once, also at once and after it was sent', async () => {
    const to = newPhone();
    await Promise.all(Array.from({ length: 20 }, () => send(to, { key: 'once' })));
    await eventually(() => expect(sentTo(to)).toHaveLength(1));
    await eventually(async () => expect((await jobs('once')).join()).toContain('finishedOn'));
    await send(to, { key: 'once' });
    // A message behind it has been sent, so a second one would have been by now
    const next = newPhone();
    await send(next);
    await eventually(() => expect(sentTo(next)).toHaveLength(1));
    expect(sentTo(to)).toHaveLength(1);
  });

  test('what has expired is not sent', async () => {
    const to = newPhone();
    const expired = outcome('expired');
    simulator.fail('twilio', { kind: '500', times: 1 });
    await send(to, { expiresInMs: 200 });
    await eventually(() => expect(outcome('expired')).toBe(expired + 1), 10_000);
    expect(sentTo(to)).toEqual([]);
  });

  test('what lacks a value or has a bad number is refused before it is queued', async () => {
    const queued = async () => (await redisContent(system.config.redisUrl)).length;
    const before = await queued();
    await expect(send('12345')).rejects.toMatchObject({ type: 'VALIDATION' });
    const incomplete = { channel: 'sms', to: newPhone(), template: 'otp', data: {}, expiresInMs: 1 };
    await expect(
      system.broker.call('notify.send', { ...incomplete, idempotencyKey: 'x' }),
    ).rejects.toMatchObject({ type: 'TEMPLATE_VARIABLE_MISSING' });
    expect(await queued()).toBe(before);
  });
});
