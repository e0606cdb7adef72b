/**
 * Every door, tried with everything: made from the contracts and permissions of what is declared, so that a new route or
 * socket event is covered by being there.
 */
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { z } from 'zod';
import { type Role, role as roleSchema } from '../../contracts/common.ts';
import { errorCatalogue } from '../../contracts/errors.ts';
import { actionContract } from '../../contracts/index.ts';
import { clientEvents } from '../../contracts/socket.ts';
import type { RestRoute } from '../../lib/define-service.ts';
import type { Permission } from '../../lib/permissions.ts';
import type { Sessions } from '../../mixins/sessions.ts';
import { type Answer, activeTrip, type ClientSocket, connectSocket, request } from '../support/clients.ts';
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

let system: System;
let trip: Awaited<ReturnType<typeof activeTrip>>;
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
const valid: Record<string, unknown> = { updates: [{}], ttlMinutes: 5 };
const mayCall = ({ permissions }: Route, role: Role) =>
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

  test('wants a live session: none, a forged, a dead one and no bearer are 401', async () => {
    const [version, userId, sessionId] = trip.rider.token.split('.');
    const dead = tokens.get('support') ?? '';
    const accounts = system.broker.getLocalService('accounts') as unknown as { sessions: Sessions };
    const { token: revoked, sessionId: revokedId } = await accounts.sessions.create('usr_gone', 'rider', 1);
    await accounts.sessions.revoke('usr_gone', revokedId);
    for (const route of routes.filter(({ permissions }) => permissions !== 'public')) {
      for (const token of [
        undefined,
        'nonsense',
        `${version}.${userId}.${sessionId}.${'A'.repeat(43)}`,
        `${dead}x`,
        revoked,
      ]) {
        const answer = await send(route, { token });
        expectCoded(answer, `${route.action} with ${token}`);
        expect([route.action, answer.status]).toEqual([route.action, 401]);
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
      for (const [id, statuses] of [
        ['trp_nobody', [404]],
        ['../../etc/passwd', [400, 404]],
        [trip.tripId, [403, 404]],
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
          if (answer.status >= 400) expectCoded(answer, what);
          if (!isRefused) continue;
          refused++;
          expect([what, answer.body?.error?.code]).toEqual([what, 'VALIDATION']);
        }
      }
    }
    expect(refused).toBeGreaterThan(100);
  });

  test('refuses what is missing, broken, too deep, too large, and keys that change prototypes', async () => {
    const deep = `${'{"a":'.repeat(40)}1${'}'.repeat(40)}`;
    for (const route of routes.filter(({ rest }) => rest.method !== 'GET')) {
      const token = tokenFor(route);
      const schema = actionContract(route.action)?.params ?? z.object({});
      if (!schema.safeParse(inPath(route)).success) {
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

  test('refuses wrong kinds, missing fields, hostile keys, too much and what is not there, and stays connected', async () => {
    for (const [event, schema] of Object.entries(clientEvents)) {
      const payloads = [
        ...wrongValues,
        {},
        ...fieldsOf(schema).flatMap((field) =>
          wrongValues.map((value) => ({ tripId: 'trp_nobody', [field]: value })),
        ),
        { tripId: 'x'.repeat(1_000_000) },
        { tripId: trip.tripId, updates: [{}], lat: 1, lng: 1, accuracy: 1, timestamp: 1 },
      ];
      for (const payload of payloads) {
        const answer = await emit(event, payload);
        const what = `${event} ${JSON.stringify(payload)?.slice(0, 60)}`;
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

test('after all of it the process lives and is ready', async () => {
  const ready = await request(system, 'GET', '/readyz');
  expect(ready.body).toMatchObject({ ready: true, checks: { redis: 'ok', db: 'ok' } });
  const seen = await request(system, 'GET', `/api/v1/trips/${trip.tripId}`, { token: trip.rider.token });
  expect(seen.body).toMatchObject({ id: trip.tripId, status: 'active' });
});
