/**
 * Every door, tried with everything: made from the contracts and permissions of what is declared, so that a new route or
 * socket event is covered by being there.
 */
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import type { Redis } from 'ioredis';
import { z } from 'zod';
import { type Role, role as roleSchema } from '../../contracts/common.ts';
import { errorCatalogue } from '../../contracts/errors.ts';
import { actionContract, contracts } from '../../contracts/index.ts';
import { clientEvents, neverRefused } from '../../contracts/socket.ts';
import type { RestRoute } from '../../lib/define-service.ts';
import { publicError } from '../../lib/errors.ts';
import type { Permission } from '../../lib/permissions.ts';
import type { Sessions } from '../../mixins/sessions.ts';
import {
  type Answer,
  activeTrip,
  bookTrip,
  type ClientSocket,
  connectSocket,
  request,
} from '../support/clients.ts';
import { heapUsed } from '../support/heap.ts';
import { type System, startSystem } from '../support/system.ts';

interface Route {
  action: string;
  rest: RestRoute;
  permissions: Permission;
}

/** Wrong in kind for almost every field; `__proto__` as an own key, as JSON.parse makes it. */
const wrongValues: unknown[] = [
  { $gt: '' },
  { $where: 'sleep(1000)' },
  ['a'],
  -1,
  'x'.repeat(5000),
  null,
  true,
  JSON.parse('{"__proto__":{"admin":true}}'),
];

const deep = `${'{"a":'.repeat(40)}1${'}'.repeat(40)}`;

let system: System;
let trip: Awaited<ReturnType<typeof activeTrip>>;
/** An alert of the trip's rider. */
let alertId: string;
let routes: Route[];
const tokens = new Map<Role, string>();

const fieldsOf = (schema: z.ZodType): string[] =>
  Object.keys(z.toJSONSchema(schema, { io: 'input', unrepresentable: 'any' }).properties ?? {});
const pathOf = (route: Route, id = 'trp_nobody') =>
  `/api/v1${route.rest.path.replace(':id', id).replace(/:\w+/g, 'nobody')}`;
/** What the path of a request brings along. */
const inPath = ({ rest }: Route) =>
  Object.fromEntries([...rest.path.matchAll(/:(\w+)/g)].map(([, name]) => [name, 'trp_nobody']));
/** Fields that a route wants before it looks at an id. */
const valid: Record<string, unknown> = { updates: [{}], ttlMinutes: 5, pin: '1234' };
const mayCall = ({ permissions }: Pick<Route, 'permissions'>, role: Role) =>
  permissions === 'public' || permissions === 'user' || permissions.includes(role);
/** Somebody who may call the route, but is on no trip. */
const tokenFor = (route: Route) =>
  tokens.get(roleSchema.options.find((role) => mayCall(route, role)) ?? 'rider');

function send(
  route: Route,
  options: { token?: string | undefined; body?: unknown; query?: Record<string, unknown>; id?: string },
) {
  const { method } = route.rest;
  const query = new URLSearchParams();
  for (const [key, value] of Object.entries(options.query ?? {})) query.set(key, String(value));
  const path = `${pathOf(route, options.id)}${query.size > 0 ? `?${query.toString()}` : ''}`;
  return request(system, method, path, {
    token: options.token,
    ...(method === 'GET' ? {} : { body: options.body ?? {} }),
  });
}

/** Those of `badTokens` that were good once. */
const ended = new Set(['revoked', 'expired']);
/** Tokens that are none, or no more: forged, of a session that was ended, of one whose time is over. */
async function badTokens(): Promise<Record<string, string | undefined>> {
  const { sessions, redis } = system.broker.getLocalService('accounts') as unknown as {
    sessions: Sessions;
    redis: Redis;
  };
  const [version, userId, sessionId] = trip.rider.token.split('.');
  const revoked = await sessions.create('usr_gone', 'super-admin', 0);
  await sessions.revoke('usr_gone', revoked.sessionId);
  const expired = await sessions.create('usr_late', 'super-admin', 0);
  const [key = ''] = await redis.keys('sessions:*usr_late*');
  await redis.hset(key, `s:${expired.sessionId}`, Date.now() - 1);
  return {
    none: undefined,
    nonsense: 'nonsense',
    forged: `${version}.${userId}.${sessionId}.${'A'.repeat(43)}`,
    'longer than it was': `${tokens.get('support')}x`,
    "another's session": `${version}.usr_support.${sessionId}.${trip.rider.token.split('.')[3]}`,
    revoked: revoked.token,
    expired: expired.token,
  };
}

/** A refusal that a client can rely on: a code of the catalogue with its status, an id, and nothing of our insides. */
function expectCoded(answer: Answer, what: string): void {
  const code = answer.body?.error?.code;
  expect([what, Object.hasOwn(errorCatalogue, code ?? ''), code]).toEqual([
    what,
    true,
    expect.not.stringMatching(/^INTERNAL$/),
  ]);
  expect([what, answer.status]).toEqual([what, errorCatalogue[code as keyof typeof errorCatalogue].status]);
  expect(answer.body.error.requestId).toEqual(expect.any(String));
  expect(JSON.stringify(answer.body)).not.toMatch(/node_modules|\.ts:|at \w+ \(|redis|nedb/i);
}

const successful: unknown = { asymmetricMatch: (status: number) => [200, 201, 202, 204].includes(status) };
/** What never refuses takes it, whatever it was. */
const expectTaken = (answer: Answer, what: string): void =>
  expect([what, answer.status]).toEqual([what, successful]);

beforeAll(async () => {
  system = await startSystem({ env: { RATE_LIMIT_PER_USER: '1000000', SOCKET_EVENTS_BURST: '100000' } });
  const list = system.broker.registry.actions.list({ skipInternal: true }) as {
    name: string;
    action: Partial<Route>;
  }[];
  routes = list.flatMap(({ name, action }) =>
    action.rest && action.permissions
      ? [{ action: name, rest: action.rest, permissions: action.permissions }]
      : [],
  );
  trip = await activeTrip(system);
  const { body } = await request(system, 'POST', '/api/v1/sos', { token: trip.rider.token, body: {} });
  ({ alertId } = body);
  const accounts = system.broker.getLocalService('accounts') as unknown as { sessions: Sessions };
  for (const role of roleSchema.options)
    tokens.set(role, (await accounts.sessions.create(`usr_${role}`, role, 1)).token);
}, 30_000);
afterAll(() => system.stop());

describe('every route', () => {
  test('there are routes, and none leads to an internal action', () => {
    expect(routes.length).toBeGreaterThan(15);
    expect(routes.filter(({ permissions }) => permissions === 'internal')).toEqual([]);
  });

  test('wants a live session: none, a forged, an ended and an expired one are 401', async () => {
    const bad = Object.entries(await badTokens());
    for (const route of routes.filter(({ permissions }) => permissions !== 'public')) {
      for (const [what, token] of bad) {
        // Whoever once had a session may raise an alert and say where they are
        if (route.rest.admits === 'ever' && ended.has(what)) continue;
        const answer = await send(route, { token });
        expectCoded(answer, `${route.action} with ${what}`);
        expect([route.action, what, answer.body.error.code]).toEqual([route.action, what, 'UNAUTHENTICATED']);
      }
    }
  });

  test('R3.4 of an alert lets an ended and an expired session in: to raise it and to say where, nothing else', async () => {
    const bad = await badTokens();
    const admitting = routes.filter(({ rest }) => rest.admits === 'ever');
    expect(admitting.map(({ action }) => action).toSorted()).toEqual(['sos.locate', 'sos.trigger']);
    for (const what of ended) {
      for (const route of admitting) {
        const answer = await send(route, { token: bad[what], body: { updates: [{}] } });
        if (route.rest.neverRefuses) expectTaken(answer, `${route.action} with ${what}`);
        else
          expect([route.action, answer.status, answer.body.error.code]).toEqual([
            route.action,
            404,
            'SOS_NOT_FOUND',
          ]);
      }
    }
  });

  test('is for the roles that it names: each other one is 403', async () => {
    for (const route of routes) {
      for (const role of roleSchema.options.filter((candidate) => !mayCall(route, candidate))) {
        const answer = await send(route, { token: tokens.get(role) });
        expect([route.action, role, answer.body.error.code]).toEqual([route.action, role, 'FORBIDDEN']);
      }
    }
  });

  test("refuses an id that nobody has, and another's trip", async () => {
    for (const route of routes.filter(({ rest }) => rest.path.includes(':id'))) {
      const schema = actionContract(route.action)?.params;
      const wanted = (schema ? fieldsOf(schema) : []).filter((field) => field in valid);
      const body = Object.fromEntries(wanted.map((field) => [field, valid[field]]));
      // To those that have ids of another kind a trip's is malformed
      const takes = (id: string) =>
        !schema?.safeParse({ id }).error?.issues.some(({ path: [field] }) => field === 'id');
      for (const [id, statuses] of [
        ['trp_nobody', takes('trp_nobody') ? [404] : [400]],
        ['../../etc/passwd', [400, 404]],
        [trip.tripId, takes(trip.tripId) ? [403, 404] : [400]],
      ] as const) {
        if (id === trip.tripId && route.rest.method === 'GET' && tokenFor(route) === tokens.get('viewer'))
          continue;
        const answer = await send(route, { token: tokenFor(route), id: encodeURIComponent(id), body });
        expectCoded(answer, `${route.action} for ${id}`);
        expect([route.action, id, statuses]).toEqual([
          route.action,
          id,
          expect.arrayContaining([answer.status]),
        ]);
      }
    }
  });

  test("refuses another's alert as if there were none", async () => {
    const alerts = routes.filter(({ rest }) => rest.path.startsWith('/sos/:id'));
    expect(alerts.map(({ action }) => action).toSorted()).toEqual(['sos.cancel', 'sos.get', 'sos.locate']);
    for (const route of alerts) {
      for (const role of roleSchema.options) {
        const answer = await send(route, {
          token: tokens.get(role),
          id: alertId,
          body: { updates: [{}], pin: '1234' },
        });
        expectCoded(answer, `${route.action} as ${role}`);
        expect([route.action, role, answer.body.error.code]).toEqual([route.action, role, 'SOS_NOT_FOUND']);
      }
    }
  });

  test("refuses another's booking", async () => {
    const bookingId = await bookTrip(system, trip.rider);
    const bookings = routes.filter(
      (route) => route.rest.path.startsWith('/bookings/:id') && mayCall(route, 'rider'),
    );
    expect(bookings.length).toBeGreaterThan(0);
    for (const route of bookings) {
      const answer = await send(route, { token: tokens.get('rider'), id: bookingId });
      expect([route.action, answer.body.error.code]).toEqual([route.action, 'TRIP_FORBIDDEN']);
    }
  });

  test('refuses each field of a wrong kind, by its name', async () => {
    let refused = 0;
    for (const route of routes) {
      const schema = actionContract(route.action)?.params ?? z.object({});
      for (const field of fieldsOf(schema).filter((name) => !route.rest.path.includes(`:${name}`))) {
        for (const value of wrongValues) {
          const isGet = route.rest.method === 'GET';
          const sent = { [field]: isGet ? String(value) : value };
          const isRefused = !schema.safeParse({ ...sent, ...inPath(route) }).success;
          const answer = await send(route, {
            token: tokenFor(route),
            ...(isGet ? { query: sent } : { body: sent }),
          });
          const what = `${route.action} ${field} ${JSON.stringify(value)?.slice(0, 40)}`;
          if (route.rest.neverRefuses) {
            expectTaken(answer, what);
            continue;
          }
          if (answer.status >= 400) expectCoded(answer, what);
          // What a provider has not signed is not looked at
          if (route.rest.callback) {
            expect([what, answer.body?.error?.code]).toEqual([what, 'WEBHOOK_FORGED']);
            continue;
          }
          if (!isRefused) continue;
          refused++;
          expect([what, answer.body?.error?.code]).toEqual([what, 'VALIDATION']);
        }
      }
    }
    expect(refused).toBeGreaterThan(100);
  });

  test('refuses what is missing, broken, too deep, too large, and keys that change prototypes', async () => {
    for (const route of routes.filter(({ rest }) => rest.method !== 'GET')) {
      const token = tokenFor(route);
      const schema = actionContract(route.action)?.params ?? z.object({});
      if (route.rest.callback) {
        for (const body of ['', '{"broken":', deep, '{"__proto__":{"role":"super-admin"}}', 'a=b']) {
          const answer = await send(route, { token, body });
          expectCoded(answer, `${route.action} ${body.slice(0, 20)}`);
          expect([route.action, answer.body.error.code]).toEqual([route.action, 'WEBHOOK_FORGED']);
        }
        const large = await send(route, { body: 'x'.repeat(route.rest.callback.limitKb * 1024 + 1) });
        expect([route.action, large.body.error.code]).toEqual([route.action, 'PAYLOAD_TOO_LARGE']);
        continue;
      }
      if (route.rest.neverRefuses) {
        expectTaken(await send(route, { token }), `${route.action} with nothing`);
      } else if (!schema.safeParse(inPath(route)).success) {
        expect([route.action, (await send(route, { token })).body.error.code]).toEqual([
          route.action,
          'VALIDATION',
        ]);
      }
      for (const [body, code] of [
        ['{"broken":', 'BAD_JSON'],
        [deep, 'VALIDATION'],
        ['{"__proto__":{"role":"super-admin"}}', 'VALIDATION'],
        [`{"x":"${'x'.repeat(1_000_000)}"}`, 'PAYLOAD_TOO_LARGE'],
      ] as const) {
        const answer = await send(route, { token, body });
        // What is too large is all that may be refused
        if (route.rest.neverRefuses && code !== 'PAYLOAD_TOO_LARGE') {
          expectTaken(answer, `${route.action} ${code}`);
          continue;
        }
        expectCoded(answer, `${route.action} ${code}`);
        expect([route.action, answer.body.error.code]).toEqual([route.action, code]);
      }
    }
    expect(Reflect.get({}, 'role')).toBeUndefined();
  });
});

describe('every socket event', () => {
  let socket: ClientSocket | undefined;
  beforeAll(async () => {
    socket = await connectSocket(system, tokens.get('rider'));
  });
  afterAll(() => void socket?.close());

  /** Sends what the types forbid. */
  const emit = (event: string, payload: unknown): Promise<{ ok: boolean; error?: { code: string } }> =>
    (socket as unknown as { emitWithAck(event: string, payload: unknown): Promise<never> }).emitWithAck(
      event,
      payload,
    );

  test('wants a live session: none, a forged, an ended and an expired one do not connect', async () => {
    for (const [what, token] of Object.entries(await badTokens())) {
      const refused = await connectSocket(system, token).then(
        (connected) => connected.close(),
        (error: Error & { data?: unknown }) => error.data,
      );
      expect([what, refused]).toEqual([what, expect.objectContaining({ code: 'UNAUTHENTICATED' })]);
    }
  });

  test('is cut when its session ends, and cannot come back', async () => {
    const { sessions } = system.broker.getLocalService('accounts') as unknown as { sessions: Sessions };
    const { token, sessionId } = await sessions.create('usr_leaving', 'rider', 0);
    const leaving = await connectSocket(system, token);
    const cut = new Promise((resolve) => leaving.once('disconnect', resolve));
    await sessions.revoke('usr_leaving', sessionId);
    await system.broker.emit('session.revoked', { userId: 'usr_leaving', sessionId });
    await cut;
    await expect(connectSocket(system, token)).rejects.toMatchObject({ data: { code: 'UNAUTHENTICATED' } });
  });

  test('refuses wrong kinds, missing fields, hostile keys, too much and what is not there, and stays connected', async () => {
    for (const [event, schema] of Object.entries(clientEvents)) {
      const payloads = [
        ...wrongValues,
        {},
        undefined,
        'a text',
        JSON.parse(deep),
        ...fieldsOf(schema).flatMap((field) =>
          wrongValues.map((value) => ({ tripId: 'trp_nobody', [field]: value })),
        ),
        { tripId: '../../etc/passwd' },
        { tripId: 'x'.repeat(1_000_000) },
        // Another's trip, first with what the event asks for besides
        { tripId: trip.tripId, updates: [{}], lat: 1, lng: 1, accuracy: 1, timestamp: Date.now() },
        { tripId: trip.tripId, updates: [{}], lat: 1, lng: 1, accuracy: 1, timestamp: 1 },
      ];
      for (const payload of payloads) {
        const answer = await emit(event, payload);
        const what = `${event} ${JSON.stringify(payload)?.slice(0, 60)}`;
        if (neverRefused.some((name) => name === event)) {
          // What is too large is all that may be refused
          const isLarge = JSON.stringify(payload ?? null).length > 500_000;
          expect([what, answer.ok ? 'taken' : answer.error?.code]).toEqual([
            what,
            isLarge ? 'PAYLOAD_TOO_LARGE' : 'taken',
          ]);
          continue;
        }
        // Leaving a trip that one is not in is nothing wrong
        if (event === 'trip:leave' && schema.safeParse(payload).success) continue;
        expect([what, answer.ok]).toEqual([what, false]);
        expect([what, Object.hasOwn(errorCatalogue, answer.error?.code ?? '')]).toEqual([what, true]);
        expect([what, answer.error?.code]).not.toEqual([what, 'INTERNAL']);
      }
    }
    for (const event of ['call', 'trips.get', 'constructor', '__proto__', 'trip:hijack', '']) {
      expect(await emit(event, {})).toMatchObject({ ok: false, error: { code: 'UNKNOWN_EVENT' } });
    }
    expect(socket?.connected).toBe(true);
  });
});

describe('every action, called over the broker', () => {
  interface Declared {
    name: string;
    permissions: Permission;
    schema: z.ZodType;
  }
  let declared: Declared[];
  beforeAll(() => {
    const list = system.broker.registry.actions.list({ skipInternal: true }) as {
      name: string;
      action: Partial<Route>;
    }[];
    declared = list.map(({ name, action }) => ({
      name,
      permissions: action.permissions ?? 'internal',
      schema: actionContract(name)?.params ?? z.never(),
    }));
  });
  const userOf = (role: Role) => ({ id: `usr_${role}`, role, sessionId: 's' });
  const codeOf = (name: string, params: unknown, role?: Role): Promise<string> =>
    system.broker.call(name, params as object, { meta: { user: role ? userOf(role) : null } }).then(
      () => 'none',
      (error: unknown) => publicError(error).code,
    );
  const callerFor = ({ permissions }: Declared) =>
    permissions === 'internal' ? 'rider' : roleSchema.options.find((role) => mayCall({ permissions }, role));

  test('is one of a contract, and every contract is kept by one', () => {
    const inContracts = Object.entries(contracts).flatMap(([service, { actions }]) =>
      Object.keys(actions).map((name) => `${service}.${name}`),
    );
    expect(declared.map(({ name }) => name).toSorted()).toEqual(inContracts.toSorted());
  });

  test('asks who calls: nobody is refused, and each role that is not named', async () => {
    for (const { name, permissions } of declared) {
      if (permissions === 'internal' || permissions === 'public') continue;
      expect([name, await codeOf(name, {})]).toEqual([name, 'UNAUTHENTICATED']);
      for (const role of roleSchema.options.filter((candidate) => !mayCall({ permissions }, candidate)))
        expect([name, role, await codeOf(name, {}, role)]).toEqual([name, role, 'FORBIDDEN']);
    }
  });

  test('refuses what its contract refuses: no parameters, wrong kinds, hostile keys, too much, too deep', async () => {
    let refused = 0;
    for (const action of declared) {
      const bad = [
        {},
        [],
        'a text',
        7,
        JSON.parse(deep),
        ...wrongValues,
        ...fieldsOf(action.schema).flatMap((field) =>
          [...wrongValues, 'x'.repeat(1_000_000), JSON.parse(deep)].map((value) => ({ [field]: value })),
        ),
      ];
      for (const params of bad) {
        // Moleculer takes nothing for an empty object
        if (action.schema.safeParse(params ?? {}).success) continue;
        refused++;
        const what = `${action.name} ${JSON.stringify(params)?.slice(0, 60)}`;
        expect([what, await codeOf(action.name, params, callerFor(action))]).toEqual([what, 'VALIDATION']);
      }
    }
    expect(refused).toBeGreaterThan(300);
    expect(Reflect.get({}, 'admin')).toBeUndefined();
  });
});

describe('the way to a route', () => {
  /** Routes that are no action's. Nobody signs in for these: what they show, anybody may see. */
  const open = ['GET /api/v1/openapi.json', 'GET /docs', 'GET /healthz', 'GET /readyz', 'GET /dev/outbox'];
  /** These look by themselves who calls. */
  const guarded = ['GET /api/v1/admin/events/stream'];
  interface Alias {
    method: string;
    fullPath: string;
    action?: string | null;
  }

  test('is an action with contract and permissions, or on the list of those that need none', () => {
    const { aliases } = system.broker.getLocalService('api') as unknown as { aliases: Alias[] };
    const others = aliases.filter(({ action }) => !action);
    expect(others.map(({ method, fullPath }) => `${method} ${fullPath}`).toSorted()).toEqual(
      [...open, ...guarded].toSorted(),
    );
    const led = aliases.flatMap(({ action }) => (action ? [action] : []));
    expect(led.toSorted()).toEqual(routes.map(({ action }) => action).toSorted());
    for (const action of led) expect([action, actionContract(action)]).toEqual([action, expect.anything()]);
  });

  test('that looks by itself who calls refuses whom an action would refuse', async () => {
    const bad = Object.values(await badTokens());
    for (const route of guarded) {
      const [method = '', path = ''] = route.split(' ');
      const codeFor = async (token: string | undefined) =>
        (await request(system, method, path, { token })).body.error.code;
      for (const token of bad) expect([route, await codeFor(token)]).toEqual([route, 'UNAUTHENTICATED']);
      for (const role of ['rider', 'driver'] as const)
        expect([route, role, await codeFor(tokens.get(role))]).toEqual([route, role, 'FORBIDDEN']);
    }
  });

  test('to an action that has no route is closed, also by its name', async () => {
    for (const path of [
      '/api/v1/location/flush',
      '/api/v1/location.flush',
      '/location/flush',
      '/api/v1/$node/list',
    ])
      expect((await request(system, 'POST', path, { token: tokens.get('super-admin') })).status).toBe(404);
  });
});

describe('an abuse that goes on', () => {
  /** Each door with the largest and the most hostile that it meets. */
  const round = async () => {
    for (const route of routes.filter(({ rest }) => rest.method !== 'GET')) {
      for (const body of [deep, `{"x":"${'x'.repeat(1_000_000)}"}`, '{"broken":', '{"__proto__":{}}'])
        await send(route, { token: tokenFor(route), body });
      await send(route, { token: 'nonsense' });
    }
    const hostile = await connectSocket(system, tokens.get('rider'));
    const loose = hostile as unknown as { emitWithAck(event: string, payload: unknown): Promise<unknown> };
    for (const event of [...Object.keys(clientEvents), 'trip:hijack']) {
      for (const payload of [...wrongValues, { tripId: 'x'.repeat(1_000_000) }, JSON.parse(deep)])
        await loose.emitWithAck(event, payload);
    }
    hostile.close();
    await connectSocket(system, 'nonsense').catch(() => undefined);
  };

  test('leaves the memory flat', async () => {
    // Caches fill and code is compiled in the first rounds
    for (let n = 0; n < 2; n++) await round();
    const before = await heapUsed();
    for (let n = 0; n < 4; n++) await round();
    // Every round moves 20 MB through the doors: one that kept its payloads would show 80
    expect((await heapUsed()) - before).toBeLessThan(12 * 1024 * 1024);
  }, 120_000);
});

test('after all of it the process lives and is ready', async () => {
  const ready = await request(system, 'GET', '/readyz');
  expect(ready.body).toMatchObject({ ready: true, checks: { redis: 'ok', db: 'ok' } });
  const seen = await request(system, 'GET', `/api/v1/trips/${trip.tripId}`, { token: trip.rider.token });
  expect(seen.body).toMatchObject({ id: trip.tripId, status: 'active' });
});
