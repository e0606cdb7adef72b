/** Readers of providers' callbacks: by the vectors that providers publish, by their documented examples, and by garbage. */
import { createHmac, generateKeyPairSync, sign } from 'node:crypto';
import { describe, expect, test } from '@jest/globals';
import * as fc from 'fast-check';
import { AppError } from '../../../lib/errors.ts';
import { type Callback, e164Of, type Told, wantsOut } from '../../../lib/webhooks/callback.ts';
import { readMsg91 } from '../../../lib/webhooks/msg91.ts';
import { readSendGrid } from '../../../lib/webhooks/sendgrid.ts';
import { readSes } from '../../../lib/webhooks/ses.ts';
import { confirmationUrl, verifySns } from '../../../lib/webhooks/sns.ts';
import { readTwilioInbound, readTwilioStatus } from '../../../lib/webhooks/twilio.ts';
import { readWhatsApp, whatsAppChallenge } from '../../../lib/webhooks/whatsapp.ts';
import { certificateKey, certificateUrl, snsBody, topicArn } from '../../support/sns.ts';

const now = Date.parse('2026-11-24T20:00:00Z');
const callback = (over: Partial<Callback> = {}): Callback => ({
  url: 'https://ride.example/api/v1/webhooks/x',
  headers: {},
  body: '',
  ...over,
});
const coded = (code: string) => expect.objectContaining({ type: code });
const nothing: Told = { receipts: [], optOuts: [], suppressions: [] };

/** As Twilio signs (https://www.twilio.com/docs/usage/security), written anew. */
function twilioSigned(url: string, fields: Record<string, string>, token = '12345'): Callback {
  const text = Object.keys(fields)
    .toSorted()
    .reduce((sum, name) => sum + name + fields[name], url);
  const signature = createHmac('sha1', token).update(text).digest('base64');
  return callback({
    url,
    headers: { 'x-twilio-signature': signature },
    body: new URLSearchParams(fields).toString(),
  });
}
const whatsAppSigned = (body: string, secret = 'secret') =>
  callback({
    headers: { 'x-hub-signature-256': `sha256=${createHmac('sha256', secret).update(body).digest('hex')}` },
    body,
  });

describe("Twilio's callbacks", () => {
  const sid = `SM${'0a'.repeat(16)}`;
  const url = 'https://ride.example/api/v1/webhooks/twilio/messages';

  test('R4.2 the signature is that of the vector that its own library is tested with: over the URL with its query and the sorted fields', () => {
    const example = callback({
      url: 'https://mycompany.com/myapp.php?foo=1&bar=2',
      headers: { 'x-twilio-signature': 'RSOYDt4T1cUTdK1PDd93/VVr8B8=' },
      body: new URLSearchParams({
        CallSid: 'CA1234567890ABCDE',
        Caller: '+14158675309',
        Digits: '1234',
        From: '+14158675309',
        To: '+18005551212',
      }).toString(),
    });
    expect(readTwilioInbound(example, { authToken: '12345' })).toEqual(nothing);
    for (const over of [
      { url: 'https://mycompany.com/myapp.php?foo=1' },
      { url: 'https://mycompany.com/myapp.php?foo=1&bar=3' },
      { url: 'http://mycompany.com/myapp.php?foo=1&bar=2' },
      { url: 'https://other.com/myapp.php?foo=1&bar=2' },
      { url: 'not a url' },
      { body: `${example.body}&Extra=1` },
      { headers: {} },
      { headers: { 'x-twilio-signature': '' } },
    ])
      expect(() => readTwilioInbound({ ...example, ...over }, { authToken: '12345' })).toThrow(
        coded('WEBHOOK_FORGED'),
      );
    expect(() => readTwilioInbound(example, { authToken: '12346' })).toThrow(coded('WEBHOOK_FORGED'));
  });

  test.each([
    ['queued', 'accepted'],
    ['sending', 'accepted'],
    ['sent', 'sent'],
    ['delivered', 'delivered'],
    ['read', 'read'],
    ['undelivered', 'failed'],
    ['failed', 'failed'],
    ['canceled', 'failed'],
  ])('R4.2 status %s is %s, also through a query string and a port', (status, state) => {
    for (const each of [url, `${url}?n=1&x=a%20b`, url.replace('.example', '.example:443')]) {
      const sent = twilioSigned(each, { MessageSid: sid, MessageStatus: status, ErrorCode: '30003' });
      const { receipts } = readTwilioStatus(sent, { authToken: '12345', now });
      expect(receipts).toEqual([
        { provider: 'twilio', providerMessageId: sid, state, code: '30003', at: now },
      ]);
    }
  });

  test('R4.2 a status that nobody knows tells nothing; a message id that is none is unreadable', () => {
    const read = (fields: Record<string, string>) => () =>
      readTwilioStatus(twilioSigned(url, fields), { authToken: '12345', now });
    expect(read({ MessageSid: sid, MessageStatus: 'teleported' })()).toEqual(nothing);
    expect(read({ MessageSid: 'SMx', MessageStatus: 'sent' })).toThrow(coded('WEBHOOK_UNREADABLE'));
  });

  test.each<[Record<string, string>, boolean | undefined]>([
    [{ Body: 'STOP' }, true],
    [{ Body: ' stop. ' }, true],
    [{ Body: 'Unsubscribe' }, true],
    [{ Body: 'बंद करो' }, true],
    [{ Body: 'whatever', OptOutType: 'STOP' }, true],
    [{ Body: 'START' }, false],
    [{ Body: 'x', OptOutType: 'START' }, false],
    [{ Body: 'stop at the next corner' }, undefined],
    [{ Body: 'HELP', OptOutType: 'HELP' }, undefined],
    [{ Body: '' }, undefined],
  ])('R4 the text %j says whether somebody wants no more: %s', (fields, optedOut) => {
    const sent = twilioSigned(url, { From: '+919810012345', ...fields });
    expect(readTwilioInbound(sent, { authToken: '12345' }).optOuts).toEqual(
      optedOut === undefined
        ? []
        : [{ channel: 'sms', phone: '+919810012345', optedOut, provider: 'twilio' }],
    );
  });
});

describe("WhatsApp's callbacks", () => {
  test('R4.3 the signature is HMAC-SHA-256 of the raw body, as in the example that GitHub documents for X-Hub-Signature-256', () => {
    const example = callback({
      headers: {
        'x-hub-signature-256': 'sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17',
      },
      body: 'Hello, World!',
    });
    const appSecret = "It's a Secret to Everybody";
    // Signed rightly, and no JSON
    expect(() => readWhatsApp(example, { appSecret, now })).toThrow(coded('WEBHOOK_UNREADABLE'));
    for (const over of [
      { body: 'Hello, World' },
      { headers: {} },
      { headers: { 'x-hub-signature-256': 'sha256=' } },
    ])
      expect(() => readWhatsApp({ ...example, ...over }, { appSecret, now })).toThrow(
        coded('WEBHOOK_FORGED'),
      );
    expect(() => readWhatsApp(example, { appSecret: 'another', now })).toThrow(coded('WEBHOOK_FORGED'));
  });

  test('R4.3 tells statuses with their codes, and who wants no more; the unknown among them stops nothing', () => {
    const change = (value: object, field = 'messages') => ({ field, value });
    const body = JSON.stringify({
      object: 'whatsapp_business_account',
      entry: [
        {
          id: '1',
          changes: [
            change({ statuses: [{ id: 'wamid.1', status: 'delivered', timestamp: '1700000000' }, 7, null] }),
            change({
              statuses: [
                { id: 'wamid.2', status: 'failed', timestamp: '1700000000', errors: [{ code: 131026 }] },
              ],
            }),
            change({ statuses: [{ id: 'wamid.3', status: 'deleted', timestamp: '1700000000' }] }),
            change({ messages: [{ from: '919810012345', type: 'text', text: { body: 'Stop' } }] }),
            change({ messages: [{ from: '919810012346', type: 'button', button: { text: 'START' } }] }),
            change({ messages: [{ from: '919810012347', type: 'image', image: {} }] }),
            change({ statuses: [{ id: 'wamid.4', status: 'sent', timestamp: '1' }] }, 'account_update'),
          ],
        },
      ],
    });
    expect(readWhatsApp(whatsAppSigned(body), { appSecret: 'secret', now })).toEqual({
      receipts: [
        { provider: 'whatsapp', providerMessageId: 'wamid.1', state: 'delivered', at: 1_700_000_000_000 },
        {
          provider: 'whatsapp',
          providerMessageId: 'wamid.2',
          state: 'failed',
          code: '131026',
          at: 1_700_000_000_000,
        },
      ],
      optOuts: [
        { channel: 'whatsapp', phone: '+919810012345', optedOut: true, provider: 'whatsapp' },
        { channel: 'whatsapp', phone: '+919810012346', optedOut: false, provider: 'whatsapp' },
      ],
      suppressions: [],
    });
  });

  test('R4.3 the handshake is answered with its challenge only for the token that we chose', () => {
    const url = (mode: string, token: string, challenge: string) =>
      `https://ride.example/api/v1/webhooks/whatsapp?${new URLSearchParams({
        'hub.mode': mode,
        'hub.verify_token': token,
        'hub.challenge': challenge,
      }).toString()}`;
    expect(whatsAppChallenge(url('subscribe', 'ours', '1158201444'), 'ours')).toBe('1158201444');
    for (const bad of [
      url('subscribe', 'other', '1158201444'),
      url('unsubscribe', 'ours', '1158201444'),
      url('subscribe', 'ours', '<script>'),
      url('subscribe', 'ours', ''),
      'https://ride.example/api/v1/webhooks/whatsapp',
    ])
      expect(() => whatsAppChallenge(bad, 'ours')).toThrow(coded('WEBHOOK_FORGED'));
  });
});

describe("SendGrid's callbacks", () => {
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const ours = publicKey.export({ format: 'der', type: 'spki' }).toString('base64');
  const signed = (body: string, seconds = now / 1000) =>
    callback({
      headers: {
        'x-twilio-email-event-webhook-timestamp': String(seconds),
        'x-twilio-email-event-webhook-signature': sign(
          'sha256',
          Buffer.from(seconds + body),
          privateKey,
        ).toString('base64'),
      },
      body,
    });

  test('R4.4 the signature is that of the vector that its own library is tested with', () => {
    const key =
      'MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEEDr2LjtURuePQzplybdC+u4CwrqDqBaWjcMMsTbhdbcwHBcepxo7yAQGhHPTnlvFYPAZFceEu/1FwCM/QmGUhA==';
    const headers = {
      'x-twilio-email-event-webhook-signature':
        'MEUCIQCtIHJeH93Y+qpYeWrySphQgpNGNr/U+UyUlBkU6n7RAwIgJTz2C+8a8xonZGi6BpSzoQsbVRamr2nlxFDWYNH2j/0=',
      'x-twilio-email-event-webhook-timestamp': '1588788367',
    };
    const body = JSON.stringify({
      category: 'example_payload',
      event: 'test_event',
      message_id: 'message_id',
    });
    const then = 1_588_788_367_000;
    const read =
      (over: Partial<Callback>, publicKeyOf = key, at = then) =>
      () =>
        readSendGrid(callback({ headers, body, ...over }), { publicKey: publicKeyOf, now: at });
    // Signed rightly, and no list of events
    expect(read({})).toThrow(coded('WEBHOOK_UNREADABLE'));
    const forgedSignature = headers['x-twilio-email-event-webhook-signature'].replace('NH2j', 'NH3j');
    for (const over of [
      { body: 'payload' },
      { headers: { ...headers, 'x-twilio-email-event-webhook-signature': forgedSignature } },
      { headers: { ...headers, 'x-twilio-email-event-webhook-timestamp': 'timestamp' } },
      { headers: {} },
    ])
      expect(read(over)).toThrow(coded('WEBHOOK_FORGED'));
    expect(read({}, ours)).toThrow(coded('WEBHOOK_FORGED'));
    for (const at of [then + 26 * 3_600_000, then - 10 * 60_000])
      expect(read({}, key, at)).toThrow(coded('WEBHOOK_TOO_OLD'));
  });

  test('R4.4 tells what became of emails, and which addresses get no more', () => {
    const event = (over: object) => ({
      email: 'asha@example.com',
      timestamp: now / 1000 - 60,
      sg_message_id: '14c5d75ce93.dfd.64b469.filter0001.16648.5515E0B88.0',
      ...over,
    });
    const body = JSON.stringify([
      event({ event: 'processed', notificationId: 'ntf_1' }),
      event({ event: 'deferred' }),
      event({ event: 'delivered' }),
      event({ event: 'bounce', type: 'bounce', status: '5.1.1' }),
      event({ event: 'bounce', type: 'blocked', status: '4.7.1', email: 'full@example.com' }),
      event({ event: 'spamreport', email: 'cross@example.com' }),
      event({ event: 'from the future' }),
      'no event',
    ]);
    const { receipts, suppressions, optOuts } = readSendGrid(signed(body), { publicKey: ours, now });
    const common = { provider: 'sendgrid', providerMessageId: '14c5d75ce93', at: now - 60_000 };
    expect(receipts).toEqual([
      { ...common, state: 'sent', notificationId: 'ntf_1' },
      { ...common, state: 'delivered' },
      { ...common, state: 'failed', code: '5.1.1' },
      { ...common, state: 'failed', code: '4.7.1' },
    ]);
    expect(suppressions).toEqual([
      { email: 'asha@example.com', reason: 'bounce' },
      { email: 'cross@example.com', reason: 'complaint' },
    ]);
    expect(optOuts).toEqual([]);
  });
});

describe("MSG91's callbacks", () => {
  const read = (body: string, secret = 'shared') =>
    readMsg91(callback({ headers: { 'x-webhook-secret': secret }, body }), { secret: 'shared', now });
  const receipts = (state: string, code?: string) => [
    { provider: 'msg91', providerMessageId: '3462', state, at: now, ...(code ? { code } : {}) },
  ];

  test.each<[string, string, unknown[]]>([
    [
      'version 2, a form',
      `data=${encodeURIComponent(JSON.stringify([{ requestId: '3462', report: [{ number: '91', status: '1', desc: 'DELIVERED' }] }]))}`,
      receipts('delivered'),
    ],
    [
      'version 3',
      '{"requestId":"3462","number":"91","status":"1","desc":"DELIVERED"}',
      receipts('delivered'),
    ],
    ['the new one', '{"requestId":"3462","telNum":"91","status":"Delivered"}', receipts('delivered')],
    ['a failure', '{"requestId":3462,"status":2,"desc":"FAILED"}', receipts('failed', '2')],
    ['a rejection', '[{"requestId":"3462","status":"16","desc":"REJECTED"}]', receipts('failed', '16')],
    ['what is under way', '{"requestId":"3462","status":"5","desc":"PENDING"}', []],
    ['something else', '[1, {"a": 2}, null]', []],
  ])('R4.2 reads %s', (_, body, expected) => {
    expect(read(body).receipts).toEqual(expected);
  });

  test('R4.2 need the secret, and a body', () => {
    for (const secret of ['', 'share', 'shared '])
      expect(() => read('[]', secret)).toThrow(coded('WEBHOOK_FORGED'));
    for (const body of ['', 'data=', '"x"', '7', '{'])
      expect(() => read(body)).toThrow(coded('WEBHOOK_UNREADABLE'));
  });
});

describe("SNS's messages", () => {
  const options = { topicArns: [topicArn], keyAt: async (_url: string) => certificateKey(), now: Date.now() };
  const refusal = (body: string, over: Partial<typeof options> = {}) =>
    verifySns({ body }, { ...options, ...over }).then(
      () => 'taken',
      (error: AppError) => error.type,
    );

  test('R4.4 are taken by either version of the signature, of each kind of message', async () => {
    for (const version of ['1', '2'] as const) {
      expect(await refusal(snsBody({ Message: 'x', Subject: 'y' }, version))).toBe('taken');
      const subscription = {
        Type: 'SubscriptionConfirmation',
        Token: 't',
        SubscribeURL: 'https://x.example',
      };
      expect(await refusal(snsBody(subscription, version))).toBe('taken');
    }
  });

  test('R4.4 are refused when anything signed was changed, from another topic, or when they are old', async () => {
    const good = JSON.parse(snsBody({ Message: 'x' })) as Record<string, string>;
    for (const name of [
      'Message',
      'MessageId',
      'Timestamp',
      'Type',
      'Signature',
      'SignatureVersion',
      'Subject',
    ]) {
      const changed = { ...good, [name]: name === 'Type' ? 'UnsubscribeConfirmation' : '1' };
      expect([name, await refusal(JSON.stringify(changed))]).toEqual([name, 'WEBHOOK_FORGED']);
    }
    expect(await refusal(snsBody({ TopicArn: `${topicArn}-of-another` }))).toBe('WEBHOOK_FORGED');
    const old = new Date(Date.now() - 2 * 3_600_000).toISOString();
    expect(await refusal(snsBody({ Timestamp: old }))).toBe('WEBHOOK_TOO_OLD');
    expect(await refusal(snsBody({ Timestamp: 'never' }))).toBe('WEBHOOK_TOO_OLD');
  });

  test('R4.4 make us fetch a certificate from nowhere but SNS of the topic’s region', async () => {
    const asked: string[] = [];
    const keyAt = async (url: string) => {
      asked.push(url);
      return certificateKey();
    };
    for (const SigningCertURL of [
      'https://evil.example/SimpleNotificationService-1.pem',
      'https://sns.ap-south-1.amazonaws.com.evil.example/SimpleNotificationService-1.pem',
      'https://evil.example/?https://sns.ap-south-1.amazonaws.com/SimpleNotificationService-1.pem',
      'https://sns.us-east-1.amazonaws.com/SimpleNotificationService-1.pem',
      'http://sns.ap-south-1.amazonaws.com/SimpleNotificationService-1.pem',
      'https://u:p@sns.ap-south-1.amazonaws.com/SimpleNotificationService-1.pem',
      'https://sns.ap-south-1.amazonaws.com:8443/SimpleNotificationService-1.pem',
      'https://sns.ap-south-1.amazonaws.com/?Action=GetTopic&x=.pem',
      'file:///etc/passwd',
      'http://169.254.169.254/latest/meta-data',
      '',
    ])
      expect([SigningCertURL, await refusal(snsBody({ SigningCertURL }), { keyAt })]).toEqual([
        SigningCertURL,
        'WEBHOOK_FORGED',
      ]);
    expect(asked).toEqual([]);
    expect(await refusal(snsBody({}), { keyAt })).toBe('taken');
    expect(asked).toEqual([certificateUrl]);
  });

  test('R4.4 confirm a subscription only there, and only to the topic that they are of', () => {
    const good = `https://sns.ap-south-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn=${topicArn}&Token=t`;
    expect(confirmationUrl({ SubscribeURL: good, TopicArn: topicArn })).toBe(good);
    for (const SubscribeURL of [
      good.replace('sns.ap-south-1.amazonaws.com', 'evil.example'),
      good.replace('ConfirmSubscription', 'DeleteTopic'),
      good.replace('ses-events', 'other'),
      '',
    ])
      expect(() => confirmationUrl({ SubscribeURL, TopicArn: topicArn })).toThrow(coded('WEBHOOK_FORGED'));
  });

  test('R4.4 of SES tell what became of emails, by event or by feedback', () => {
    const mail = { messageId: '0109-1', tags: { notificationId: ['ntf_1'] } };
    const timestamp = '2026-11-24T19:59:00.000Z';
    const read = (event: object) => readSes({ Message: JSON.stringify(event), Timestamp: timestamp }, now);
    const common = { provider: 'ses', providerMessageId: '0109-1', at: now - 60_000 };
    const bounced = (bounceType: string) => ({
      bounceType,
      bouncedRecipients: [{ emailAddress: 'Asha <asha@example.com>', status: '5.1.1' }],
      timestamp,
    });
    expect(read({ eventType: 'Delivery', mail, delivery: { timestamp } })).toEqual({
      ...nothing,
      receipts: [{ ...common, state: 'delivered', notificationId: 'ntf_1' }],
    });
    expect(read({ eventType: 'Bounce', mail, bounce: bounced('Permanent') })).toEqual({
      ...nothing,
      receipts: [{ ...common, state: 'failed', code: '5.1.1', notificationId: 'ntf_1' }],
      suppressions: [{ email: 'asha@example.com', reason: 'bounce' }],
    });
    expect(read({ eventType: 'Bounce', mail, bounce: bounced('Transient') }).suppressions).toEqual([]);
    expect(
      read({
        notificationType: 'Complaint',
        mail: { messageId: '0109-1' },
        complaint: { complainedRecipients: [{ emailAddress: 'cross@example.com' }], timestamp },
      }),
    ).toEqual({ ...nothing, suppressions: [{ email: 'cross@example.com', reason: 'complaint' }] });
    expect(read({ eventType: 'DeliveryDelay', mail })).toEqual(nothing);
    expect(() => read({ hello: 1 })).toThrow(coded('WEBHOOK_UNREADABLE'));
    expect(
      readSes({ Message: 'Successfully validated SNS topic for SES', Timestamp: timestamp }, now),
    ).toEqual(nothing);
  });
});

describe('any garbage', () => {
  const key = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const publicKey = key.publicKey.export({ format: 'der', type: 'spki' }).toString('base64');
  const anything = fc.oneof(
    fc.string({ unit: 'binary', maxLength: 200 }),
    fc.json(),
    fc
      .jsonValue()
      .map((value) => JSON.stringify([value, { requestId: value, report: [value], statuses: value }])),
    fc.jsonValue().map((value) =>
      JSON.stringify({
        object: 'whatsapp_business_account',
        entry: [{ changes: [{ field: 'messages', value }] }],
      }),
    ),
    fc.constantFrom('{"__proto__":{"x":1}}', '['.repeat(5000), 'a=1&a=2&__proto__=3&constructor=4'),
  );
  const readers = {
    twilio: (one: Callback) => readTwilioStatus(one, { authToken: 'x', now }),
    inbound: (one: Callback) => readTwilioInbound(one, { authToken: 'x' }),
    whatsapp: (one: Callback) => readWhatsApp(one, { appSecret: 'secret', now }),
    sendgrid: (one: Callback) => readSendGrid(one, { publicKey, now }),
    msg91: (one: Callback) => readMsg91(one, { secret: 'shared', now }),
  };
  const codeOf = (read: () => unknown) => {
    try {
      read();
      return 'taken';
    } catch (error) {
      return error instanceof AppError ? error.type : String(error);
    }
  };

  test('R4 that is not signed is refused as forged, whoever it claims to be, and never fails in another way', async () => {
    await fc.assert(
      fc.asyncProperty(anything, fc.string(), fc.string(), async (body, signature, url) => {
        const headers = Object.fromEntries(
          [
            'x-twilio-signature',
            'x-hub-signature-256',
            'x-webhook-secret',
            'x-twilio-email-event-webhook-signature',
          ].map((name) => [name, signature]),
        );
        for (const read of Object.values(readers))
          expect(codeOf(() => read({ url, headers, body }))).toBe('WEBHOOK_FORGED');
        const options = { topicArns: [topicArn], keyAt: async () => certificateKey(), now };
        await expect(verifySns({ body }, options)).rejects.toMatchObject({ type: 'WEBHOOK_FORGED' });
      }),
      { numRuns: 100 },
    );
  });

  test('R4 that is signed is read, or refused with a code, and what is read is fit to be handed on', () => {
    fc.assert(
      fc.property(anything, (body) => {
        const seconds = String(now / 1000);
        const signed = [
          () => readers.whatsapp(whatsAppSigned(body)),
          () => readers.msg91(callback({ headers: { 'x-webhook-secret': 'shared' }, body })),
          () =>
            readers.sendgrid(
              callback({
                headers: {
                  'x-twilio-email-event-webhook-timestamp': seconds,
                  'x-twilio-email-event-webhook-signature': sign(
                    'sha256',
                    Buffer.from(seconds + body),
                    key.privateKey,
                  ).toString('base64'),
                },
                body,
              }),
            ),
          () => readSes({ Message: body, Timestamp: 'x' }, now),
        ];
        for (const read of signed) expect(['taken', 'WEBHOOK_UNREADABLE']).toContain(codeOf(read));
      }),
      { numRuns: 150 },
    );
  });

  test('R4 in a text is no wish to stop, and in a number no number', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), (text) => {
        expect([true, false, undefined]).toContain(wantsOut(text));
        expect(e164Of(text) ?? '+1234567').toMatch(/^\+[1-9]\d{6,14}$/);
      }),
    );
  });
});
