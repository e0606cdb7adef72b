import { describe, expect, test } from '@jest/globals';
import { type Api, createApi } from '../../support/simulate/api.ts';
import { ManualClock } from './manual-clock.ts';

interface Call {
  request: string;
  body: unknown;
  token: string | null;
}

/** An API whose answers the test gives, in order; the last one is repeated. */
function scripted(...answers: (() => Response)[]): { api: Api; clock: ManualClock; calls: Call[] } {
  const clock = new ManualClock();
  const calls: Call[] = [];
  const api = createApi({
    url: 'http://api',
    clock,
    fetch: async (url, { method, body, headers }) => {
      calls.push({
        request: `${method} ${url.replace('http://api', '')}`,
        body: typeof body === 'string' ? JSON.parse(body) : null,
        token: new Headers(headers).get('authorization'),
      });
      const answer = answers.length > 1 ? answers.shift() : answers[0];
      if (!answer) throw new TypeError('fetch failed', { cause: new Error('connect ECONNREFUSED') });
      return answer();
    },
  });
  return { api, clock, calls };
}

const json =
  (body: unknown, status = 200) =>
  () =>
    Response.json(body, { status });
const messages = (...texts: string[]) =>
  json({ messages: texts.map((text, index) => ({ id: `m${texts.length - index}`, text })) });
const tooMany = (retryAfter: string) => () =>
  Response.json(
    { error: { code: 'OTP_RESEND_TOO_SOON', message: 'Wait.' } },
    { status: 429, headers: { 'retry-after': retryAfter } },
  );

const who = { phone: '+919812340000', deviceId: 'd', name: 'Driver 1' };

describe('signing in', () => {
  test('waits for a code that was not in the outbox before', async () => {
    const { api, clock, calls } = scripted(
      messages('111111 is your code.'),
      json({ expiresInS: 300, retryAfterS: 30 }, 202),
      messages('111111 is your code.'),
      messages('Your code: 987654. It is good for 5 min.', '111111 is your code.'),
      json({ token: 'T', user: {} }),
    );
    expect(await clock.until(api.signIn(who))).toBe('T');
    expect(calls.map(({ request }) => request)).toEqual([
      'GET /dev/outbox?to=%2B919812340000',
      'POST /api/v1/auth/otp',
      'GET /dev/outbox?to=%2B919812340000',
      'GET /dev/outbox?to=%2B919812340000',
      'POST /api/v1/auth/login',
    ]);
    expect(calls.at(-1)?.body).toEqual({ ...who, code: '987654' });
  });

  test('gives up when no code comes', async () => {
    const { api, clock } = scripted(messages());
    await expect(clock.until(api.signIn(who))).rejects.toThrow(
      'No code for a login came to /dev/outbox in 20 s',
    );
  });
});

describe('a request', () => {
  test('is tried again after as long as a 429 asks for', async () => {
    const { api, clock, calls } = scripted(tooMany('30'), tooMany('2'), json({ id: 'trip' }));
    expect(await clock.until(api.accept('T', 'booking'))).toBe('trip');
    expect(clock.now()).toBe(32_000);
    expect(calls).toHaveLength(3);
    expect(calls[2]).toEqual({
      request: 'POST /api/v1/bookings/booking/accept',
      body: null,
      token: 'Bearer T',
    });
  });

  test('is given up after five tries, or at once when the wait is longer than a minute', async () => {
    const patient = scripted(tooMany('1'));
    await expect(patient.clock.until(patient.api.move('T', 'trip', 'start'))).rejects.toThrow(
      'POST /api/v1/trips/trip/start: 429 OTP_RESEND_TOO_SOON: Wait.',
    );
    expect(patient.calls).toHaveLength(5);
    const hasty = scripted(tooMany('3600'));
    await expect(hasty.clock.until(hasty.api.move('T', 'trip', 'start'))).rejects.toThrow('429');
    expect(hasty.calls).toHaveLength(1);
  });

  test('stops waiting when it is told to', async () => {
    const { api, clock } = scripted(tooMany('30'));
    const stop = new AbortController();
    const accepted = api.accept('T', 'booking', stop.signal);
    const expected = expect(accepted).rejects.toThrow('interrupted');
    await clock.advance(1000);
    stop.abort(new Error('interrupted'));
    await expected;
    expect(clock.pending).toBe(0);
  });

  test('says what was answered, and when nothing was', async () => {
    const page = scripted(() => new Response('<h1>Bad gateway</h1>', { status: 502 }));
    await expect(page.api.accept('T', 'b')).rejects.toThrow('502 <h1>Bad gateway</h1>');
    const odd = scripted(() => new Response('OK'));
    await expect(odd.api.accept('T', 'b')).rejects.toThrow(
      'POST /api/v1/bookings/b/accept: the answer is not JSON',
    );
    const dead = scripted();
    await expect(dead.api.accept('T', 'b')).rejects.toThrow(
      'no answer from http://api (connect ECONNREFUSED)',
    );
  });

  test('takes an empty answer where nothing is expected', async () => {
    const { api } = scripted(() => new Response(null, { status: 204 }));
    await expect(api.move('T', 'trip', 'end')).resolves.toBeUndefined();
  });
});
