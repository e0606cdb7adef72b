import { createHmac, createPublicKey, verify, X509Certificate } from 'node:crypto';
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import twilio from 'twilio';
import { loadConfig } from '../../lib/config.ts';
import { createMessageProviders, type MessageProviders } from '../../lib/providers/index.ts';
import { DEVELOPMENT_SENDGRID_WEBHOOK, DEVELOPMENT_SNS } from '../../lib/standins/development-keys.ts';
import type { ProviderSimulator } from '../../lib/standins/providers.ts';
import { accountsOf, startProviderSimulator } from '../../lib/standins/providers.ts';
import { eventually } from '../support/eventually.ts';
import { answeringServer, type GotRequest } from '../support/providers.ts';

const patient = { timeoutMs: 20_000 };
const phone = '+919800000001';
const channels = ['twilio', 'msg91', 'whatsapp', 'sendgrid', 'ses'] as const;
type Name = (typeof channels)[number];

let receiver: Awaited<ReturnType<typeof answeringServer>>;
let got: GotRequest[] = [];
/** What our webhooks answer. */
let status = 204;
/** What answers wait for. */
let held: Promise<void> = Promise.resolve();
let simulator: ProviderSimulator;
let providers: MessageProviders;

beforeAll(async () => {
  receiver = await answeringServer((response, request) => {
    got.push(request);
    void held.then(() => response.writeHead(status).end());
  });
  simulator = await startProviderSimulator({
    ...accountsOf(loadConfig({})),
    callbacks: `${receiver.url}/`,
    deliverAfterMs: 20,
  });
  const { url } = simulator;
  providers = createMessageProviders(
    loadConfig({
      PUBLIC_URL: receiver.url,
      TWILIO_BASE_URL: url,
      MSG91_BASE_URL: url,
      WHATSAPP_BASE_URL: url,
      SENDGRID_BASE_URL: url,
      SES_BASE_URL: url,
    }),
  );
});
afterEach(() => {
  for (const name of channels) simulator.clear(name);
  got = [];
  status = 204;
});
afterAll(async () => {
  await simulator.stop();
  await receiver[Symbol.asyncDispose]();
});

async function send(name: Name, notificationId = 'ntf_1', to = 'asha@example.org'): Promise<string> {
  const all = [...providers.sms, ...providers.whatsapp, ...providers.email];
  const provider = all.find((each) => each.name === name);
  if (!provider) throw new Error(`no provider ${name}`);
  const message = {
    to: provider.channel === 'email' ? to : phone,
    body: 'hello',
    template: { name: 'otp', language: 'en', variables: ['1'] },
    subject: 'Hello',
    html: '<p>hello</p>',
    text: 'hello',
    notificationId,
  };
  const sent =
    provider.channel === 'sms'
      ? { ...message, template: { name: 'otp_v1_en', variables: { code: '1' } } }
      : message;
  return (await provider.send(sent as never, patient)).providerMessageId;
}

/** What a callback says, by the words of its provider: `[message, state, code?]`. */
function said({ url, body }: GotRequest): unknown[] {
  const form = Object.fromEntries(new URLSearchParams(body));
  if (url.includes('twilio')) return [form['MessageSid'], form['MessageStatus'], form['ErrorCode']];
  const json = JSON.parse(body);
  if (url.includes('msg91')) return [json.requestId, json.status];
  if (url.includes('whatsapp')) {
    const [{ id, status: state, errors, biz_opaque_callback_data: notification }] =
      json.entry[0].changes[0].value.statuses;
    return [id, state, notification, errors?.[0].code];
  }
  if (url.includes('sendgrid'))
    return [json[0].sg_message_id.split('.')[0], json[0].event, json[0].notificationId];
  const event = JSON.parse(json.Message);
  return [event.mail.messageId, event.eventType, event.mail.tags.notificationId[0]];
}

const sayings = (expected: unknown[][]) =>
  eventually(() => expect(got.map(said)).toEqual(expected.map((each) => expect.arrayContaining(each))));

/** Whether a callback is signed as its provider says, checked by other code than the simulator's. */
async function isSigned({ url, headers, body }: GotRequest, at = receiver.url): Promise<boolean> {
  if (url.includes('twilio')) {
    const form = Object.fromEntries(new URLSearchParams(body));
    return twilio.validateRequest('development-only', headers['x-twilio-signature'] ?? '', at + url, form);
  }
  if (url.includes('msg91')) return headers['x-webhook-secret'] === 'development-only';
  if (url.includes('whatsapp')) {
    const digest = createHmac('sha256', 'development-only').update(body).digest('hex');
    return headers['x-hub-signature-256'] === `sha256=${digest}`;
  }
  if (url.includes('sendgrid')) {
    const { 'x-twilio-email-event-webhook-timestamp': timestamp = '' } = headers;
    return verify(
      'sha256',
      Buffer.from(timestamp + body),
      createPublicKey({
        key: Buffer.from(DEVELOPMENT_SENDGRID_WEBHOOK.publicKey, 'base64'),
        format: 'der',
        type: 'spki',
      }),
      Buffer.from(headers['x-twilio-email-event-webhook-signature'] ?? '', 'base64'),
    );
  }
  const message = JSON.parse(body);
  const certificate = await (await fetch(message.SigningCertURL)).text();
  const names = ['Message', 'MessageId', 'Subject', 'SubscribeURL', 'Timestamp', 'Token', 'TopicArn', 'Type'];
  const signed = names
    .filter((name) => name in message)
    .map((name) => `${name}\n${message[name]}\n`)
    .join('');
  return verify(
    'sha256',
    Buffer.from(signed),
    new X509Certificate(certificate).publicKey,
    Buffer.from(message.Signature, 'base64'),
  );
}

const words: Record<
  Name,
  { path: string; sent?: string; delivered: string; failed: string; code: number | string }
> = {
  twilio: {
    path: 'twilio/messages',
    sent: 'sent',
    delivered: 'delivered',
    failed: 'undelivered',
    code: 30003,
  },
  msg91: { path: 'msg91', delivered: '1', failed: '16', code: 16 },
  whatsapp: { path: 'whatsapp', sent: 'sent', delivered: 'delivered', failed: 'failed', code: 131026 },
  sendgrid: { path: 'sendgrid', sent: 'processed', delivered: 'delivered', failed: 'bounce', code: '5.2.2' },
  ses: { path: 'ses', sent: 'Send', delivered: 'Delivery', failed: 'Bounce', code: '5.2.2' },
};

describe.each(channels)('R4.3 callbacks of the simulated %s', (name) => {
  const { path, sent, delivered, failed, code } = words[name];
  const states = (id: string, ...each: (string | undefined)[]) =>
    each.filter((state) => state !== undefined).map((state) => [id, state]);

  test('tell what became of a message, signed', async () => {
    const id = await send(name);
    await sayings(states(id, sent, delivered));
    for (const request of got) {
      expect(request.url).toBe(`/api/v1/webhooks/${path}`);
      expect(await isSigned(request)).toBe(true);
      expect(await isSigned({ ...request, body: `${request.body}x` }).catch(() => false)).toBe(
        name === 'msg91',
      );
    }
    expect(simulator.outbox({ id })).toMatchObject([{ state: 'delivered' }]);
  });

  test('tell of a failure, with its code', async () => {
    simulator.receipts(name, { kind: 'failed', code, times: 1 });
    const id = await send(name);
    await sayings(states(id, sent, failed));
    expect(simulator.outbox({ id })).toMatchObject([{ state: 'failed' }]);
    expect(JSON.stringify(got.at(-1)?.body)).toContain(String(code));
  });

  test('go astray by script: twice, in the wrong order, late, or not at all', async () => {
    simulator.receipts(name, { kind: 'doubled', times: 1 });
    const doubled = await send(name);
    await eventually(() => expect(got).toHaveLength(sent ? 4 : 2));
    expect(got.map(said).map(([id]) => id)).toEqual(got.map(() => doubled));

    got = [];
    simulator.receipts(name, { kind: 'reordered', times: 1 });
    const reordered = await send(name);
    await sayings(states(reordered, delivered, sent));

    got = [];
    simulator.receipts(name, { kind: 'dropped', times: 1 });
    const dropped = await send(name);
    simulator.receipts(name, { kind: 'delayed', delayMs: 50, times: 1 });
    const late = await send(name);
    await sayings(states(late, sent, delivered));
    expect(simulator.outbox({ id: dropped })).toMatchObject([{ state: 'delivered' }]);
  });
});

test('a callback waits for the answer to the one before: they come in order, however slow that is', async () => {
  const { promise, resolve: release } = Promise.withResolvers<void>();
  held = promise;
  try {
    const id = await send('whatsapp');
    await eventually(() => expect(simulator.outbox({ id })).toMatchObject([{ state: 'delivered' }]));
    // By then it would have come
    const next = await send('whatsapp');
    await eventually(() => expect(got.map(said).map(([of]) => of)).toContain(next));
    const ofFirst = () =>
      got
        .map(said)
        .filter(([of]) => of === id)
        .map(([, state]) => state);
    expect(ofFirst()).toEqual(['sent']);
    release();
    await eventually(() => expect(ofFirst()).toEqual(['sent', 'delivered']));
    await eventually(() => expect(got).toHaveLength(4));
  } finally {
    release();
    held = Promise.resolve();
  }
});

test('emails and WhatsApp messages bring back the id of their notification', async () => {
  const [one, two] = [await send('sendgrid', 'ntf_7'), await send('ses', 'ntf_8')];
  const three = await send('whatsapp', 'ntf_9');
  await eventually(() => expect(got).toHaveLength(6));
  const ids = (id: string) =>
    got
      .map(said)
      .filter(([of]) => of === id)
      .map(([, , notification]) => notification);
  expect([ids(one), ids(two), ids(three)]).toEqual([
    ['ntf_7', 'ntf_7'],
    ['ntf_8', 'ntf_8'],
    ['ntf_9', 'ntf_9'],
  ]);
});

test('complaints come by script, and for the addresses of the mailbox simulator of SES', async () => {
  simulator.receipts('sendgrid', { kind: 'complained', times: 1 });
  const spam = await send('sendgrid');
  await sayings([
    [spam, 'processed'],
    [spam, 'delivered'],
    [spam, 'spamreport'],
  ]);
  got = [];
  const complaint = await send('ses', 'ntf_1', 'complaint@simulator.amazonses.com');
  await sayings([
    [complaint, 'Send'],
    [complaint, 'Delivery'],
    [complaint, 'Complaint'],
  ]);
  got = [];
  const bounce = await send('ses', 'ntf_1', 'bounce@simulator.amazonses.com');
  await sayings([
    [bounce, 'Send'],
    [bounce, 'Bounce'],
  ]);
  expect([spam, complaint, bounce].map((id) => simulator.outbox({ id })[0]?.state)).toEqual([
    'complained',
    'complained',
    'failed',
  ]);
});

test('WhatsApp tells when a message was read', async () => {
  simulator.receipts('whatsapp', { kind: 'read', times: 1 });
  const id = await send('whatsapp');
  await sayings([
    [id, 'sent'],
    [id, 'delivered'],
    [id, 'read'],
  ]);
  expect(simulator.outbox({ id })).toMatchObject([{ state: 'read' }]);
});

test('what we do not take is tried again, and counted when it is lost', async () => {
  const before = simulator.callbacks();
  status = 503;
  await send('msg91');
  await eventually(() => expect(got).toHaveLength(1));
  status = 204;
  await eventually(() => expect(got).toHaveLength(2));
  expect(got[1]).toMatchObject({ body: got[0]?.body });
  await eventually(() => expect(simulator.callbacks().taken).toBeGreaterThan(before.taken));
  expect(simulator.callbacks().lost).toBe(before.lost);
  expect(await (await fetch(`${simulator.url}/callbacks`)).json()).toEqual(simulator.callbacks());
});

describe('messages from people', () => {
  const inbound = (body: object) =>
    fetch(`${simulator.url}/inbound`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify(body),
    });

  test('come signed by Twilio, which sends nothing more after STOP until START', async () => {
    const person = '+919800000077';
    const sms = { to: person, body: 'hello' };
    const [provider] = providers.sms;
    expect((await inbound({ provider: 'twilio', from: person, text: ' stop ' })).status).toBe(200);
    expect(got).toMatchObject([{ url: '/api/v1/webhooks/twilio/inbound' }]);
    const [stop] = got;
    expect(stop && (await isSigned(stop))).toBe(true);
    expect(Object.fromEntries(new URLSearchParams(stop?.body))).toMatchObject({
      From: person,
      Body: ' stop ',
      OptOutType: 'STOP',
      SmsStatus: 'received',
    });
    await expect(provider?.send(sms, patient)).rejects.toMatchObject({ code: '21610', permanent: true });
    await inbound({ provider: 'twilio', from: person, text: 'START' });
    await expect(provider?.send(sms, patient)).resolves.toBeDefined();
  });

  test('come signed by Meta', async () => {
    expect((await inbound({ provider: 'whatsapp', from: phone, text: 'STOP' })).status).toBe(200);
    const message = got.find(({ url }) => url.includes('whatsapp'));
    expect(message && (await isSigned(message))).toBe(true);
    expect(JSON.parse(message?.body ?? '').entry[0].changes[0].value.messages).toMatchObject([
      { from: '919800000001', type: 'text', text: { body: 'STOP' } },
    ]);
  });

  test('come from SNS as the question whether a subscription is ours, signed, and its address answers', async () => {
    expect((await inbound({ provider: 'ses' })).status).toBe(200);
    const question = got.find(({ url }) => url.includes('ses'));
    expect(question?.headers['x-amz-sns-message-type']).toBe('SubscriptionConfirmation');
    expect(question && (await isSigned(question))).toBe(true);
    const { SubscribeURL, TopicArn } = JSON.parse(question?.body ?? '');
    expect(TopicArn).toBe(DEVELOPMENT_SNS.topicArn);
    expect((await fetch(SubscribeURL)).status).toBe(200);
  });

  test.each([
    ['an unknown provider', { provider: 'fcm', from: phone, text: 'hello' }, 400],
    ['a misspelt field', { provider: 'twilio', form: phone }, 400],
  ])('are refused with %s', async (_, body, expected) => {
    expect((await inbound(body)).status).toBe(expected);
  });
});

test('nobody is told where nobody said whom', async () => {
  const quiet = await startProviderSimulator({ ...accountsOf(loadConfig({})), deliverAfterMs: 1 });
  const sending = createMessageProviders(loadConfig({ WHATSAPP_BASE_URL: quiet.url })).whatsapp[0];
  const template = { name: 'otp', language: 'en', variables: [] };
  const sent = await sending?.send({ to: phone, template }, patient);
  await eventually(() =>
    expect(quiet.outbox({ id: sent?.providerMessageId })).toMatchObject([{ state: 'delivered' }]),
  );
  expect(quiet.callbacks()).toEqual({ taken: 0, lost: 0 });
  expect(await quiet.receive('twilio', { from: phone, text: 'STOP' })).toBe(false);
  await quiet.stop();
});
