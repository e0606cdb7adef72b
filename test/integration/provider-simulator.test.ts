import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { assertionOf } from '../../lib/providers/google-token.ts';
import { DEVELOPMENT_SERVICE_ACCOUNT } from '../../lib/standins/development-keys.ts';
import type { ProviderSimulator } from '../../lib/standins/providers.ts';
import { startProviderSimulator } from '../../lib/standins/providers.ts';

const account = { accountSid: `AC${'1'.repeat(32)}`, authToken: 'secret' };
const path = `/2010-04-01/Accounts/${account.accountSid}/Messages.json`;
const fields = { To: '+14155550100', From: '+15005550006', Body: 'hello' };

let simulator: ProviderSimulator;

beforeAll(async () => {
  simulator = await startProviderSimulator({ twilio: account, maxMessages: 5, deliverAfterMs: 60_000 });
});

afterAll(async () => {
  await simulator.stop();
});

function post(body: URLSearchParams | string, { to = path, headers = {} } = {}): Promise<Response> {
  const basic = Buffer.from(`${account.accountSid}:${account.authToken}`).toString('base64');
  return fetch(simulator.url + to, {
    method: 'POST',
    body,
    headers: { Authorization: `Basic ${basic}`, ...headers },
  });
}

function form(change: Record<string, string> = {}): URLSearchParams {
  return new URLSearchParams({ ...fields, ...change });
}

async function list(query: string): Promise<unknown> {
  return (await fetch(`${simulator.url}/outbox?${query}`)).json();
}

describe('the simulated Twilio', () => {
  test('answers with a message resource', async () => {
    const response = await post(form({ Body: 'मदद'.repeat(24) }));
    expect(response.status).toBe(201);
    expect(await response.json()).toEqual({
      account_sid: account.accountSid,
      api_version: '2010-04-01',
      body: 'मदद'.repeat(24),
      date_created: expect.stringMatching(/^\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d \+0000$/),
      date_sent: null,
      date_updated: expect.any(String),
      direction: 'outbound-api',
      error_code: null,
      error_message: null,
      from: fields.From,
      messaging_service_sid: null,
      num_media: '0',
      num_segments: '2',
      price: null,
      price_unit: 'USD',
      sid: expect.stringMatching(/^SM[0-9a-f]{32}$/),
      status: 'queued',
      subresource_uris: { media: expect.stringContaining('/Media.json') },
      to: fields.To,
      uri: expect.stringContaining('/Messages/SM'),
    });
  });

  test.each([
    ['no recipient', { To: '' }, 21604],
    ['a recipient that is not E.164', { To: '4155550100' }, 21211],
    ['no sender', { From: '' }, 21603],
    ['no text', { Body: '' }, 21602],
    ['a text over 1600 characters', { Body: 'a'.repeat(1601) }, 21617],
  ])('refuses %s', async (_, change, code) => {
    const response = await post(form(change));
    expect(response.status).toBe(400);
    const more_info = `https://www.twilio.com/docs/errors/${code}`;
    expect(await response.json()).toEqual({ code, message: expect.any(String), more_info, status: 400 });
  });

  test.each([
    ['without credentials', path, { Authorization: '' }, 401, 20003],
    ['for another account', `/2010-04-01/Accounts/AC${'2'.repeat(32)}/Messages.json`, {}, 404, 20404],
    ['that is not a form', path, { 'Content-Type': 'application/json' }, 400, 20001],
  ])('refuses a request %s', async (_, to, headers, status, code) => {
    const response = await post(form(), { to, headers });
    expect(response.status).toBe(status);
    expect(await response.json()).toMatchObject({ code, status });
  });

  test('survives bodies that are malformed or far too big', async () => {
    const headers = { 'Content-Type': 'application/x-www-form-urlencoded' };
    expect((await post('%%%=%zz&&&=', { headers })).status).toBe(400);
    const tooBig = await post(`Body=${'a'.repeat(1_000_000)}`, { headers });
    expect(tooBig.status).toBe(400);
    expect(await tooBig.json()).toMatchObject({ code: 20001 });
    expect((await post(form())).status).toBe(201);
  });

  test('says when to come back', async () => {
    simulator.fail('twilio', { kind: '429', retryAfterS: 7, times: 1 });
    const response = await post(form());
    expect(response.status).toBe(429);
    expect(response.headers.get('Retry-After')).toBe('7');
  });

  test('takes a message whose answer is slow, whether the caller waits or not', async () => {
    simulator.fail('twilio', { kind: 'slow', delayMs: 60_000, times: 1 });
    const impatient = fetch(simulator.url + path, {
      method: 'POST',
      body: form({ To: '+14155550177' }),
      headers: { Authorization: `Basic ${btoa(`${account.accountSid}:${account.authToken}`)}` },
      signal: AbortSignal.timeout(200),
    });
    await expect(impatient).rejects.toThrow();
    expect(simulator.outbox({ to: '+14155550177' })).toHaveLength(1);
  });
});

describe('the outbox', () => {
  test('lists by recipient, channel and limit, newest first, and forgets the oldest', async () => {
    for (const [to, body] of [
      ['+14155550101', 'forgotten'],
      ['+14155550102', 'first'],
      ['+14155550101', 'second'],
      ['+14155550102', 'third'],
      ['+14155550102', 'fourth'],
      ['+14155550102', 'fifth'],
    ]) {
      await post(form({ To: to ?? '', Body: body ?? '' }));
    }
    const texts = (...expected: string[]) => ({
      messages: expected.map((text) => expect.objectContaining({ text })),
    });
    expect(await list('')).toEqual(texts('fifth', 'fourth', 'third', 'second', 'first'));
    expect(await list('to=%2B14155550101')).toEqual(texts('second'));
    expect(await list('to=+14155550102&channel=sms&limit=2')).toEqual(texts('fifth', 'fourth'));
    expect(await list('to=%2B1415555010')).toEqual(texts());
    expect(await list('channel=email')).toEqual(texts());
  });

  test('refuses a limit that is none', async () => {
    expect(await list('limit=lots')).toMatchObject({ error: { code: 'BAD_LIMIT' } });
  });

  test('knows no other address', async () => {
    expect((await fetch(`${simulator.url}/elsewhere`)).status).toBe(404);
  });
});

test('stops in the middle of a slow answer', async () => {
  const other = await startProviderSimulator({ twilio: account });
  other.fail('twilio', { kind: 'slow', delayMs: 60_000 });
  const cut = fetch(`${other.url}${path}`, { method: 'POST', body: form() });
  const outcome = expect(cut).rejects.toThrow();
  await other.stop();
  await outcome;
});

describe('the simulated list of messages', () => {
  const get = (query: string, method = 'GET') =>
    fetch(`${simulator.url}${path}?${query}`, {
      method,
      headers: { Authorization: `Basic ${btoa(`${account.accountSid}:${account.authToken}`)}` },
    });

  test('shows the newest first, as it was sent', async () => {
    for (const Body of ['one', 'two', 'three']) await post(form({ To: '+14155550166', Body }));
    const response = await get('To=%2B14155550166&PageSize=2');
    expect(response.status).toBe(200);
    expect(await response.json()).toMatchObject({
      messages: [
        { body: 'three', to: '+14155550166', from: fields.From, status: 'queued', date_sent: null },
        { body: 'two' },
      ],
      page: 0,
      page_size: 2,
      next_page_uri: null,
    });
    const none = { messages: [] };
    expect(await (await get('To=%2B14155550166&DateSent%3E=2020-01-01')).json()).toMatchObject(none);
    expect(await (await get('To=%2B14155550166&From=%2B1')).json()).toMatchObject(none);
  });

  test('refuses a page that is none, other methods, and strangers', async () => {
    expect((await get('PageSize=lots')).status).toBe(400);
    expect((await get('', 'PUT')).status).toBe(405);
    expect((await fetch(`${simulator.url}${path}`)).status).toBe(401);
  });
});

describe('the simulated MSG91', () => {
  const flow = {
    template_id: 'a'.repeat(24),
    short_url: '0',
    recipients: [{ mobiles: '919800000001', name: 'Asha' }],
  };
  const ask = (body: unknown, headers: Record<string, string> = {}, method = 'POST') =>
    fetch(`${simulator.url}/api/v5/flow`, {
      method,
      headers: { authkey: 'development-only', 'Content-Type': 'application/json', ...headers },
      ...(method === 'POST' ? { body: typeof body === 'string' ? body : JSON.stringify(body) } : {}),
    });

  test('answers with the id of the request, a message for each number', async () => {
    const recipients = [...flow.recipients, { mobiles: 919800000002, name: 'Ravi' }];
    const response = await ask({ ...flow, recipients });
    expect(response.status).toBe(200);
    expect(await response.json()).toEqual({
      type: 'success',
      message: expect.stringMatching(/^[0-9a-f]{24}$/),
    });
    expect(simulator.outbox({ to: '+919800000002' })).toMatchObject([
      { provider: 'msg91', text: 'name: Ravi' },
    ]);
  });

  test.each([
    ['no number', { ...flow, recipients: [] }, {}, 200, '101'],
    ['a number with a plus', { ...flow, recipients: [{ mobiles: '+919800000001' }] }, {}, 200, '202'],
    ['no template', { recipients: flow.recipients }, {}, 200, '211'],
    ['a sender of five letters', { ...flow, sender: 'RIDES' }, {}, 200, '203'],
    ['no key', flow, { authkey: '' }, 401, '207'],
    ['a form', 'a=b', { 'Content-Type': 'application/x-www-form-urlencoded' }, 400, '400'],
    ['broken JSON', '{', {}, 400, '400'],
  ])('refuses %s, often with status 200', async (_, body, headers, status, code) => {
    const response = await ask(body, headers);
    expect(response.status).toBe(status);
    expect(await response.json()).toEqual({ type: 'error', code, message: expect.any(String) });
  });

  test('takes posts alone', async () => {
    expect((await ask('', {}, 'GET')).status).toBe(405);
  });
});

describe('the simulated PagerDuty', () => {
  const event = {
    routing_key: 'development-only-routing-key-000',
    event_action: 'trigger',
    dedup_key: 'sos-1',
    payload: { summary: 'SOS', source: 'sos', severity: 'critical' },
  };
  const ask = (body: unknown) =>
    fetch(`${simulator.url}/v2/enqueue`, { method: 'POST', body: JSON.stringify(body) });

  test('makes up a key where there is none', async () => {
    const { dedup_key: _, ...keyless } = event;
    const response = await ask(keyless);
    expect(response.status).toBe(202);
    const made = simulator.incidents().at(-1)?.dedupKey;
    expect(await response.json()).toEqual({ status: 'success', message: 'Event processed', dedup_key: made });
    expect(await (await fetch(`${simulator.url}/incidents`)).json()).toEqual({
      incidents: [expect.objectContaining({ dedupKey: made, state: 'triggered', triggers: 1 })],
    });
  });

  test.each([
    ['a summary over 1024 characters', { payload: { ...event.payload, summary: 'x'.repeat(1025) } }],
    ['an unknown severity', { payload: { ...event.payload, severity: 'fatal' } }],
    ['a time that is none', { payload: { ...event.payload, timestamp: 'now' } }],
    ['a trigger without payload', { payload: undefined }],
    ['a resolve without key', { event_action: 'resolve', dedup_key: undefined }],
    ['an unknown action', { event_action: 'escalate' }],
    ['a key over 255 characters', { dedup_key: 'k'.repeat(256) }],
    ['a link that is none', { links: [{ href: 'nowhere' }] }],
    ['a routing key of 31 characters', { routing_key: 'r'.repeat(31) }],
  ])('refuses %s', async (_, change) => {
    const response = await ask({ ...event, ...change });
    expect(response.status).toBe(400);
    expect(await response.json()).toEqual({
      status: 'invalid event',
      message: 'Event object is invalid',
      errors: [expect.any(String)],
    });
  });

  test('forgets the oldest incidents', async () => {
    for (let each = 0; each < 8; each += 1) await ask({ ...event, dedup_key: `many-${each}` });
    expect(simulator.incidents().map(({ dedupKey }) => dedupKey)).toEqual(
      [3, 4, 5, 6, 7].map((each) => `many-${each}`),
    );
  });
});

describe('the simulated WhatsApp', () => {
  const template = {
    name: 'trip_accepted',
    language: { code: 'en' },
    components: [{ type: 'body', parameters: [{ type: 'text', text: 'Asha' }] }],
  };
  const message = { messaging_product: 'whatsapp', to: '919800000001', type: 'template', template };
  const ask = (
    at: string,
    body: unknown,
    headers: Record<string, string> = {},
    id = '100000000000001',
    method = 'POST',
  ) =>
    fetch(`${at}/v23.0/${id}/messages`, {
      method,
      headers: {
        Authorization: 'Bearer development-only',
        'Content-Type': 'application/json',
        ...headers,
      },
      ...(method === 'POST' ? { body: typeof body === 'string' ? body : JSON.stringify(body) } : {}),
    });

  test('answers as Meta does', async () => {
    const response = await ask(simulator.url, message);
    expect(response.status).toBe(200);
    expect(await response.json()).toEqual({
      messaging_product: 'whatsapp',
      contacts: [{ input: '919800000001', wa_id: '919800000001' }],
      messages: [{ id: expect.stringMatching(/^wamid\./), message_status: 'accepted' }],
    });
  });

  const templateWith = (change: object) => ({ ...message, template: { ...template, ...change } });
  test.each([
    ['a wrong token', message, { Authorization: 'Bearer other' }, 401, 190],
    ['broken JSON', '{', {}, 400, 100],
    ['a form', 'a=b', { 'Content-Type': 'application/x-www-form-urlencoded' }, 400, 100],
    ['another product', { ...message, messaging_product: 'signal' }, {}, 400, 100],
    ['a text', { ...message, type: 'text', text: { body: 'hello' } }, {}, 400, 100],
    ['a name with a hyphen', templateWith({ name: 'trip-accepted' }), {}, 404, 132001],
    ['no language', templateWith({ language: {} }), {}, 400, 100],
    ['a number that is none', { ...message, to: '12' }, {}, 400, 131009],
  ])('refuses %s', async (_, body, headers, status, code) => {
    const response = await ask(simulator.url, body, headers);
    expect(response.status).toBe(status);
    expect(await response.json()).toEqual({
      error: {
        message: expect.stringContaining(`(#${code})`),
        type: 'OAuthException',
        code,
        error_data: { messaging_product: 'whatsapp', details: expect.any(String) },
        fbtrace_id: expect.any(String),
      },
    });
  });

  test('knows no other number and no other method', async () => {
    expect((await ask(simulator.url, message, {}, '7')).status).toBe(400);
    expect((await ask(simulator.url, message, {}, '100000000000001', 'GET')).status).toBe(400);
  });

  test('knows its templates and their values, where it is told of them', async () => {
    const strict = await startProviderSimulator({
      twilio: account,
      whatsapp: {
        phoneNumberId: '100000000000001',
        token: 'development-only',
        templates: { trip_accepted: 2 },
      },
    });
    const code = async (body: unknown) => {
      const answer = (await (await ask(strict.url, body)).json()) as { error?: { code: number } };
      return answer.error?.code;
    };
    expect(await code(message)).toBe(132000);
    expect(await code(templateWith({ name: 'other' }))).toBe(132001);
    const parameters = [...(template.components[0]?.parameters ?? []), { type: 'text', text: 'b' }];
    expect(await code(templateWith({ components: [{ type: 'body', parameters }] }))).toBeUndefined();
    await strict.stop();
  });
});

describe('the simulated SendGrid', () => {
  const mail = {
    personalizations: [{ to: [{ email: 'asha@example.org' }] }],
    from: { email: 'no-reply@example.com' },
    subject: 'Hello',
    content: [
      { type: 'text/plain', value: 'hello' },
      { type: 'text/html', value: '<script>alert(1)</script><p>hello</p>' },
    ],
  };
  const ask = (body: unknown, headers: Record<string, string> = {}) =>
    fetch(`${simulator.url}/v3/mail/send`, {
      method: 'POST',
      headers: {
        Authorization: 'Bearer SG.development-only',
        'Content-Type': 'application/json',
        ...headers,
      },
      body: typeof body === 'string' ? body : JSON.stringify(body),
    });

  test('answers 202 with an id and nothing else, and shows the email where nothing of it can run', async () => {
    const response = await ask(mail);
    expect([response.status, await response.text()]).toEqual([202, '']);
    const id = response.headers.get('X-Message-Id') ?? '';
    const shown = await fetch(`${simulator.url}/outbox/html?id=${id}`);
    expect(await shown.text()).toContain('<p>hello</p>');
    expect(shown.headers.get('Content-Security-Policy')).toMatch(/^sandbox; default-src 'none'/);
    expect((await fetch(`${simulator.url}/outbox/html?id=other`)).status).toBe(404);
  });

  test.each([
    ['a wrong key', mail, { Authorization: 'Bearer x' }, 401, null],
    ['broken JSON', '{', {}, 400, null],
    ['a form', 'a=b', { 'Content-Type': 'application/x-www-form-urlencoded' }, 415, null],
    ['nobody', { ...mail, personalizations: [] }, {}, 400, 'personalizations'],
    ['an address that is none', { ...mail, from: { email: 'x' } }, {}, 400, 'from.email'],
    ['no subject', { ...mail, subject: undefined }, {}, 400, 'subject'],
    ['HTML before the text', { ...mail, content: mail.content.toReversed() }, {}, 400, 'content'],
    ['an empty text', { ...mail, content: [{ type: 'text/plain', value: '' }] }, {}, 400, 'content.0.value'],
    ['too much to bring back', { ...mail, custom_args: { a: 'x'.repeat(10_000) } }, {}, 400, 'custom_args'],
  ])('refuses %s', async (_, body, headers, status, field) => {
    const response = await ask(body, headers);
    expect(response.status).toBe(status);
    expect(await response.json()).toMatchObject({ errors: [{ message: expect.any(String), field }] });
  });
});

describe('the simulated Google', () => {
  const token = (asked: Record<string, string>) =>
    fetch(`${simulator.url}/token`, { method: 'POST', body: new URLSearchParams(asked) });
  const grant_type = 'urn:ietf:params:oauth:grant-type:jwt-bearer';
  const assertion = (change: Partial<typeof DEVELOPMENT_SERVICE_ACCOUNT> = {}, now = Date.now()) =>
    assertionOf({ ...DEVELOPMENT_SERVICE_ACCOUNT, ...change }, now);

  test('gives a token for an assertion that is good, and takes it', async () => {
    const response = await token({ grant_type, assertion: assertion() });
    expect(response.status).toBe(200);
    const { access_token, ...rest } = (await response.json()) as Record<string, unknown>;
    expect(rest).toEqual({ expires_in: 3599, token_type: 'Bearer' });
    const send = (body: unknown) =>
      fetch(`${simulator.url}/v1/projects/development-only/messages:send`, {
        method: 'POST',
        headers: { Authorization: `Bearer ${String(access_token)}` },
        body: typeof body === 'string' ? body : JSON.stringify(body),
      });
    expect((await send({ message: { token: 'installation-1' } })).status).toBe(200);
    const wrong = [
      '{',
      { message: {} },
      { message: { token: 'installation-1', data: { count: 1 } } },
      { message: { token: 'installation-1', android: { ttl: '1m' } } },
      { message: { token: 'installation-1', apns: { headers: { 'apns-priority': '7' } } } },
      { message: { token: 'installation-1', apns: { headers: { 'apns-collapse-id': 'k'.repeat(65) } } } },
      { message: { token: 'installation-1' }, more: true },
    ];
    for (const body of wrong) {
      const refused = await send(body);
      expect(refused.status).toBe(400);
      expect(await refused.json()).toMatchObject({ error: { code: 400, status: 'INVALID_ARGUMENT' } });
    }
  });

  test.each([
    ['no assertion', { grant_type }, 'invalid_grant'],
    ['another grant', { grant_type: 'password', assertion: assertion() }, 'unsupported_grant_type'],
    ['a stranger', { grant_type, assertion: assertion({ client_email: 'x@y' }) }, 'invalid_grant'],
    ['another audience', { grant_type, assertion: assertion({ token_uri: 'https://x' }) }, 'invalid_grant'],
    ['one of yesterday', { grant_type, assertion: assertion({}, Date.now() - 86_400_000) }, 'invalid_grant'],
    ['a changed one', { grant_type, assertion: `${assertion().slice(0, -9)}AAAAAAAAA` }, 'invalid_grant'],
  ])('refuses %s', async (_, asked, error) => {
    const response = await token(asked);
    expect(response.status).toBe(400);
    expect(await response.json()).toMatchObject({ error, error_description: expect.any(String) });
  });

  test('takes no message without a token of its own', async () => {
    const response = await fetch(`${simulator.url}/v1/projects/development-only/messages:send`, {
      method: 'POST',
      headers: { Authorization: 'Bearer ya29.other' },
      body: '{}',
    });
    expect(response.status).toBe(401);
    expect(await response.json()).toMatchObject({ error: { status: 'UNAUTHENTICATED' } });
  });
});

describe('the page', () => {
  test('is there, with what it needs', async () => {
    const page = await fetch(`${simulator.url}/`);
    expect(page.headers.get('Content-Type')).toContain('text/html');
    expect(page.headers.get('Content-Security-Policy')).toContain("default-src 'none'");
    const text = await page.text();
    for (const needed of ['/outbox?', '/outbox/html?', '/callbacks', "sandbox: ''"])
      expect(text).toContain(needed);
  });
});

describe('a simulator under load', () => {
  test('answers late by its latency, fails a share by chance, and takes no more than its rate', async () => {
    const slow = await startProviderSimulator({ twilio: account, latencyMs: 30, perSecond: 1000 });
    const ask = () =>
      fetch(slow.url + path, {
        method: 'POST',
        body: form(),
        headers: { Authorization: `Basic ${btoa(`${account.accountSid}:${account.authToken}`)}` },
      });
    const started = performance.now();
    expect((await ask()).status).toBe(201);
    expect(performance.now() - started).toBeGreaterThanOrEqual(29);

    slow.fail('twilio', { kind: 'flaky', share: 0.5 });
    const statuses = await Promise.all(Array.from({ length: 60 }, async () => (await ask()).status));
    expect(new Set(statuses)).toEqual(new Set([201, 500]));
    slow.fail('twilio', { kind: 'flaky', share: 1, times: 1 });
    expect((await ask()).status).toBe(500);
    expect((await ask()).status).toBe(201);
    await slow.stop();

    const narrow = await startProviderSimulator({ twilio: account, perSecond: 2 });
    const send = () => fetch(narrow.url + path, { method: 'POST', body: form() });
    const answers = await Promise.all(Array.from({ length: 12 }, send));
    const refused = answers.filter(({ status }) => status === 429);
    expect(refused.length).toBeGreaterThan(0);
    expect(refused[0]?.headers.get('Retry-After')).toBe('1');
    await narrow.stop();
  });
});

describe('scripts over HTTP', () => {
  const order = (body: unknown, type = 'application/json') =>
    fetch(`${simulator.url}/scripts`, {
      method: 'POST',
      headers: { 'Content-Type': type },
      body: typeof body === 'string' ? body : JSON.stringify(body),
    });

  test('say what becomes of messages', async () => {
    const receipts = { kind: 'failed', code: 30003, times: 1 };
    expect(await (await order({ provider: 'twilio', receipts })).json()).toEqual({
      provider: 'twilio',
      receipts,
    });
    expect((await order({ provider: 'twilio', receipts: null })).status).toBe(200);
  });

  test('play and end', async () => {
    expect((await order({ provider: 'twilio', script: { kind: '500' } })).status).toBe(200);
    expect((await post(form())).status).toBe(500);
    expect((await order({ provider: 'twilio', script: null })).status).toBe(200);
    expect((await post(form())).status).toBe(201);
  });

  test.each([
    ['an unknown provider', { provider: 'carrier-pigeon', script: { kind: '500' } }, 'application/json'],
    ['an unknown kind', { provider: 'twilio', script: { kind: '418' } }, 'application/json'],
    [
      'what the provider never does',
      { provider: 'twilio', script: { kind: 'error-in-200' } },
      'application/json',
    ],
    ['a misspelt option', { provider: 'twilio', script: { kind: 'slow', delay: 1 } }, 'application/json'],
    ['an unknown fate', { provider: 'twilio', receipts: { kind: 'lost' } }, 'application/json'],
    ['a share over 1', { provider: 'twilio', script: { kind: 'flaky', share: 2 } }, 'application/json'],
    ['broken JSON', '{', 'application/json'],
    ['what a web page may post', { provider: 'twilio', script: { kind: '500' } }, 'text/plain'],
  ])('refuse %s', async (_, body, type) => {
    expect((await order(body, type)).status).toBe(400);
    expect((await post(form())).status).toBe(201);
  });

  test('a test is told when a provider never fails so', () => {
    expect(() => simulator.fail('pagerduty', { kind: 'error-in-200' })).toThrow('pagerduty');
  });
});
