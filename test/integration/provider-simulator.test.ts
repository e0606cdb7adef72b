import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import type { ProviderSimulator } from '../../lib/standins/providers.ts';
import { startProviderSimulator } from '../../lib/standins/providers.ts';

const account = { accountSid: `AC${'1'.repeat(32)}`, authToken: 'secret' };
const path = `/2010-04-01/Accounts/${account.accountSid}/Messages.json`;
const fields = { To: '+14155550100', From: '+15005550006', Body: 'hello' };

let simulator: ProviderSimulator;

beforeAll(async () => {
  simulator = await startProviderSimulator({ twilio: account, maxMessages: 5 });
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
