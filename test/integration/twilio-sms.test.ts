import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import type { SmsProvider } from '../../lib/providers/sms.ts';
import type { TwilioSmsOptions } from '../../lib/providers/twilio-sms.ts';
import { createTwilioSms } from '../../lib/providers/twilio-sms.ts';
import { Secret } from '../../lib/secret.ts';
import type { ProviderSimulator } from '../../lib/standins/providers.ts';
import { startProviderSimulator } from '../../lib/standins/providers.ts';
import { answeringServer, failureOf } from '../support/providers.ts';

const account = { accountSid: `AC${'0'.repeat(32)}`, authToken: 'secret' };
const message = { to: '+14155550100', body: 'Your code is 123456' };
const patient = { timeoutMs: 20_000 };

let simulator: ProviderSimulator;

beforeAll(async () => {
  simulator = await startProviderSimulator({ twilio: account });
});

afterEach(() => {
  simulator.clear('twilio');
});

afterAll(async () => {
  await simulator.stop();
});

function adapter(overrides: Partial<TwilioSmsOptions> = {}): SmsProvider {
  return createTwilioSms({ ...account, from: '+15005550006', baseUrl: simulator.url, ...overrides });
}

describe('createTwilioSms', () => {
  test('R4.2 hands a message to Twilio', async () => {
    const { providerMessageId } = await adapter().send(message, patient);
    expect(providerMessageId).toMatch(/^SM[0-9a-f]{32}$/);
    expect(simulator.outbox({ limit: 1 })).toEqual([
      {
        id: providerMessageId,
        channel: 'sms',
        provider: 'twilio',
        to: message.to,
        template: null,
        text: message.body,
        at: expect.any(String),
        state: 'accepted',
      },
    ]);
  });

  test('signs in with the token that holds now', async () => {
    const token = new Secret('old', { path: '/run/token', text: 'old', read: (text) => ({ value: text }) });
    const sms = adapter({ authToken: token });
    expect(await failureOf(sms.send(message, patient))).toMatchObject({ status: 401 });
    token.offer(account.authToken);
    expect(await sms.send(message, patient)).toMatchObject({ providerMessageId: expect.any(String) });
  });

  test('can send by a messaging service', async () => {
    const { accountSid, authToken } = account;
    const messagingServiceSid = `MG${'0'.repeat(32)}`;
    const sms = createTwilioSms({ accountSid, authToken, messagingServiceSid, baseUrl: simulator.url });
    await expect(sms.send(message, patient)).resolves.toEqual({ providerMessageId: expect.any(String) });
  });

  test('needs a sender', () => {
    expect(() => createTwilioSms({ ...account, baseUrl: simulator.url })).toThrow('sender');
  });

  test.each([
    ['a number that is none', '21211', { to: '12345' }],
    ['a landline', '21614', { to: '+15005550009' }],
    ['an unsubscribed number', '21610', { to: '+15005550004' }],
    ['an empty text', '21602', { body: '' }],
    ['a text that is too long', '21617', { body: 'a'.repeat(1601) }],
  ])('fails for good on %s', async (_, code, change) => {
    const error = await failureOf(adapter().send({ ...message, ...change }, patient));
    expect(error).toMatchObject({ provider: 'twilio', code, permanent: true, status: 400 });
  });

  test('fails for good on wrong credentials', async () => {
    const error = await failureOf(adapter({ authToken: 'wrong' }).send(message, patient));
    expect(error).toMatchObject({ code: '20003', permanent: true, status: 401 });
  });

  test.each([
    [{ kind: '429' } as const, { code: '20429', permanent: false, status: 429 }],
    [{ kind: '500' } as const, { code: '20500', permanent: false, status: 500 }],
    [{ kind: 'down' } as const, { code: 'ECONNRESET', permanent: false }],
    [{ kind: 'reject', code: 21408 } as const, { code: '21408', permanent: true, status: 400 }],
    [{ kind: 'reject', code: 21611 } as const, { code: '21611', permanent: false, status: 400 }],
    [{ kind: 'reject', code: 20003 } as const, { code: '20003', permanent: true, status: 401 }],
  ])('reports %j', async (script, expected) => {
    simulator.fail('twilio', { ...script, times: 1 });
    const sms = adapter();
    const before = simulator.outbox().length;
    expect(await failureOf(sms.send(message, patient))).toMatchObject(expected);
    expect(simulator.outbox()).toHaveLength(before);
    await sms.send(message, patient);
  });

  test('plays a script until it is cleared', async () => {
    simulator.fail('twilio', { kind: '500' });
    const sms = adapter();
    for (let attempt = 0; attempt < 3; attempt += 1) await failureOf(sms.send(message, patient));
    simulator.clear('twilio');
    await expect(sms.send(message, patient)).resolves.toHaveProperty('providerMessageId');
  });

  test('gives up at the timeout', async () => {
    simulator.fail('twilio', { kind: 'slow', delayMs: 60_000 });
    const error = await failureOf(adapter().send(message, { timeoutMs: 50 }));
    expect(error).toMatchObject({ code: 'TIMEOUT', permanent: false });
    expect(error.status).toBeUndefined();
  });

  test('the timeout bounds an answer that trickles', async () => {
    const trickles = new Set<NodeJS.Timeout>();
    await using server = await answeringServer((response) => {
      response.writeHead(201, { 'Content-Type': 'application/json' });
      trickles.add(setInterval(() => response.write(' '), 10));
    });
    const sms = adapter({ baseUrl: server.url });
    expect(await failureOf(sms.send(message, { timeoutMs: 100 }))).toMatchObject({ code: 'TIMEOUT' });
    for (const trickle of trickles) clearInterval(trickle);
  });

  test('waits for a slow answer within the timeout', async () => {
    simulator.fail('twilio', { kind: 'slow', delayMs: 30, times: 1 });
    await expect(adapter().send(message, patient)).resolves.toBeDefined();
  });

  test('an address where nobody listens is transient', async () => {
    const gone = await startProviderSimulator({ twilio: account });
    await gone.stop();
    const error = await failureOf(adapter({ baseUrl: gone.url }).send(message, patient));
    expect(error).toMatchObject({ code: 'ECONNREFUSED', permanent: false });
  });

  test('an answer that is not from Twilio is told by its status', async () => {
    const error = await failureOf(adapter({ baseUrl: `${simulator.url}/elsewhere/` }).send(message, patient));
    expect(error).toMatchObject({ code: 'HTTP_404', permanent: true, status: 404 });
  });

  test('an error shows neither the number nor the text', async () => {
    simulator.fail('twilio', { kind: 'slow', delayMs: 60_000, times: 1 });
    const failures = [
      await failureOf(adapter().send(message, { timeoutMs: 50 })),
      await failureOf(adapter().send({ ...message, to: '+15005550001' }, patient)),
    ];
    for (const error of failures) {
      const shown = `${error.stack} ${JSON.stringify(error)} ${String(error.cause)}`;
      expect(shown).not.toMatch(/4155550100|15005550001|123456/);
    }
  });

  test('gives up when told to', async () => {
    simulator.fail('twilio', { kind: 'slow', delayMs: 60_000, times: 1 });
    const options = { ...patient, signal: AbortSignal.timeout(50) };
    expect(await failureOf(adapter().send(message, options))).toMatchObject({ code: 'ABORTED' });
  });

  test('sends hundreds at once', async () => {
    const sms = adapter();
    const sent = await Promise.all(
      Array.from({ length: 500 }, (_, index) => sms.send({ ...message, body: `number ${index}` }, patient)),
    );
    expect(new Set(sent.map(({ providerMessageId }) => providerMessageId)).size).toBe(500);
  });
});

describe('findSent', () => {
  const asked = { to: '+14155550188', body: 'SOS 1' };
  const find = (change: { to?: string; body?: string; since?: number } = {}) =>
    adapter().findSent?.({ ...asked, since: Date.now() - 10_000, ...change }, patient);

  test.each([{ kind: 'dropped' } as const, { kind: 'slow', delayMs: 60_000 } as const])(
    'R3.6 knows a message that was taken though its answer was lost (%j)',
    async (script) => {
      const sent = { ...asked, body: `SOS ${script.kind}` };
      simulator.fail('twilio', { ...script, times: 1 });
      await failureOf(adapter().send(sent, { timeoutMs: 300 }));
      const [kept] = simulator.outbox({ to: asked.to, limit: 1 });
      expect(await find(sent)).toEqual({ providerMessageId: kept?.id });
    },
  );

  test('knows none that was never taken', async () => {
    simulator.fail('twilio', { kind: 'down', times: 1 });
    await failureOf(adapter().send({ ...asked, body: 'SOS 2' }, patient));
    expect(await find({ body: 'SOS 2' })).toBeNull();
  });

  test('another text, another number, or an earlier one is not it', async () => {
    const { providerMessageId } = await adapter().send(asked, patient);
    expect(await find()).toEqual({ providerMessageId });
    expect(await find({ since: Date.now() })).toEqual({ providerMessageId });
    expect(await find({ body: 'SOS' })).toBeNull();
    expect(await find({ to: '+14155550189' })).toBeNull();
    expect(await find({ since: Date.now() + 2000 })).toBeNull();
  });

  test('one that Twilio has given up is to be sent again', async () => {
    const given = (status: string) => ({
      sid: `SM${status}`,
      body: asked.body,
      status,
      date_created: new Date().toUTCString().replace('GMT', '+0000'),
    });
    const messages = ['failed', 'undelivered', 'canceled'].map(given);
    let listed = messages;
    await using server = await answeringServer((response) =>
      response.end(JSON.stringify({ messages: listed, next_page_uri: null })),
    );
    const sms = adapter({ baseUrl: server.url });
    const since = Date.now() - 10_000;
    expect(await sms.findSent?.({ ...asked, since }, patient)).toBeNull();
    listed = [...messages, given('delivered')];
    expect(await sms.findSent?.({ ...asked, since }, patient)).toEqual({ providerMessageId: 'SMdelivered' });
  });

  test('fails as a send does', async () => {
    simulator.fail('twilio', { kind: '500', times: 1 });
    const failed = await failureOf(Promise.resolve(find()));
    expect(failed).toMatchObject({ code: '20500', permanent: false });
    simulator.fail('twilio', { kind: 'slow', delayMs: 60_000, times: 1 });
    const late = adapter().findSent?.({ ...asked, since: 0 }, { timeoutMs: 50 });
    expect(await failureOf(Promise.resolve(late))).toMatchObject({ code: 'TIMEOUT' });
  });
});
