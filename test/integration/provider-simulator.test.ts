import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
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

describe('scripts over HTTP', () => {
  const order = (body: unknown, type = 'application/json') =>
    fetch(`${simulator.url}/scripts`, {
      method: 'POST',
      headers: { 'Content-Type': type },
      body: typeof body === 'string' ? body : JSON.stringify(body),
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
