/** Callbacks of providers, through the real door: signed as the providers do, handed on to notify. */
import { createHmac, createPrivateKey, sign } from 'node:crypto';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { DEVELOPMENT_SENDGRID_WEBHOOK } from '../../lib/standins/development-keys.ts';
import { certificate, snsBody, topicArn } from '../support/sns.ts';
import { type System, startSystem } from '../support/system.ts';

const publicUrl = 'https://ride.example/behind/a/proxy';
const sid = `SM${'0a'.repeat(16)}`;

let system: System;
/** Plays SNS: its certificate, and confirmations. */
let sns: Server;
let snsUrl: string;
let confirmed: string[] = [];
/** What notify was told. `away`: it takes nothing. */
let heard: { action: string; params: unknown }[] = [];
let away = false;

beforeAll(async () => {
  sns = createServer((req, res) => {
    if (req.url?.endsWith('.pem')) return void res.end(certificate);
    confirmed.push(req.url ?? '');
    res.end('<ConfirmSubscriptionResponse/>');
  });
  await new Promise<void>((resolve) => sns.listen(0, '127.0.0.1', resolve));
  snsUrl = `http://127.0.0.1:${(sns.address() as AddressInfo).port}`;
  system = await startSystem({
    only: ['api', 'monitor'],
    env: {
      PUBLIC_URL: publicUrl,
      PROVIDERS_SANDBOX_URL: snsUrl,
      SES_TOPIC_ARNS: topicArn,
      RATE_LIMIT_CALLBACKS: '200',
      TRUSTED_PROXIES: '1',
    },
  });
  const listen = (action: string) => ({
    permissions: 'internal' as const,
    handler({ params }: { params: unknown }) {
      if (away) throw new Error('Redis is away');
      heard.push({ action, params });
      return null;
    },
  });
  const service = system.broker.createService({
    name: 'notify',
    actions: { receipts: listen('receipts'), optOut: listen('optOut'), suppress: listen('suppress') },
  });
  await system.broker.waitForServices(service.name);
}, 60_000);
afterAll(async () => {
  await system.stop();
  await new Promise((resolve) => sns.close(resolve));
});
beforeEach(() => {
  heard = [];
  confirmed = [];
  away = false;
});

async function post(path: string, body: string, headers: Record<string, string> = {}) {
  const answer = await fetch(`${system.apiUrl}/api/v1/webhooks/${path}`, { method: 'POST', body, headers });
  const text = await answer.text();
  return {
    status: answer.status,
    code: text === '' ? null : JSON.parse(text).error?.code,
    headers: answer.headers,
  };
}
const ok = expect.objectContaining({ status: 204, code: null });

function twilio(path: string, fields: Record<string, string>, query = '', base = publicUrl) {
  const url = `${base}/api/v1/webhooks/twilio/${path}${query}`;
  const text = Object.keys(fields)
    .toSorted()
    .reduce((sum, name) => sum + name + fields[name], url);
  return post(`twilio/${path}${query}`, new URLSearchParams(fields).toString(), {
    'content-type': 'application/x-www-form-urlencoded',
    'x-twilio-signature': createHmac('sha1', 'development-only').update(text).digest('base64'),
  });
}
const whatsapp = (body: string, secret = 'development-only') =>
  post('whatsapp', body, {
    'x-hub-signature-256': `sha256=${createHmac('sha256', secret).update(body).digest('hex')}`,
  });
const statuses = (...list: object[]) =>
  JSON.stringify({
    object: 'whatsapp_business_account',
    entry: [{ changes: [{ field: 'messages', value: { statuses: list } }] }],
  });

describe('a callback', () => {
  test('R4.2 of Twilio is checked against the URL as the outside sees it, with its query, behind a proxy', async () => {
    expect(
      await twilio('messages', { MessageSid: sid, MessageStatus: 'delivered' }, '?try=1&x=a%20b'),
    ).toEqual(ok);
    expect(heard).toEqual([
      {
        action: 'receipts',
        params: {
          receipts: [
            expect.objectContaining({ provider: 'twilio', providerMessageId: sid, state: 'delivered' }),
          ],
        },
      },
    ]);
    const forged = await twilio('messages', { MessageSid: sid, MessageStatus: 'failed' }, '', system.apiUrl);
    expect(forged).toMatchObject({ status: 403, code: 'WEBHOOK_FORGED' });
    expect(heard).toHaveLength(1);
  });

  test('R4 of Twilio passes on STOP and START', async () => {
    expect(await twilio('inbound', { From: '+919810012345', Body: 'STOP', OptOutType: 'STOP' })).toEqual(ok);
    expect(await twilio('inbound', { From: '+919810012345', Body: 'start' })).toEqual(ok);
    expect(await twilio('inbound', { From: '+919810012345', Body: 'where are you?' })).toEqual(ok);
    expect(heard.map(({ params }) => params)).toEqual(
      [true, false].map((optedOut) => ({
        channel: 'sms',
        phone: '+919810012345',
        optedOut,
        provider: 'twilio',
      })),
    );
  });

  test('R4.3 of WhatsApp: the handshake in plain text, statuses by signature over the raw body', async () => {
    const ask = (token: string) =>
      fetch(
        `${system.apiUrl}/api/v1/webhooks/whatsapp?hub.mode=subscribe&hub.verify_token=${token}&hub.challenge=1158201444`,
      );
    const answer = await ask('development-only');
    expect([answer.status, answer.headers.get('content-type'), await answer.text()]).toEqual([
      200,
      'text/plain; charset=utf-8',
      '1158201444',
    ]);
    expect((await ask('another')).status).toBe(403);
    // Blanks and other alphabets are part of what is signed
    const body = ` ${statuses({ id: 'wamid.1', status: 'read', timestamp: '1700000000', note: 'पढ़ा' })}\n`;
    expect(await whatsapp(body)).toEqual(ok);
    expect(heard).toHaveLength(1);
    expect(await whatsapp(body, 'another')).toMatchObject({ status: 403, code: 'WEBHOOK_FORGED' });
    expect(await whatsapp('{"object":"page"}')).toMatchObject({ status: 400, code: 'WEBHOOK_UNREADABLE' });
  });

  test('R4.4 of SendGrid: events by ECDSA over timestamp and body; what was signed long ago is refused', async () => {
    const body = JSON.stringify([
      {
        email: 'a@example.com',
        timestamp: 1_700_000_000,
        event: 'bounce',
        type: 'bounce',
        sg_message_id: 'x1.filter.0',
      },
    ]);
    const send = (seconds: number) =>
      post('sendgrid', body, {
        'x-twilio-email-event-webhook-timestamp': String(seconds),
        'x-twilio-email-event-webhook-signature': sign(
          'sha256',
          Buffer.from(seconds + body),
          createPrivateKey(DEVELOPMENT_SENDGRID_WEBHOOK.privateKey),
        ).toString('base64'),
      });
    const now = Math.floor(Date.now() / 1000);
    expect(await send(now)).toEqual(ok);
    expect(heard).toEqual([
      { action: 'suppress', params: { email: 'a@example.com', reason: 'bounce' } },
      {
        action: 'receipts',
        params: { receipts: [expect.objectContaining({ providerMessageId: 'x1', state: 'failed' })] },
      },
    ]);
    expect(await send(now - 3 * 86_400)).toMatchObject({ status: 403, code: 'WEBHOOK_TOO_OLD' });
  });

  test('R4.2 of MSG91 needs the secret that it was given', async () => {
    const body = '{"requestId":"3462","status":"1","desc":"DELIVERED"}';
    expect(await post('msg91', body, { 'x-webhook-secret': 'development-only' })).toEqual(ok);
    expect(await post('msg91', body, { 'x-webhook-secret': 'development-onl' })).toMatchObject({
      status: 403,
    });
    expect(await post('msg91', body)).toMatchObject({ status: 403, code: 'WEBHOOK_FORGED' });
    expect(heard).toHaveLength(1);
  });

  test('R4.4 of SES comes by SNS: by its certificate, of our topic; a subscription is confirmed only there', async () => {
    const SigningCertURL = `${snsUrl}/SimpleNotificationService-test.pem`;
    const Message = JSON.stringify({ eventType: 'Delivery', mail: { messageId: '0109-1' } });
    expect(await post('ses', snsBody({ SigningCertURL, Message }))).toEqual(ok);
    expect(heard).toHaveLength(1);
    expect(await post('ses', snsBody({ SigningCertURL, Message, TopicArn: `${topicArn}-x` }))).toMatchObject({
      status: 403,
    });
    const subscribe = (origin: string) =>
      post(
        'ses',
        snsBody({
          Type: 'SubscriptionConfirmation',
          SigningCertURL,
          Token: 't',
          Message: 'You have chosen to subscribe',
          SubscribeURL: `${origin}/?Action=ConfirmSubscription&TopicArn=${topicArn}&Token=t`,
        }),
      );
    expect(await subscribe('http://evil.example')).toMatchObject({ status: 403, code: 'WEBHOOK_FORGED' });
    expect(confirmed).toEqual([]);
    expect(await subscribe(snsUrl)).toEqual(ok);
    expect(confirmed).toHaveLength(1);
  });

  test('R4 is answered 2xx only when notify has it: else 503, for the provider to repeat it', async () => {
    away = true;
    const body = statuses({ id: 'wamid.9', status: 'delivered', timestamp: '1700000000' });
    const refused = await whatsapp(body);
    expect(refused).toMatchObject({ status: 503, code: 'UNAVAILABLE' });
    expect(Number(refused.headers.get('retry-after'))).toBeGreaterThan(0);
    away = false;
    expect(await whatsapp(body)).toEqual(ok);
    expect(heard).toHaveLength(1);
  });

  test('R4 of a thousand statuses and more is handed on in parts, and counted with the forged ones', async () => {
    const many = Array.from({ length: 1500 }, (_, n) => ({
      id: `wamid.${n}`,
      status: 'sent',
      timestamp: '1700000000',
    }));
    expect(await whatsapp(statuses(...many))).toEqual(ok);
    expect(heard.map(({ params }) => (params as { receipts: object[] }).receipts.length)).toEqual([
      1000, 500,
    ]);
    const metrics = await (await fetch(`${system.metricsUrl}/metrics`)).text();
    for (const [webhook, outcome] of [
      ['whatsapp', 'taken'],
      ['whatsapp', 'forged'],
      ['whatsapp', 'not-taken'],
      ['sendgrid', 'too-old'],
    ])
      expect(metrics).toMatch(
        new RegExp(`webhooks_total\\{.*webhook="${webhook}",outcome="${outcome}".*\\} [1-9]`),
      );
  });

  test('R4 has a limit by address of its own', async () => {
    const from = (ip: string) => post('msg91', '[]', { 'x-forwarded-for': ip });
    const answers = await Promise.all(Array.from({ length: 210 }, () => from('192.0.2.1')));
    expect(answers.filter(({ code }) => code === 'RATE_LIMITED')).toHaveLength(10);
    expect(await from('192.0.2.2')).toMatchObject({ code: 'WEBHOOK_FORGED' });
  });
});
