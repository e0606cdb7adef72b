import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { sealerOf } from '../../lib/sealed.ts';
import {
  type Answer,
  connectAdmin,
  connectSocket,
  newPhone,
  request,
  sentCode,
  signIn,
  signInDriver,
  type User,
} from '../support/clients.ts';
import { eventually } from '../support/eventually.ts';
import { startTestRedis, type TestRedis } from '../support/redis.ts';
import { redisContent, withRedis } from '../support/redis-content.ts';
import { type System, startSystem } from '../support/system.ts';

let system: System;
beforeAll(async () => {
  system = await startSystem();
});
afterAll(() => system.stop());

const post = (path: string, body?: unknown, options: { token?: string; ip?: string; on?: System } = {}) =>
  request(options.on ?? system, 'POST', `/api/v1${path}`, {
    body,
    token: options.token,
    headers: options.ip ? { 'x-forwarded-for': options.ip } : {},
  });
const put = (user: User, path: string, body: unknown) =>
  request(system, 'PUT', `/api/v1${path}`, { token: user.token, body });
const me = (token: string) => request(system, 'GET', '/api/v1/me', { token });
const ask = (phone: string, more: { ip?: string; on?: System } = {}) => post('/auth/otp', { phone }, more);
const login = (phone: string, code: string, on = system) =>
  post('/auth/login', { phone, code, deviceId: 'test' }, { on });
const otherCode = (code: string) => String((Number(code) + 1) % 1_000_000).padStart(6, '0');

function expectRefusal(answer: Answer, status: number, code: string): void {
  expect([answer.status, answer.body?.error?.code]).toEqual([status, code]);
}
function expectToWait(answer: Answer, code: string, atMostS: number): void {
  expectRefusal(answer, 429, code);
  const seconds = Number(answer.headers.get('retry-after'));
  expect(seconds).toBeGreaterThanOrEqual(1);
  expect(seconds).toBeLessThanOrEqual(atMostS);
}

describe('a login code', () => {
  test('is asked for with the same answer by known and unknown numbers', async () => {
    const known = await signIn(system);
    await withRedis(system.config.redisUrl, async (redis) => redis.del(await redis.keys('otp:*:resend')));
    const answers = await Promise.all([ask(known.phone), ask(newPhone())]);
    for (const answer of answers) {
      expect(answer.status).toBe(202);
      expect(answer.body).toEqual({ expiresInS: 300, retryAfterS: 30 });
    }
  });

  test('that is wrong is refused, also for a number that never asked', async () => {
    const phone = newPhone();
    await ask(phone);
    const code = await sentCode(system, phone);
    const answers = await Promise.all([login(phone, otherCode(code)), login(newPhone(), code)]);
    for (const answer of answers) expectRefusal(answer, 401, 'OTP_INVALID');
    expect(answers[0].body.error.message).toBe(answers[1].body.error.message);
  });

  test('is good once', async () => {
    const { phone } = await signIn(system);
    expectRefusal(await login(phone, await sentCode(system, phone)), 401, 'OTP_INVALID');
  });

  test('used by ten at once lets one in', async () => {
    const phone = newPhone();
    await ask(phone);
    const code = await sentCode(system, phone);
    const answers = await Promise.all(Array.from({ length: 10 }, () => login(phone, code)));
    expect(answers.filter(({ status }) => status === 200)).toHaveLength(1);
  });

  test('is locked after five wrong tries, for the right code too, however fast they come', async () => {
    const phone = newPhone();
    await ask(phone);
    const code = await sentCode(system, phone);
    const wrong = await Promise.all(Array.from({ length: 5 }, () => login(phone, otherCode(code))));
    expect(wrong.map(({ status }) => status).toSorted((a, b) => a - b)).toEqual([401, 401, 401, 401, 429]);
    expectToWait(await login(phone, code), 'OTP_LOCKED', 30);
  });

  test('is not sent again too soon', async () => {
    const phone = newPhone();
    await ask(phone);
    expectToWait(await ask(phone), 'OTP_RESEND_TOO_SOON', 30);
  });

  test('is nowhere in Redis once it is sent, nor is the number or the token', async () => {
    const phone = newPhone();
    await ask(phone);
    const code = await sentCode(system, phone);
    await eventually(async () => {
      const content = (await redisContent(system.config.redisUrl)).join('\n');
      // A six-digit run may turn up inside a hash or a time; a code of its own may not
      expect(content).not.toMatch(new RegExp(`(?<![0-9a-f.])${code}(?![0-9a-f])`));
      expect(content).not.toContain(phone.slice(1));
    });
    const { body } = await login(phone, code);
    const content = (await redisContent(system.config.redisUrl)).join('\n');
    expect(content).not.toContain(body.token.split('.')[3]);
  });

  test.each(['12345', 'phone', '+910234567890', ''])('is refused for %j', async (phone) => {
    expect((await ask(phone)).status).toBe(400);
  });

  describe('with tight limits', () => {
    let tight: System;
    let lastIp = 0;
    const freshIp = () => `10.0.0.${++lastIp}`;
    beforeAll(async () => {
      const env = {
        OTP_TTL_S: '1',
        OTP_RESEND_S: '1',
        OTP_PER_NUMBER_PER_HOUR: '2',
        OTP_PER_IP_PER_HOUR: '3',
      };
      tight = await startSystem({ env: { ...env, TRUSTED_PROXIES: '1' } });
    });
    afterAll(() => tight.stop());

    test('expires', async () => {
      const phone = newPhone();
      expect((await ask(phone, { on: tight, ip: freshIp() })).body.expiresInS).toBe(1);
      const code = await sentCode(tight, phone);
      await eventually(() =>
        withRedis(tight.config.redisUrl, async (redis) => expect(await redis.keys('otp:*')).toEqual([])),
      );
      expectRefusal(await login(phone, code, tight), 401, 'OTP_INVALID');
    });

    test('is sent to one number only so often, from wherever it is asked', async () => {
      const phone = newPhone();
      const afterAWhile = () =>
        eventually(async () => {
          const answer = await ask(phone, { on: tight, ip: freshIp() });
          expect(answer.body.error?.code).not.toBe('OTP_RESEND_TOO_SOON');
          return answer;
        });
      expect((await afterAWhile()).status).toBe(202);
      expect((await afterAWhile()).status).toBe(202);
      expectToWait(await afterAWhile(), 'OTP_TOO_MANY', 3600);
    });

    test('is sent at the wish of one address only so often, whatever it claims to forward', async () => {
      const ip = freshIp();
      for (let turn = 0; turn < 3; turn += 1)
        expect((await ask(newPhone(), { on: tight, ip: `1.1.1.${turn}, ${ip}` })).status).toBe(202);
      expectToWait(await ask(newPhone(), { on: tight, ip: `1.1.1.9, ${ip}` }), 'OTP_TOO_MANY', 3600);
      expect((await ask(newPhone(), { on: tight, ip: freshIp() })).status).toBe(202);
    });
  });
});

describe('signing in', () => {
  test('makes a rider of a new number, and the same user of a known one', async () => {
    const first = await signIn(system);
    expect(first.role).toBe('rider');
    await withRedis(system.config.redisUrl, async (redis) => redis.del(await redis.keys('otp:*:resend')));
    await ask(first.phone);
    const code = await sentCode(system, first.phone, 1);
    // As a person may type it
    const again = await login(first.phone.replace('+91', '0'), code);
    expect(again.body.user).toEqual({ id: first.id, role: 'rider', name: 'Asha' });
    expect(again.body.token).not.toBe(first.token);
  });

  test('makes a super-admin of a number in ADMIN_PHONES', async () => {
    expect((await signIn(system, '+919800000000')).role).toBe('super-admin');
  });

  test('twice at once for the first time makes one user', async () => {
    const phone = newPhone();
    await ask(phone);
    const code = await sentCode(system, phone);
    // Below the code, which lets in one at a time
    const accounts = system.broker.getLocalService('accounts') as unknown as {
      findOrCreate(phone: string, name: string): Promise<{ _id: string }>;
    };
    const made = await Promise.all(
      Array.from({ length: 10 }, (_, index) => accounts.findOrCreate(phone, `device ${index}`)),
    );
    const { body } = await login(phone, code);
    expect(new Set([...made.map(({ _id }) => _id), body.user.id]).size).toBe(1);
  });
});

describe('sessions', () => {
  test('R8.1 a session made at login is in Redis and lives for 24 h', async () => {
    const user = await signIn(system);
    const day = 86_400_000;
    await withRedis(system.config.redisUrl, async (redis) => {
      const key = `sessions:{${user.id}}`;
      const sessionId = user.token.split('.')[2];
      const ttl = await redis.pttl(key);
      expect(ttl).toBeGreaterThan(day - 60_000);
      expect(ttl).toBeLessThanOrEqual(day);
      const endsAt = Number(await redis.hget(key, `s:${sessionId}`));
      expect(Math.abs(endsAt - Date.now() - day)).toBeLessThan(60_000);
      // What the store no longer holds, or holds as over, is no session
      expect((await me(user.token)).status).toBe(200);
      await redis.hset(key, `s:${sessionId}`, Date.now() - 1);
      expectRefusal(await me(user.token), 401, 'UNAUTHENTICATED');
    });
  });

  test('a forged token, and another user under a good signature, are refused', async () => {
    const [a, b] = await Promise.all([signIn(system), signIn(system)]);
    const [version, , session, signature] = a.token.split('.');
    expectRefusal(await me([version, b.id, session, signature].join('.')), 401, 'UNAUTHENTICATED');
    expectRefusal(await me(`${a.token.slice(0, -1)}!`), 401, 'UNAUTHENTICATED');
  });

  /** Two sessions of one person, a socket on each. */
  async function twoDevices() {
    const first = await signIn(system);
    await withRedis(system.config.redisUrl, async (redis) => redis.del(await redis.keys('otp:*:resend')));
    await ask(first.phone);
    const { body } = await login(first.phone, await sentCode(system, first.phone, 1));
    const tokens: string[] = [first.token, body.token];
    const sockets = await Promise.all(tokens.map((token) => connectSocket(system, token)));
    return { tokens, sockets, close: () => sockets.forEach((socket) => socket.close()) };
  }

  test('logout ends this session and its sockets, and leaves the other', async () => {
    const { tokens, sockets, close } = await twoDevices();
    expect((await post('/auth/logout', undefined, { token: tokens[0]! })).status).toBe(204);
    expectRefusal(await me(tokens[0]!), 401, 'UNAUTHENTICATED');
    await eventually(() => expect(sockets[0]?.connected).toBe(false));
    expect((await me(tokens[1]!)).status).toBe(200);
    expect(await sockets[1]?.emitWithAck('trip:leave', { tripId: 'trp_none' })).toMatchObject({ ok: true });
    await expect(connectSocket(system, tokens[0])).rejects.toMatchObject({
      data: { code: 'UNAUTHENTICATED' },
    });
    close();
  });

  test('logout-all ends every session and every socket of this user only', async () => {
    const { tokens, sockets, close } = await twoDevices();
    const bystander = await signIn(system);
    expect((await post('/auth/logout-all', undefined, { token: tokens[1]! })).status).toBe(204);
    for (const token of tokens) expectRefusal(await me(token), 401, 'UNAUTHENTICATED');
    await eventually(() => expect(sockets.map(({ connected }) => connected)).toEqual([false, false]));
    expect((await me(bystander.token)).status).toBe(200);
    close();
  });

  test('a token in use has the new role as soon as its holder drives', async () => {
    const user = await signIn(system);
    const nearby = () => request(system, 'GET', '/api/v1/trips/nearby?lat=1&lng=1', { token: user.token });
    expectRefusal(await nearby(), 403, 'FORBIDDEN');
    const vehicle = { plate: 'KA01AB1234', model: 'Dzire' };
    const changed = await post('/me/driver', { vehicle }, { token: user.token });
    expect(changed.body).toMatchObject({ role: 'driver', driver: { vehicle, verified: false } });
    expect((await nearby()).status).toBe(200);
  });

  describe('with a Redis that goes away', () => {
    let redis: TestRedis;
    let alone: System;
    beforeAll(async () => {
      redis = await startTestRedis();
      alone = await startSystem({ env: { REDIS_URL: redis.url } });
    });
    afterAll(async () => {
      await alone.stop();
      await redis.stop();
    });

    test('nobody is told to sign in again: 503, and readiness says what is missing', async () => {
      const user = await signIn(alone);
      await redis.halt();
      const answer = await request(alone, 'GET', '/api/v1/me', { token: user.token });
      expectRefusal(answer, 503, 'SESSION_STORE_UNAVAILABLE');
      expect(Number(answer.headers.get('retry-after'))).toBeGreaterThanOrEqual(1);
      // Let in for an SOS, and for nothing else
      const socket = await connectSocket(alone, user.token);
      const join = () => socket.emitWithAck('trip:join', { tripId: 'trp_none' });
      expect(await join()).toEqual({
        ok: false,
        error: expect.objectContaining({ code: 'SESSION_STORE_UNAVAILABLE', retryAfterS: 1 }),
      });
      expect(await socket.emitWithAck('sos:trigger', {})).toMatchObject({ ok: true, status: 'active' });
      socket.close();
      await expect(connectAdmin(alone, user.token)).rejects.toMatchObject({
        data: { code: 'SESSION_STORE_UNAVAILABLE' },
      });
      // A token that is none needs no store to be refused
      expectRefusal(
        await request(alone, 'GET', '/api/v1/me', { token: 'v1.usr_a.b.c' }),
        401,
        'UNAUTHENTICATED',
      );
      const readiness = await request(alone, 'GET', '/readyz');
      expect(readiness.status).toBe(200);
      expect(readiness.body).toMatchObject({ ready: true, checks: { db: 'ok' } });
      expect(readiness.body.checks.redis).not.toBe('ok');
      expect((await request(alone, 'GET', '/healthz')).status).toBe(200);
    });

    test('a login that cannot be checked is 503, not a failure of ours or a wrong code', async () => {
      const answers = await Promise.all([ask(newPhone(), { on: alone }), login(newPhone(), '123456', alone)]);
      for (const answer of answers) expect(answer.status).toBe(503);
    });

    test('once it is back, a socket that was let in works, or is cut if its session had ended', async () => {
      await redis.resume();
      const [user, gone] = await eventually(() => Promise.all([signIn(alone), signIn(alone)]), 10_000);
      await post('/auth/logout', undefined, { token: gone.token, on: alone });
      await redis.halt();
      const [socket, ended] = await Promise.all([user, gone].map(({ token }) => connectSocket(alone, token)));
      try {
        const cut = new Promise((resolve) => ended!.once('disconnect', resolve));
        const join = () => socket!.emitWithAck('trip:join', { tripId: 'trp_none' });
        const refused = (code: string) => ({ ok: false, error: expect.objectContaining({ code }) });
        expect(await join()).toEqual(refused('SESSION_STORE_UNAVAILABLE'));
        await redis.resume();
        await eventually(async () => expect(await join()).toEqual(refused('TRIP_NOT_FOUND')), 10_000);
        expect(await cut).toBe('io server disconnect');
        expect(socket!.connected).toBe(true);
      } finally {
        socket?.close();
        ended?.close();
      }
    }, 30_000);
  });
});

describe('the profile', () => {
  test('shows its owner all but secrets, and can be changed', async () => {
    const user = await signIn(system);
    const named = await request(system, 'PATCH', '/api/v1/me', {
      token: user.token,
      body: { name: ' Ravi ', role: 'super-admin', id: 'usr_other', phone: '+919999999999' },
    });
    expect(named.status).toBe(200);
    await put(user, '/me/preferences', { language: 'hi', channels: ['sms'] });
    const shown = await me(user.token);
    expect(shown.body).toEqual({
      id: user.id,
      role: 'rider',
      name: 'Ravi',
      phone: user.phone,
      emergencyContacts: [],
      preferences: { language: 'hi', timeZone: 'Asia/Kolkata', channels: ['sms'], quietHours: null },
      email: null,
      hasPin: false,
      driver: null,
      createdAt: expect.any(String),
    });
  });

  test.each([
    ['/me/preferences', { language: 'xx' }],
    ['/me/emergency-contacts', { contacts: [{ name: 'A', phone: 'none' }] }],
    [
      '/me/emergency-contacts',
      { contacts: Array.from({ length: 6 }, () => ({ name: 'A', phone: '+919810000001' })) },
    ],
    ['/me/pin', { pin: '123' }],
    ['/me/pin', { pin: 1234 }],
    ['/me/push-token', { token: 'x'.repeat(20), platform: 'other' }],
  ])('PUT %s refuses %j', async (path, body) => {
    const user = await signIn(system);
    expect((await put(user, path, body)).status).toBe(400);
  });

  test('R8.5 contacts are cached when they change and at login, and read again on a miss', async () => {
    const user = await signIn(system);
    const contacts = [{ name: 'Mother', phone: '098765 43210', relation: 'mother' }];
    const stored = [{ name: 'Mother', phone: '+919876543210', relation: 'mother' }];
    const key = `contacts:{${user.id}}`;
    await withRedis(system.config.redisUrl, async (redis) => {
      const sealer = sealerOf(system.config);
      const cached = async () => JSON.parse(sealer.open((await redis.hget(key, 'sealed')) ?? '')) as unknown;
      expect(await cached()).toEqual([]);
      const changed = await put(user, '/me/emergency-contacts', { contacts });
      expect(changed.body.emergencyContacts).toEqual(stored);
      expect(await cached()).toEqual(stored);
      expect(JSON.stringify(await redis.hgetall(key))).not.toMatch(/Mother|98765/);
      await redis.del(key);
      expect(await system.broker.call('accounts.emergencyContacts', { userId: user.id })).toEqual({
        contacts: stored,
      });
      expect(await cached()).toEqual(stored);
      expect(JSON.stringify(await redis.hgetall(key))).not.toMatch(/Mother|98765/);
    });
  });
});

describe('the PIN', () => {
  const setPin = (user: User, body: object) => put(user, '/me/pin', body);

  test('is set once, and changed only with the current one', async () => {
    const user = await signIn(system);
    expect((await setPin(user, { pin: '1234' })).status).toBe(204);
    expect((await me(user.token)).body.hasPin).toBe(true);
    expectRefusal(await setPin(user, { pin: '5678' }), 403, 'WRONG_PIN');
    expectRefusal(await setPin(user, { pin: '5678', currentPin: '0000' }), 403, 'WRONG_PIN');
    expect((await setPin(user, { pin: '5678', currentPin: '1234' })).status).toBe(204);
    expectRefusal(await setPin(user, { pin: '9999', currentPin: '1234' }), 403, 'WRONG_PIN');
  });

  test('must differ from the duress PIN', async () => {
    expectRefusal(await setPin(await signIn(system), { pin: '1234', duressPin: '1234' }), 400, 'PINS_EQUAL');
  });

  test('changed with the duress PIN looks changed, and is not', async () => {
    const user = await signIn(system);
    const honest = await setPin(user, { pin: '1234', duressPin: '4321' });
    const forced = await setPin(user, { pin: '5678', currentPin: '4321' });
    expect([forced.status, forced.body]).toEqual([honest.status, honest.body]);
    expectRefusal(await setPin(user, { pin: '1111', currentPin: '5678' }), 403, 'WRONG_PIN');
    expect((await setPin(user, { pin: '1111', currentPin: '1234' })).status).toBe(204);
  });

  test('a change that names no duress PIN keeps the one there is', async () => {
    const user = await signIn(system);
    await setPin(user, { pin: '1234', duressPin: '4321' });
    expect((await setPin(user, { pin: '5678', currentPin: '1234' })).status).toBe(204);
    expectRefusal(await setPin(user, { pin: '4321', currentPin: '5678' }), 400, 'PINS_EQUAL');
    expect((await setPin(user, { pin: '9999', currentPin: '4321' })).status).toBe(204);
    expectRefusal(await setPin(user, { pin: '1111', currentPin: '9999' }), 403, 'WRONG_PIN');
  });

  test('is locked after five tries, for the right one too', async () => {
    const user = await signIn(system);
    await setPin(user, { pin: '1234' });
    for (let attempt = 0; attempt < 5; attempt += 1)
      expectRefusal(await setPin(user, { pin: '5678', currentPin: '0000' }), 403, 'WRONG_PIN');
    expectToWait(await setPin(user, { pin: '5678', currentPin: '1234' }), 'PIN_LOCKED', 900);
  });
});

test("another user's number or PIN is in no answer", async () => {
  const [rider, driver] = await Promise.all([signIn(system), signInDriver(system)]);
  await put(rider, '/me/pin', { pin: '736251' });
  const booked = await post(
    '/bookings',
    { from: { lat: 1, lng: 1 }, to: { lat: 2, lng: 2 }, departAt: new Date().toISOString() },
    { token: rider.token },
  );
  const accepted = await post(`/bookings/${booked.body.id}/accept`, undefined, { token: driver.token });
  const answers = [
    accepted,
    await post(`/trips/${accepted.body.id}/start`, undefined, { token: driver.token }),
    await request(system, 'GET', `/api/v1/trips/${accepted.body.id}`, { token: driver.token }),
    await request(system, 'GET', '/api/v1/trips', { token: driver.token }),
    await request(system, 'GET', '/api/v1/trips/nearby?lat=1&lng=1', { token: driver.token }),
    await me(driver.token),
    await me(rider.token),
  ];
  for (const { status, body } of answers) {
    expect(status).toBeLessThan(300);
    expect(JSON.stringify(body)).not.toContain('736251');
  }
  for (const { body } of answers.slice(0, -1))
    expect(JSON.stringify(body)).not.toContain(rider.phone.slice(3));
});
