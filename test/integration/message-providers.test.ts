import { generateKeyPairSync } from 'node:crypto';
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { loadConfig } from '../../lib/config.ts';
import { createFcm } from '../../lib/providers/fcm.ts';
import { createMessageProviders, type MessageProviders } from '../../lib/providers/index.ts';
import type {
  EmailMessage,
  MessageProvider,
  PushMessage,
  WhatsAppMessage,
} from '../../lib/providers/provider.ts';
import { createSendGrid } from '../../lib/providers/sendgrid.ts';
import { createSes } from '../../lib/providers/ses.ts';
import type { SmsMessage } from '../../lib/providers/sms.ts';
import { createWhatsApp } from '../../lib/providers/whatsapp.ts';
import { Secret } from '../../lib/secret.ts';
import { DEVELOPMENT_SERVICE_ACCOUNT } from '../../lib/standins/development-keys.ts';
import type { FailureScript, ProviderSimulator } from '../../lib/standins/providers.ts';
import { accountsOf, startProviderSimulator } from '../../lib/standins/providers.ts';
import { eventually } from '../support/eventually.ts';
import { answeringServer, failureOf } from '../support/providers.ts';

const patient = { timeoutMs: 20_000 };
const sms: SmsMessage = {
  to: '+919800000001',
  body: 'Your code is 482915',
  template: { name: 'otp_v1_en', variables: { code: '482915' } },
};
const whatsApp: WhatsAppMessage = {
  to: '+919800000001',
  template: { name: 'trip-accepted', language: 'hi', variables: ['Asha', 'DL 1C 4821'] },
};
const email: EmailMessage = {
  to: 'asha@example.org',
  subject: 'Your trip',
  html: '<p>Hello <b>Asha</b></p>',
  text: 'Hello Asha',
  notificationId: 'ntf_1',
};
const push: PushMessage = {
  token: 'installation-of-asha:1',
  title: 'Are you OK?',
  body: 'Your trip has not moved for five minutes',
  data: { tripId: 'trp_1' },
  priority: 'high',
  ttlMs: 60_500,
  collapseKey: 'safety-trp_1',
};
interface FcmMessage {
  android: object;
  apns: { headers: Record<string, string> };
}

/** What no error may show. */
const secrets = /9800000001|482915|asha|development-only|BEGIN PRIVATE/i;

let simulator: ProviderSimulator;
let providers: MessageProviders;

const configOf = (url: string) =>
  loadConfig({
    TWILIO_BASE_URL: url,
    MSG91_BASE_URL: url,
    WHATSAPP_BASE_URL: url,
    SENDGRID_BASE_URL: url,
    SES_BASE_URL: url,
    FCM_BASE_URL: url,
  });

beforeAll(async () => {
  simulator = await startProviderSimulator(accountsOf(loadConfig({})));
  providers = createMessageProviders(configOf(simulator.url));
});
afterEach(() => {
  for (const name of ['twilio', 'msg91', 'whatsapp', 'sendgrid', 'ses', 'fcm'] as const)
    simulator.clear(name);
});
afterAll(() => simulator.stop());

function at<T>(list: readonly T[], index: number): T {
  const item = list[index];
  if (item === undefined) throw new Error('no such provider');
  return item;
}

/** Each provider with a message of its channel; `from` has it at another address. */
const cases = [
  {
    name: 'twilio',
    send: (from: MessageProviders = providers, options = patient) => at(from.sms, 0).send(sms, options),
    reject: { code: 21610, as: '21610' },
    busy: { code: 21611, as: '21611' },
    broken: '20500',
    tooMany: '20429',
  },
  {
    name: 'msg91',
    send: (from: MessageProviders = providers, options = patient) => at(from.sms, 1).send(sms, options),
    reject: { code: 301, as: '301' },
    busy: { code: 2, as: '002' },
    broken: '601',
    tooMany: '429',
  },
  {
    name: 'whatsapp',
    send: (from: MessageProviders = providers, options = patient) =>
      at(from.whatsapp, 0).send(whatsApp, options),
    reject: { code: 131026, as: '131026' },
    busy: { code: 131056, as: '131056' },
    broken: '131000',
    tooMany: '130429',
  },
  {
    name: 'sendgrid',
    send: (from: MessageProviders = providers, options = patient) => at(from.email, 0).send(email, options),
    reject: { code: 403, as: 'HTTP_403' },
    busy: { code: 503, as: 'HTTP_503' },
    broken: 'HTTP_500',
    tooMany: 'HTTP_429',
  },
  {
    name: 'ses',
    send: (from: MessageProviders = providers, options = patient) => at(from.email, 1).send(email, options),
    reject: { code: 'MessageRejected', as: 'MessageRejected' },
    busy: { code: 'ThrottlingException', as: 'ThrottlingException' },
    broken: 'InternalFailure',
    tooMany: 'TooManyRequestsException',
  },
  {
    name: 'fcm',
    send: (from: MessageProviders = providers, options = patient) => at(from.push, 0).send(push, options),
    reject: { code: 'UNREGISTERED', as: 'UNREGISTERED' },
    busy: { code: 'UNAVAILABLE', as: 'UNAVAILABLE' },
    broken: 'INTERNAL',
    tooMany: 'QUOTA_EXCEEDED',
  },
] as const;

describe.each(cases)('R4.2 R4.3 R4.4 $name through its real client', (provider) => {
  const { name, send, reject, busy, broken, tooMany } = provider;
  const failing = async (script: FailureScript) => {
    simulator.fail(name, { ...script, times: 1 });
    const before = simulator.outbox().length;
    const error = await failureOf(send());
    expect(error).toMatchObject({ provider: name });
    return { error, taken: simulator.outbox().length - before };
  };

  test('hands a message over', async () => {
    const { providerMessageId } = await send();
    expect(simulator.outbox({ id: providerMessageId })).toMatchObject([{ provider: name }]);
  });

  test('tells a permanent refusal from a passing one by its code', async () => {
    expect(await failing({ kind: 'reject', code: reject.code })).toMatchObject({
      error: { code: reject.as, permanent: true },
      taken: 0,
    });
    expect(await failing({ kind: 'reject', code: busy.code })).toMatchObject({
      error: { code: busy.as, permanent: false },
      taken: 0,
    });
    expect(await failing({ kind: '500' })).toMatchObject({
      error: { code: broken, permanent: false },
      taken: 0,
    });
  });

  test('hands on how long to wait', async () => {
    expect(await failing({ kind: '429', retryAfterS: 7 })).toMatchObject({
      error: { code: tooMany, permanent: false, status: 429, retryAfterMs: 7000 },
      taken: 0,
    });
  });

  test('a lost answer is transient and without a status, though the message was taken', async () => {
    const { error, taken } = await failing({ kind: 'dropped' });
    expect(error).toMatchObject({ code: 'ECONNRESET', permanent: false });
    expect([error.status, taken]).toEqual([undefined, 1]);
    expect(await failing({ kind: 'down' })).toMatchObject({ error: { permanent: false }, taken: 0 });
  });

  test('gives up at the timeout, when told to, and on an address where nobody listens', async () => {
    simulator.fail(name, { kind: 'slow', delayMs: 60_000 });
    expect(await failureOf(send(providers, { timeoutMs: 50 }))).toMatchObject({ code: 'TIMEOUT' });
    const options = { ...patient, signal: AbortSignal.timeout(20) };
    expect(await failureOf(send(providers, options))).toMatchObject({ code: 'ABORTED', permanent: false });
    const nowhere = createMessageProviders(configOf('http://127.0.0.1:1'));
    expect(await failureOf(send(nowhere))).toMatchObject({ code: 'ECONNREFUSED', permanent: false });
  });

  test('no error shows number, address, text or key, nor a page that is no answer', async () => {
    await using server = await answeringServer((response) =>
      response.writeHead(400, { 'Content-Type': 'text/html' }).end('<html>+919800000001 asha 482915</html>'),
    );
    const elsewhere = createMessageProviders(configOf(server.url));
    simulator.fail(name, { kind: 'reject', code: reject.code, times: 1 });
    for (const error of [await failureOf(send()), await failureOf(send(elsewhere))]) {
      expect(`${error.stack} ${JSON.stringify(error)} ${String(error.cause)}`).not.toMatch(secrets);
      expect(error.permanent).toBe(true);
    }
  });

  test('sends many at once', async () => {
    const ids = await Promise.all(Array.from({ length: 100 }, () => send()));
    expect(new Set(ids.map(({ providerMessageId }) => providerMessageId)).size).toBe(100);
  });
});

test('R4.2 R4.4 the providers of a channel are in the order in which they are tried', () => {
  const names = (list: readonly MessageProvider<never>[]) => list.map(({ name, channel }) => [name, channel]);
  expect([providers.push, providers.whatsapp, providers.sms, providers.email].map(names)).toEqual([
    [['fcm', 'push']],
    [['whatsapp', 'whatsapp']],
    [
      ['twilio', 'sms'],
      ['msg91', 'sms'],
    ],
    [
      ['sendgrid', 'email'],
      ['ses', 'email'],
    ],
  ]);
});

describe('Twilio', () => {
  test('tells what became of a message', async () => {
    const twilio = at(providers.sms, 0);
    simulator.receipts('twilio', { kind: 'failed', code: 30003, times: 1 });
    const [lost, arrived] = [await twilio.send(sms, patient), await twilio.send(sms, patient)];
    const became = async (id: string, delivery: object) =>
      eventually(async () => expect(await twilio.deliveryOf?.(id, patient)).toEqual(delivery));
    await became(lost.providerMessageId, { state: 'failed', code: '30003' });
    await became(arrived.providerMessageId, { state: 'delivered' });
    expect(await twilio.deliveryOf?.(`SM${'0'.repeat(32)}`, patient)).toBeNull();
    simulator.fail('twilio', { kind: '500', times: 1 });
    expect(
      await failureOf(Promise.resolve(twilio.deliveryOf?.(lost.providerMessageId, patient))),
    ).toMatchObject({ code: '20500', permanent: false });
  });
});

describe('WhatsApp', () => {
  const adapter = (change: object = {}) =>
    createWhatsApp({
      phoneNumberId: '100000000000001',
      token: 'development-only',
      apiVersion: 'v23.0',
      baseUrl: simulator.url,
      ...change,
    });

  test('R4.3 sends an approved template with its values, by its name at Meta', async () => {
    const { providerMessageId } = await adapter().send(whatsApp, patient);
    expect(simulator.outbox({ id: providerMessageId })).toMatchObject([
      {
        channel: 'whatsapp',
        to: whatsApp.to,
        template: 'trip_accepted',
        text: 'Asha\nDL 1C 4821',
      },
    ]);
    await adapter().send(
      { ...whatsApp, template: { name: 'otp', language: 'en', variables: ['482915'], button: '482915' } },
      patient,
    );
  });

  test('signs in with the token that holds now', async () => {
    const token = new Secret('old', { path: '/t', text: 'old', read: (text) => ({ value: text }) });
    const rotating = adapter({ token });
    expect(await failureOf(rotating.send(whatsApp, patient))).toMatchObject({
      code: '190',
      permanent: true,
      status: 401,
    });
    token.offer('development-only');
    await rotating.send(whatsApp, patient);
  });

  test.each([
    ['a number that is none', '131009', {}, { ...whatsApp, to: '+12' }],
    ['a number of ours that is none', '100', { phoneNumberId: '7' }, whatsApp],
    [
      'a value with a line break',
      '100',
      {},
      { ...whatsApp, template: { ...whatsApp.template, variables: ['a\nb'] } },
    ],
    ['an empty value', '131008', {}, { ...whatsApp, template: { ...whatsApp.template, variables: [''] } }],
  ])('fails for good on %s', async (_, code, options, message) => {
    expect(await failureOf(adapter(options).send(message, patient))).toMatchObject({ code, permanent: true });
  });

  test.each([
    [131047, true],
    [132000, true],
    [132001, true],
    [131048, false],
    [131016, false],
    [4, false],
    [80007, false],
  ])('judges code %d by what a retry would bring: permanent %s', async (code, permanent) => {
    simulator.fail('whatsapp', { kind: 'reject', code, times: 1 });
    expect(await failureOf(adapter().send(whatsApp, patient))).toMatchObject({
      code: String(code),
      permanent,
    });
  });
});

describe('SendGrid', () => {
  const adapter = (change: object = {}) =>
    createSendGrid({
      apiKey: 'SG.development-only',
      from: 'Ride Safety <no-reply@example.com>',
      baseUrl: simulator.url,
      ...change,
    });

  test('R4.4 sends HTML and text', async () => {
    const { providerMessageId } = await adapter().send(email, patient);
    expect(simulator.outbox({ id: providerMessageId })).toMatchObject([
      { channel: 'email', to: email.to, subject: email.subject, html: email.html, text: email.text },
    ]);
  });

  test.each([
    ['an address that is none', 'HTTP_400', {}, { ...email, to: 'asha' }],
    ['no text', 'HTTP_400', {}, { ...email, text: '', html: '' }],
    ['a wrong key', 'HTTP_401', { apiKey: 'SG.wrong' }, email],
    ['an email without end', 'HTTP_413', {}, { ...email, html: 'x'.repeat(300_000) }],
  ])('fails for good on %s', async (_, code, options, message) => {
    expect(await failureOf(adapter(options).send(message, patient))).toMatchObject({ permanent: true, code });
  });
});

describe('Amazon SES', () => {
  const credentials = { accessKeyId: 'development-only', secretAccessKey: 'development-only' };
  const adapter = (change: object = {}) =>
    createSes({
      region: 'ap-south-1',
      from: 'Ride Safety <no-reply@example.com>',
      configurationSet: 'development-only',
      credentials,
      baseUrl: simulator.url,
      ...change,
    });

  test('R4.4 sends HTML and text, signed (Signature Version 4)', async () => {
    const { providerMessageId } = await adapter().send(email, patient);
    expect(simulator.outbox({ id: providerMessageId })).toMatchObject([
      { channel: 'email', to: email.to, subject: email.subject, html: email.html, text: email.text },
    ]);
    // An id that no tag can carry
    await adapter().send({ ...email, notificationId: 'a key: 1' }, patient);
  });

  test('signs with the secret that holds now', async () => {
    const secretAccessKey = new Secret('old', { path: '/s', text: 'old', read: (text) => ({ value: text }) });
    const rotating = adapter({ credentials: { ...credentials, secretAccessKey } });
    expect(await failureOf(rotating.send(email, patient))).toMatchObject({
      code: 'SignatureDoesNotMatch',
      permanent: true,
      status: 403,
    });
    secretAccessKey.offer('development-only');
    await rotating.send(email, patient);
  });

  test.each([
    ['an unknown user', 'InvalidClientTokenId', { credentials: { ...credentials, accessKeyId: 'X' } }, email],
    ['an unknown configuration set', 'NotFoundException', { configurationSet: 'other' }, email],
    ['an address that is none', 'BadRequestException', {}, { ...email, to: 'asha' }],
    ['a sender that is none', 'BadRequestException', { from: 'Rides' }, email],
  ])('fails for good on %s', async (_, code, options, message) => {
    expect(await failureOf(adapter(options).send(message, patient))).toMatchObject({ permanent: true, code });
  });
});

describe('FCM', () => {
  const adapter = (change: object = {}) =>
    createFcm({ account: DEVELOPMENT_SERVICE_ACCOUNT, baseUrl: simulator.url, ...change });

  test('sends what is shown, with priorities for Android and APNs', async () => {
    const { providerMessageId } = await adapter().send(push, patient);
    expect(simulator.outbox({ id: providerMessageId })).toMatchObject([
      { channel: 'push', to: push.token, subject: push.title, text: push.body },
    ]);

    const requests: { url: string; body: string }[] = [];
    await using server = await answeringServer((response, { url, body }) => {
      requests.push({ url, body });
      const token = { access_token: 'a', expires_in: 3599 };
      response.end(JSON.stringify(url === '/token' ? token : { name: 'projects/p/messages/1' }));
    });
    const listening = adapter({ baseUrl: `${server.url}/` });
    const before = Math.floor(Date.now() / 1000);
    await listening.send(push, patient);
    await listening.send({ ...push, priority: 'normal', ttlMs: 0, collapseKey: 'k'.repeat(65) }, patient);
    // One token for both
    expect(requests.map(({ url }) => url)).toEqual([
      '/token',
      '/v1/projects/development-only/messages:send',
      '/v1/projects/development-only/messages:send',
    ]);
    const [high, normal] = requests.slice(1).map(({ body }) => JSON.parse(body) as { message: FcmMessage });
    expect(high?.message).toEqual({
      token: push.token,
      notification: { title: push.title, body: push.body },
      data: push.data,
      android: { priority: 'HIGH', ttl: '60.5s', collapse_key: 'safety-trp_1' },
      apns: {
        headers: {
          'apns-push-type': 'alert',
          'apns-priority': '10',
          'apns-expiration': expect.stringMatching(/^\d{10}$/),
          'apns-collapse-id': 'safety-trp_1',
        },
        payload: { aps: { sound: 'default' } },
      },
    });
    const expiration = Number(high?.message.apns.headers['apns-expiration']);
    expect(expiration - before).toBeGreaterThanOrEqual(60);
    expect(expiration - before).toBeLessThan(90);
    expect(normal?.message.android).toMatchObject({ priority: 'NORMAL', ttl: '0s' });
    expect(normal?.message.apns.headers).toMatchObject({
      'apns-priority': '5',
      'apns-collapse-id': expect.stringMatching(/^[0-9a-f]{64}$/),
    });
  });

  test('many messages at once ask for one token', async () => {
    let asked = 0;
    await using server = await answeringServer((response, { url }) => {
      if (url === '/token') asked += 1;
      response.end(
        JSON.stringify(url === '/token' ? { access_token: 'a', expires_in: 3599 } : { name: 'n' }),
      );
    });
    const busy = adapter({ baseUrl: server.url });
    await Promise.all(Array.from({ length: 20 }, () => busy.send(push, patient)));
    expect(asked).toBe(1);
  });

  test('a token that was revoked is asked for anew, by the retry', async () => {
    const fcm = adapter();
    await fcm.send(push, patient);
    // Another simulator knows none of its tokens
    const other = await startProviderSimulator(accountsOf(loadConfig({})));
    const moved = { url: simulator.url };
    await using proxy = await answeringServer(async (response, { url, body, headers }) => {
      const answer = await fetch(moved.url + url, { method: 'POST', body, headers });
      response.writeHead(answer.status).end(await answer.text());
    });
    const through = adapter({ baseUrl: proxy.url });
    await through.send(push, patient);
    moved.url = other.url;
    expect(await failureOf(through.send(push, patient))).toMatchObject({
      code: 'UNAUTHENTICATED',
      permanent: false,
    });
    await through.send(push, patient);
    await other.stop();
  });

  test('the token of an app that was removed is told apart', async () => {
    expect(await failureOf(adapter().send({ ...push, token: 'unregistered-1' }, patient))).toMatchObject({
      code: 'UNREGISTERED',
      permanent: true,
      status: 404,
    });
    expect(await failureOf(adapter().send({ ...push, token: 'no token' }, patient))).toMatchObject({
      code: 'INVALID_ARGUMENT',
      permanent: true,
    });
  });

  test.each([
    ['another key', { private_key: 'other' }, 'invalid_grant'],
    ['an unknown account', { client_email: 'x@y' }, 'invalid_grant'],
    ['another audience', { token_uri: 'https://elsewhere.example/token' }, 'invalid_grant'],
    ['another project', { project_id: 'other' }, 'PERMISSION_DENIED'],
  ])('fails for good with %s', async (_, change, code) => {
    const { privateKey } = generateKeyPairSync('rsa', {
      modulusLength: 1024,
      publicKeyEncoding: { type: 'spki', format: 'pem' },
      privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
    });
    const account = {
      ...DEVELOPMENT_SERVICE_ACCOUNT,
      ...change,
      ...('private_key' in change ? { private_key: privateKey } : {}),
    };
    expect(await failureOf(adapter({ account }).send(push, patient))).toMatchObject({
      permanent: true,
      code,
    });
  });

  test.each([
    ['a data key that is taken', { data: { from: 'x' } }],
    ['too much data', { data: { text: 'x'.repeat(5000) } }],
  ])('fails for good on %s', async (_, change) => {
    expect(await failureOf(adapter().send({ ...push, ...change }, patient))).toMatchObject({
      permanent: true,
      code: 'INVALID_ARGUMENT',
    });
  });
});
