import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { errorCatalogue } from '../../contracts/errors.ts';
import { healthOf } from '../../lib/health.ts';
import {
  type Answer,
  aracaju,
  connectSocket,
  newPhone,
  request,
  signIn,
  type User,
} from '../support/clients.ts';
import { eventually } from '../support/eventually.ts';
import { type System, startSystem } from '../support/system.ts';

let system: System;
let user: User;
beforeAll(async () => {
  system = await startSystem();
  user = await signIn(system);
});
afterAll(() => system.stop());

const securityHeaders = ['content-security-policy', 'strict-transport-security', 'x-content-type-options'];

/** A refusal as every client can rely on it: code and status of the catalogue, and nothing of our insides. */
function expectRefusal(answer: Answer, status: number, code: keyof typeof errorCatalogue): void {
  expect([answer.status, answer.body?.error?.code]).toEqual([status, code]);
  const { error, ...rest } = answer.body;
  expect(rest).toEqual({});
  expect(error).toMatchObject({ message: errorCatalogue[code].message, requestId: expect.any(String) });
  expect(answer.headers.get('x-request-id')).toBe(error.requestId);
  expect(answer.headers.get('content-type')).toMatch(/^application\/json/);
  expect(JSON.stringify(answer.body)).not.toMatch(/stack|node_modules|\.ts\b|\.js\b|Error:/);
  for (const header of securityHeaders) expect(answer.headers.get(header)).not.toBeNull();
  expect(answer.headers.get('x-powered-by')).toBeNull();
}

const api = (method: string, path: string, options: Parameters<typeof request>[3] = {}) =>
  request(system, method, `/api/v1${path}`, options);
const otp = (body: unknown, headers: Record<string, string> = {}) =>
  api('POST', '/auth/otp', { body, headers });

describe('a body', () => {
  test.each<[string, unknown, number, keyof typeof errorCatalogue]>([
    ['of a megabyte', { phone: 'x'.repeat(1_000_000) }, 413, 'PAYLOAD_TOO_LARGE'],
    ['that breaks off', '{"phone":', 400, 'BAD_JSON'],
    ['that is no JSON', 'phone=1', 400, 'BAD_JSON'],
    ['that is a bare string', '"+919810000001"', 400, 'BAD_JSON'],
    ['that is null', 'null', 400, 'BAD_JSON'],
    ['that is an array', [{ phone: '+919810000001' }], 400, 'VALIDATION'],
    ['that is empty', '{}', 400, 'VALIDATION'],
    ['with a query operator', { phone: { $gt: '' } }, 400, 'VALIDATION'],
    ['with __proto__', '{"phone":"+919810000001","__proto__":{"polluted":true}}', 400, 'VALIDATION'],
    ['with __proto__ deep inside', '{"phone":"+919810000001","x":[{"__proto__":{}}]}', 400, 'VALIDATION'],
    ['nested a hundred thousand deep', '['.repeat(100_000) + ']'.repeat(100_000), 400, 'VALIDATION'],
    ['with a number for a text', { phone: 919810000001 }, 400, 'VALIDATION'],
    ['with a text far too long', { phone: '1'.repeat(1000) }, 400, 'VALIDATION'],
  ])('%s is refused', async (_, body, status, code) => {
    expectRefusal(await otp(body), status, code);
    expect(Reflect.get({}, 'polluted')).toBeUndefined();
  });

  test.each([
    ['text/plain', 'VALIDATION'],
    ['application/x-www-form-urlencoded', 'VALIDATION'],
    ['application/json; charset=nonsense', 'BAD_JSON'],
  ] as const)('of type %s is refused', async (type, code) => {
    expectRefusal(await otp({ phone: newPhone() }, { 'content-type': type }), 400, code);
  });

  test('in an encoding that is none is refused', async () => {
    expectRefusal(await otp({ phone: newPhone() }, { 'content-encoding': 'nonsense' }), 400, 'BAD_JSON');
  });

  test('may have fields that nobody knows', async () => {
    expect((await otp({ phone: newPhone(), constructor: 'x', unknown: { deep: [1] } })).status).toBe(202);
  });

  test("cannot stand in for the path's parameters", async () => {
    const answer = await api('POST', '/bookings/bkg_none/accept', {
      token: user.token,
      body: { id: 'bkg_other' },
    });
    expectRefusal(answer, 403, 'FORBIDDEN');
    const trip = await api('POST', '/trips/trp_none/start?id[$gt]=', {
      token: user.token,
      body: { id: { $gt: '' } },
    });
    expectRefusal(trip, 404, 'TRIP_NOT_FOUND');
  });
});

describe('an address', () => {
  test.each([
    ['GET', '/api/v1/nowhere'],
    ['GET', '/nowhere'],
    ['GET', '/'],
    ['GET', '/api/v1/../../etc/passwd'],
    ['DELETE', '/api/v1/me'],
    ['GET', '/api/v1/auth/otp'],
    // Actions without a route are no addresses
    ['POST', '/api/v1/accounts/driverStatus'],
    ['POST', '/api/v1/accounts.emergencyContacts'],
    ['GET', '/api/v1/$node/list'],
  ])('%s %s is not found', async (method, path) => {
    expectRefusal(await request(system, method, path, { token: user.token }), 404, 'NOT_FOUND');
  });

  test.each(['/trips/%E0%A4%A', '/trips/%', '/trips/a%00b', `/trips/${'x'.repeat(500)}`, '/trips/%24gt'])(
    'with an id like %s is refused',
    async (path) => {
      expectRefusal(await api('GET', path, { token: user.token }), 400, 'VALIDATION');
    },
  );

  test('with __proto__ in its query is harmless', async () => {
    const answer = await api('GET', '/me?__proto__[polluted]=1&__proto__=1', { token: user.token });
    expect(answer.status).toBeLessThan(500);
    expect(Reflect.get({}, 'polluted')).toBeUndefined();
  });
});

describe('a token', () => {
  test('that is missing, cut, forged or not one at all is refused', async () => {
    const [, id = '', session = ''] = user.token.split('.');
    const bad = [
      undefined,
      'x',
      user.token.slice(0, -2),
      `v1.${id}.${session}.AAAA`,
      'null',
      'e'.repeat(5000),
    ];
    for (const token of bad) expectRefusal(await api('GET', '/me', { token }), 401, 'UNAUTHENTICATED');
    const basic = { authorization: `Basic ${user.token}` };
    expectRefusal(await api('GET', '/me', { headers: basic }), 401, 'UNAUTHENTICATED');
    expectRefusal(await api('GET', `/me?token=${user.token}`), 401, 'UNAUTHENTICATED');
  });

  test('that has ended does not keep its holder from signing in again', async () => {
    const body = { phone: newPhone() };
    expect((await api('POST', '/auth/otp', { body, token: `${user.token}x` })).status).toBe(202);
  });
});

describe('a request id', () => {
  const idFor = async (given: string) =>
    (await api('GET', '/me', { headers: { 'x-request-id': given } })).headers.get('x-request-id');

  test('is taken over when it is sane', async () => {
    expect(await idFor('client-id_1234')).toBe('client-id_1234');
  });

  test.each(['short', 'x'.repeat(65), 'has spaces in it', '<script>alert</script>', '{"a":1234567}'])(
    'like %s is replaced',
    async (given) => {
      const id = await idFor(given);
      expect(id).toMatch(/^[\w-]{8,64}$/);
      expect(id).not.toBe(given);
    },
  );
});

describe('headers', () => {
  test('guard every answer', async () => {
    const answers = [
      await api('GET', '/me', { token: user.token }),
      await request(system, 'GET', '/healthz'),
    ];
    for (const { status, headers } of answers) {
      expect(status).toBe(200);
      for (const header of securityHeaders) expect(headers.get(header)).not.toBeNull();
      expect(headers.get('x-content-type-options')).toBe('nosniff');
    }
  });

  test('say for how long each door keeps a connection: longer than balancers do', async () => {
    const kept = async (url: string) => (await fetch(url)).headers.get('keep-alive');
    expect(await kept(`${system.apiUrl}/healthz`)).toBe('timeout=75');
    expect(await kept(`${system.socketUrl}/socket.io/?EIO=4&transport=polling`)).toBe('timeout=75');
  });

  const preflight = (origin: string) =>
    request(system, 'OPTIONS', '/api/v1/me', {
      headers: {
        origin,
        'access-control-request-method': 'PATCH',
        'access-control-request-headers': 'authorization,content-type',
      },
    });

  test('let pages of this machine call while developing', async () => {
    const origin = 'http://localhost:5173';
    const { status, headers } = await preflight(origin);
    expect(status).toBe(204);
    expect(headers.get('access-control-allow-origin')).toBe(origin);
    expect(headers.get('access-control-allow-methods')).toContain('PATCH');
    expect(headers.get('access-control-allow-headers')).toContain('authorization');
    const answer = await api('GET', '/me', { token: user.token, headers: { origin } });
    expect(answer.headers.get('access-control-allow-origin')).toBe(origin);
    expect(answer.headers.get('access-control-expose-headers')).toContain('retry-after');
  });

  test.each(['https://evil.example', 'http://localhost.evil.example', 'null'])(
    'let no page of %s call',
    async (origin) => {
      for (const answer of [
        await preflight(origin),
        await api('GET', '/me', { token: user.token, headers: { origin } }),
      ]) {
        expectRefusal(answer, 403, 'ORIGIN_REFUSED');
        expect(answer.headers.get('access-control-allow-origin')).toBeNull();
      }
    },
  );
});

describe('a hundred requests a minute', () => {
  test('are a user their limit; probes, the outbox and other users have their own', async () => {
    const [busy, other] = await Promise.all([signIn(system), signIn(system)]);
    const answers = await Promise.all(
      Array.from({ length: 110 }, () => api('GET', '/me', { token: busy.token })),
    );
    expect(answers.filter(({ status }) => status === 200)).toHaveLength(100);
    const refused = answers.filter(({ status }) => status !== 200);
    for (const answer of refused) {
      expectRefusal(answer, 429, 'RATE_LIMITED');
      const seconds = Number(answer.headers.get('retry-after'));
      expect(seconds).toBeGreaterThanOrEqual(1);
      expect(seconds).toBeLessThanOrEqual(60);
    }
    // On whatever route, and by a public one too
    expectRefusal(await api('GET', '/trips', { token: busy.token }), 429, 'RATE_LIMITED');
    expect((await api('GET', '/me', { token: other.token })).status).toBe(200);
    const free = ['/healthz', '/readyz', '/dev/outbox?limit=1'];
    const probes = await Promise.all(
      Array.from({ length: 150 }, (_, index) =>
        request(system, 'GET', free[index % free.length]!, { token: busy.token }),
      ),
    );
    expect(new Set(probes.map(({ status }) => status))).toEqual(new Set([200]));
  });
});

describe('answers', () => {
  test('without content have no body; of new things say where they are', async () => {
    const leaver = await signIn(system);
    const booking = { from: aracaju, to: aracaju, departAt: new Date().toISOString() };
    const booked = await api('POST', '/bookings', { token: leaver.token, body: booking });
    expect([booked.status, booked.headers.get('location')]).toEqual([
      201,
      `/api/v1/bookings/${booked.body.id}`,
    ]);
    const pin = await api('PUT', '/me/pin', { token: leaver.token, body: { pin: '1234' } });
    const left = await api('POST', '/auth/logout', { token: leaver.token });
    for (const { status, body } of [pin, left]) expect([status, body]).toEqual([204, null]);
  });
});

describe('probes and metrics', () => {
  test('are at the API and at the metrics port', async () => {
    for (const url of [system.apiUrl, system.metricsUrl]) {
      const at = { ...system, apiUrl: url };
      expect((await request(at, 'GET', '/healthz')).body).toEqual({ status: 'alive' });
      const ready = await request(at, 'GET', '/readyz');
      expect([ready.status, ready.body]).toEqual([
        200,
        {
          ready: true,
          state: 'ready',
          checks: { broker: 'ok', redis: 'ok', sosRedis: 'ok', sosJournal: 'ok', db: 'ok' },
        },
      ]);
    }
  });

  test('tell what we count ourselves besides what Moleculer does', async () => {
    const socket = await connectSocket(system, user.token);
    const text = await (await fetch(`${system.metricsUrl}/metrics`)).text();
    socket.close();
    const counted = new Set(text.split('\n').map((line) => /^(\w+)\{.*\} \d/.exec(line)?.[1]));
    expect([...counted]).toEqual(
      expect.arrayContaining(['notify_sent_total', 'gateway_connections', 'moleculer_request_total']),
    );
    expect(text.includes(user.phone.slice(1))).toBe(false);
  });

  test('tell how late the event loop is: a blocked one shows', async () => {
    const delay = async () => {
      const text = await (await fetch(`${system.metricsUrl}/metrics`)).text();
      return Number(/^process_eventloop_delay\{.*quantile="max"\} (\S+)/m.exec(text)?.[1]);
    };
    await eventually(async () => expect(await delay()).toBeGreaterThanOrEqual(0));
    // The first sample after a look only starts the clock: block it more than once, with turns of the loop between
    for (let block = 0; block < 4; block += 1) {
      const until = performance.now() + 250;
      while (performance.now() < until);
      for (let turn = 0; turn < 5; turn += 1) await new Promise((resolve) => setImmediate(resolve));
    }
    expect(await delay()).toBeGreaterThan(200);
  });

  test('say so while the process drains', async () => {
    const leaving = await startSystem({ only: ['api', 'monitor'], env: { DRAIN_GRACE_MS: '1500' } });
    let release = () => {};
    const held = new Promise<void>((resolve) => {
      release = resolve;
    });
    healthOf(leaving.broker).onDrain(() => held);
    const stopping = leaving.stop();
    try {
      for (const apiUrl of [leaving.apiUrl, leaving.metricsUrl])
        await eventually(async () => {
          const { status, body } = await request({ ...leaving, apiUrl }, 'GET', '/readyz');
          expect([status, body.ready, body.state]).toEqual([503, false, 'draining']);
        });
    } finally {
      release();
      await stopping;
    }
  });
});
