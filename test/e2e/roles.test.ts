import { Agent, get } from 'node:http';
import { setTimeout as pause } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import * as fc from 'fast-check';
import type { Redis } from 'ioredis';
import type { ServiceBroker } from 'moleculer';
import type { Reported, Update } from '../../contracts/location.ts';
import { type ProviderSimulator, startProviderSimulator } from '../../lib/standins/providers.ts';
import { makeBroker } from '../support/broker.ts';
import {
  activeTrip,
  aracaju,
  type ClientSocket,
  connectSocket,
  type Doors,
  newPhone,
  request,
  sentCode,
  signIn,
} from '../support/clients.ts';
import { eventually } from '../support/eventually.ts';
import { startNats, type TestNats } from '../support/nats.ts';
import { freePort, type RoleProcess, type RoleProcesses, startRoles } from '../support/process.ts';
import { startTestRedis, type TestRedis } from '../support/redis.ts';

/** One system for the whole file, as production has it; some share a process only to spare one. */
const fleet = {
  data: 'accounts,trips,notify,admin,sos,safety',
  location1: 'location',
  location2: 'location',
  api1: 'api',
  api2: 'api',
  gateway: 'gateway',
};

const twilio = { accountSid: 'AC00000000000000000000000000000000', authToken: 'development-only' };

let server: TestRedis;
let redis: Redis;
let simulator: ProviderSimulator;
let natsPort: number;
let nats: TestNats | undefined;
let roles: RoleProcesses<keyof typeof fleet>;
let env: Parameters<typeof startRoles>[1];

/** Two ways in: one API node each, the same gateway. */
let doors: [Doors, Doors];

beforeAll(async () => {
  server = await startTestRedis();
  redis = server.connect();
  simulator = await startProviderSimulator({ twilio });
  natsPort = await freePort();
  env = {
    NATS_URL: `nats://127.0.0.1:${natsPort}`,
    REDIS_URL: server.url,
    PROVIDERS_SANDBOX_URL: simulator.url,
    NAMESPACE: `roles-${process.pid}`,
    RATE_LIMIT_PER_USER: '100000',
    DRAIN_GRACE_MS: '400',
    LOCATION_TICK_MS: '200',
    // Other tests on the same cores must not make a door refuse what these ask
    SHED_WHEN_LATE_MS: '10000',
  };
  // Nobody has started NATS yet
  roles = await startRoles(fleet, env);
  const { api1, api2, gateway } = roles.of;
  const { socketUrl } = gateway;
  doors = [
    { apiUrl: api1.apiUrl, socketUrl },
    { apiUrl: api2.apiUrl, socketUrl },
  ];
}, 60_000);
afterAll(async () => {
  await roles?.stop();
  await nats?.stop();
  await simulator?.stop();
  await server?.stop();
}, 30_000);

const readiness = async ({ metricsUrl }: RoleProcess) => {
  const answer = await fetch(`${metricsUrl}/readyz`);
  return { status: answer.status, ...((await answer.json()) as { checks: Record<string, string> }) };
};
const codeOf = async (door: Doors, method: string, path: string, options: Parameters<typeof request>[3]) => {
  const { status, body } = await request(door, method, `/api/v1${path}`, options);
  return [status, body?.error?.code];
};
const login = { body: { phone: '+919812345678', code: '123456', deviceId: 'test' } };

/** A whole ride reaches every role. */
async function expectRideToWork(door: Doors): Promise<void> {
  const { tripId, rider, driver } = await activeTrip(door);
  const watching = await connectSocket(door, rider.token);
  const driving = await connectSocket(door, driver.token);
  try {
    const seen: Update[] = [];
    watching.on('location', (update) => seen.push(update));
    expect(await watching.emitWithAck('trip:join', { tripId })).toMatchObject({ ok: true });
    const position = { tripId, ...aracaju, accuracy: 8, speed: 9, heading: 120, timestamp: Date.now() };
    expect(await driving.emitWithAck('location:update', position)).toEqual({ ok: true });
    await eventually(() => expect(seen).toHaveLength(1));
  } finally {
    watching.close();
    driving.close();
  }
}

describe('roles as processes of their own', () => {
  test('without NATS the doors are open: alive, ready and honest; with it the whole thing works', async () => {
    const { api1, gateway } = roles.of;
    for (const role of [api1, gateway]) {
      expect(await readiness(role)).toMatchObject({ status: 200, checks: { broker: 'unreachable' } });
      expect((await fetch(`${role.metricsUrl}/healthz`)).status).toBe(200);
    }
    expect(await codeOf(doors[0], 'POST', '/auth/login', login)).toEqual([503, 'UNAVAILABLE']);

    nats = await startNats(natsPort);
    // Each door finds the others by itself
    for (const door of doors)
      await eventually(
        async () => expect(await codeOf(door, 'POST', '/auth/login', login)).toEqual([401, 'OTP_INVALID']),
        10_000,
      );
    await eventually(() => expectRideToWork(doors[0]), 10_000);
    expect((await readiness(api1)).checks.broker).toBe('ok');
    expect(await codeOf(doors[0], 'GET', '/no/such/route', {})).toEqual([404, 'NOT_FOUND']);
  }, 30_000);

  test('R8.1 a sign-in makes a session in Redis with 24 h TTL, good on every node until then', async () => {
    const { id, token } = await signIn(doors[0]);
    const key = `sessions:{${id}}`;
    const day = 24 * 3600;
    expect(await redis.ttl(key)).toBeGreaterThan(day - 60);
    expect(await redis.ttl(key)).toBeLessThanOrEqual(day);
    const field = `s:${token.split('.')[2]}`;
    expect(Number(await redis.hget(key, field)) - Date.now()).toBeGreaterThan((day - 60) * 1000);
    for (const door of doors) expect(await codeOf(door, 'GET', '/me', { token })).toEqual([200, undefined]);

    await redis.hset(key, field, Date.now() - 1);
    for (const door of doors)
      expect(await codeOf(door, 'GET', '/me', { token })).toEqual([401, 'UNAUTHENTICATED']);
    await expect(connectSocket(doors[0], token)).rejects.toMatchObject({ data: { code: 'UNAUTHENTICATED' } });
  }, 20_000);

  const step = fc.record({
    act: fc.constantFrom('login', 'login', 'logout', 'logout-all', 'become-driver'),
    node: fc.constantFrom(0, 1),
    pick: fc.nat(20),
  });

  test('P10 a session is the same on every node, whatever was done to it on which', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 2, maxLength: 7 }), async (steps) => {
        const phone = newPhone();
        let role = 'rider';
        const alive = new Set<string>();
        const sockets = new Map<string, ClientSocket>();
        let codes = 0;
        const signInOn = async (door: Doors) => {
          // One code in 30 s would make this a slow test
          await redis.del(...(await redis.keys('otp:*:resend')), 'none');
          await request(door, 'POST', '/api/v1/auth/otp', { body: { phone } });
          const code = await sentCode(door, phone, codes++);
          const { body } = await request(door, 'POST', '/api/v1/auth/login', {
            body: { phone, code, deviceId: 'test' },
          });
          alive.add(body.token);
          sockets.set(body.token, await connectSocket(door, body.token));
        };
        try {
          await signInOn(doors[0]);
          for (const { act, node, pick } of steps) {
            const door = doors[node];
            const token = [...alive][pick % alive.size];
            if (act === 'login' || token === undefined) await signInOn(door);
            else if (act === 'become-driver') {
              const vehicle = { plate: 'KA01AB1234', model: 'Dzire' };
              await request(door, 'POST', '/api/v1/me/driver', { token, body: { vehicle } });
              role = 'driver';
            } else {
              await request(door, 'POST', `/api/v1/auth/${act}`, { token });
              if (act === 'logout') alive.delete(token);
              else alive.clear();
            }
            for (const [issued, socket] of sockets) {
              const asked = await Promise.all(
                doors.map(async (each) => {
                  const { status, body } = await request(each, 'GET', '/api/v1/me', { token: issued });
                  return status === 200 ? body.role : status;
                }),
              );
              const expected = alive.has(issued) ? role : 401;
              expect(asked).toEqual([expected, expected]);
              await eventually(() => expect(socket.connected).toBe(alive.has(issued)), 1000);
            }
          }
        } finally {
          for (const socket of sockets.values()) socket.close();
        }
      }),
      { numRuns: 6, endOnFailure: true },
    );
  }, 60_000);

  test('P8 R8.3 R8.5 contacts come from the cache, from the DB on a miss, and a change is seen at once', async () => {
    const { id, token } = await signIn(doors[0]);
    const broker = await joinedBroker('asking');
    try {
      const asked = async () => {
        const { contacts } = (await broker.call('accounts.emergencyContacts', { userId: id })) as {
          contacts: { phone: string }[];
        };
        return contacts.map(({ phone }) => phone);
      };
      for (const [n, phone] of ['+919876500001', '+919876500002', '+919876500003'].entries()) {
        if (n === 1) await redis.del(`contacts:{${id}}`);
        const body = { contacts: [{ name: 'Mother', phone }] };
        await request(doors[(n % 2) as 0 | 1], 'PUT', '/api/v1/me/emergency-contacts', { token, body });
        expect(await asked()).toEqual([phone]);
        await redis.del(`contacts:{${id}}`);
        expect(await asked()).toEqual([phone]);
        expect(await redis.hexists(`contacts:{${id}}`, 'sealed')).toBe(1);
      }
    } finally {
      await broker.stop();
    }
  }, 20_000);

  test('NATS gone for seconds: doors stay open, sockets stay, and all works again by itself', async () => {
    const { id, token } = await signIn(doors[0]);
    const socket = await connectSocket(doors[0], token);
    try {
      await nats?.stop();
      await eventually(async () =>
        expect(await readiness(roles.of.api1)).toMatchObject({
          status: 200,
          checks: { broker: 'unreachable' },
        }),
      );
      const since = performance.now();
      expect(await codeOf(doors[0], 'GET', '/me', { token })).toEqual([503, 'UNAVAILABLE']);
      expect(performance.now() - since).toBeLessThan(2000);
      expect((await redis.hkeys(`sessions:{${id}}`)).length).toBeGreaterThan(0);
      // Routes are there also when the others count as dead
      await eventually(async () => {
        expect(roles.of.api1.output()).toMatch(/disconnected unexpectedly/);
      }, 12_000);
      expect(await codeOf(doors[0], 'GET', '/me', { token })).toEqual([503, 'UNAVAILABLE']);

      nats = await startNats(natsPort);
      for (const door of doors)
        await eventually(
          async () => expect(await codeOf(door, 'GET', '/me', { token })).toEqual([200, undefined]),
          8000,
        );
      await eventually(() => expectRideToWork(doors[1]), 8000);
      expect(socket.connected).toBe(true);
    } finally {
      socket.close();
    }
  }, 40_000);
});

/** A node of the test's own in the system. */
async function joinedBroker(name: string): Promise<ServiceBroker> {
  const broker = makeBroker(`${name}-${process.pid}`, {
    NATS_URL: env.NATS_URL,
    NAMESPACE: env['NAMESPACE'],
  });
  await broker.start();
  await broker.waitForServices(['accounts', 'location'], 10_000);
  return broker;
}

/** Clients that send one request after the other over connections that they keep; to nodes that say they are ready. */
function steadyClients(nodes: RoleProcess[], token: string, clients: number) {
  const agent = new Agent({ keepAlive: true, maxSockets: clients });
  const failures: unknown[] = [];
  const served = new Map<RoleProcess, number>();
  const ready = new Set(nodes);
  const over = new AbortController();
  const ask = (node: RoleProcess) =>
    new Promise<string>((resolve, reject) => {
      const headers = { authorization: `Bearer ${token}` };
      get(`${node.apiUrl}/api/v1/me`, { agent, headers }, (answer) => {
        let body = '';
        answer.on('data', (chunk: Buffer) => (body += chunk.toString()));
        answer
          .once('end', () => resolve(answer.statusCode === 200 ? 'ok' : `${answer.statusCode} ${body}`))
          .once('error', reject);
      }).once('error', reject);
    });
  const client = async (n: number) => {
    for (let turn = n; !over.signal.aborted; turn++) {
      const node = [...ready][turn % ready.size];
      if (!node) throw new Error('No node is ready');
      const outcome = await ask(node).catch((error: unknown) => error);
      if (outcome === 'ok') served.set(node, (served.get(node) ?? 0) + 1);
      else failures.push(outcome);
      await pause(5);
    }
  };
  /** What a balancer does. */
  const probe = async (node: RoleProcess) => {
    while (!over.signal.aborted) {
      const ok = await fetch(`${node.apiUrl}/readyz`).then(
        (answer) => answer.status === 200,
        () => false,
      );
      if (ok) ready.add(node);
      else ready.delete(node);
      await pause(50);
    }
  };
  const all = [...Array.from({ length: clients }, (_, n) => client(n)), ...nodes.map(probe)];
  return {
    failures,
    served: (node: RoleProcess) => served.get(node) ?? 0,
    async end(): Promise<void> {
      over.abort();
      await Promise.all(all);
      agent.destroy();
    },
  };
}

describe('a node that stops under load', () => {
  test('api: SIGTERM fails no request of clients that keep their connections', async () => {
    const { api1, api2 } = roles.of;
    const { token } = await signIn(doors[0]);
    const load = steadyClients([api1, api2], token, 8);
    try {
      await eventually(() => expect(load.served(api2)).toBeGreaterThan(100));
      expect(await api2.stop()).toBe(0);
      const before = load.served(api1);
      await eventually(() => expect(load.served(api1)).toBeGreaterThan(before + 50));
    } finally {
      await load.end();
    }
    expect(load.failures).toEqual([]);
  }, 30_000);

  test('location: SIGTERM fails no call, and every answered position is in Redis', async () => {
    const broker = await joinedBroker('driving');
    const trips = Array.from({ length: 20 }, (_, n) => ({ tripId: `trp_${n}`, driverId: `usr_${n}` }));
    const newest = new Map<string, number>();
    const failures: string[] = [];
    const over = new AbortController();
    const drive = async ({ tripId, driverId }: (typeof trips)[number]) => {
      for (let timestamp = Date.now(); !over.signal.aborted; timestamp++) {
        const position = { ...aracaju, accuracy: 5, speed: 5, heading: 0, timestamp };
        const update: Reported = { tripId, userId: driverId, ...position };
        await broker.call('location.report', { updates: [update] }).then(
          () => newest.set(tripId, timestamp),
          (error: unknown) => failures.push(String(error)),
        );
        await pause(5);
      }
    };
    try {
      for (const trip of trips) await broker.call('location.open', trip);
      const driving = trips.map(drive);
      await eventually(() => expect(newest.size).toBe(trips.length));
      expect(await roles.of.location2.stop()).toBe(0);
      const at = newest.get('trp_0') ?? 0;
      await eventually(() => expect(newest.get('trp_0')).toBeGreaterThan(at + 20));
      over.abort();
      await Promise.all(driving);
      expect(failures).toEqual([]);
      for (const { tripId } of trips) {
        await eventually(async () => {
          const { last } = (await broker.call('location.state', { tripId }, { meta: { user: someone } })) as {
            last: Update;
          };
          expect(last.timestamp).toBe(newest.get(tripId));
        });
      }
    } finally {
      over.abort();
      await broker.stop();
    }
  }, 30_000);
});

const someone = { id: 'usr_0', role: 'driver' as const, sessionId: 'none' };

describe('SIGTERM while NATS is away', () => {
  test('ends every role in less than 8 s', async () => {
    await nats?.stop();
    nats = undefined;
    const { data, location1, api1, gateway } = roles.of;
    await eventually(async () => expect((await readiness(data)).checks.broker).toBe('unreachable'));
    const since = performance.now();
    expect(await Promise.all([data, location1, api1, gateway].map((role) => role.stop()))).toEqual([
      0, 0, 0, 0,
    ]);
    expect(performance.now() - since).toBeLessThan(8000);
  }, 20_000);
});
