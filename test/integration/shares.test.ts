import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import type { Redis } from 'ioredis';
import type { Service } from 'moleculer';
import type { Server } from 'socket.io';
import type { Socket } from 'socket.io-client';
import type { Update } from '../../contracts/location.ts';
import type { Share, Shares } from '../../mixins/shares.ts';
import { alertRoom, type ShareDoor } from '../../services/gateway/share-namespace.ts';
import {
  type Answer,
  activeTrip,
  aracaju,
  bookTrip,
  type ClientSocket,
  connectShare,
  connectSocket,
  request,
  type ShareSocket,
  signIn,
  signInDriver,
  type User,
} from '../support/clients.ts';
import { eventually } from '../support/eventually.ts';
import { startTestRedis, type TestRedis } from '../support/redis.ts';
import { redisContent } from '../support/redis-content.ts';
import { type System, startSystem } from '../support/system.ts';

type Ride = Awaited<ReturnType<typeof activeTrip>>;
type Gateway = Service & { io: Server; shareDoor: ShareDoor; shares: Shares };

let sosRedis: TestRedis;
let redis: Redis;
let system: System;
let gateway: Gateway;
let ride: Ride;
let driving: ClientSocket;
const open: { close(): unknown }[] = [];

beforeAll(async () => {
  sosRedis = await startTestRedis();
  redis = sosRedis.connect();
  system = await startSystem({
    env: { SOS_REDIS_URL: sosRedis.url, RATE_LIMIT_PER_USER: '100000', PUBLIC_URL: 'http://127.0.0.1:1/' },
  });
  gateway = system.broker.getLocalService('gateway') as Gateway;
  ride = await activeTrip(system);
  driving = await connectSocket(system, ride.driver.token);
}, 30_000);
afterEach(() => {
  for (const socket of open.splice(0)) socket.close();
});
afterAll(async () => {
  driving.close();
  await system.stop();
  await sosRedis.stop();
});

const post = (user: User, path: string, body?: unknown) =>
  request(system, 'POST', `/api/v1${path}`, { token: user.token, body });
const share = (user: User, tripId: string, ttlMinutes: unknown = 60) =>
  post(user, `/trips/${tripId}/shares`, { ttlMinutes });
const revoke = ({ token }: User, tripId: string, link: string) =>
  request(system, 'DELETE', `/api/v1/trips/${tripId}/shares/${link}`, { token });
const list = async ({ token }: User, tripId: string) =>
  request(system, 'GET', `/api/v1/trips/${tripId}/shares`, { token });
const tokenFor = async ({ rider, tripId }: Ride): Promise<string> => (await share(rider, tripId)).body.token;
const codeOf = ({ status, body }: Answer) => [status, body?.error?.code];

/** A client with everything that it is sent. */
async function watch(token: unknown): Promise<{ socket: ShareSocket; seen: [string, unknown][] }> {
  const seen: [string, unknown][] = [];
  const socket = await connectShare(system, token, (made) =>
    made.onAny((event: string, payload: unknown) => seen.push([event, payload])),
  );
  open.push(socket);
  return { socket, seen };
}
const follow = async (token: unknown) => (await watch(token)).socket;
const isRefused = (token: unknown) =>
  expect(connectShare(system, token)).rejects.toMatchObject({ data: { code: 'SHARE_INVALID' } });
const closed = (socket: ShareSocket) => new Promise((resolve) => socket.once('disconnect', resolve));
const ask = (socket: ShareSocket | ClientSocket, event: string, payload: object) =>
  (socket as unknown as Socket).timeout(5000).emitWithAck(event, payload);

let clock = Date.now() - 50_000;
/** The driver reports; answers what was sent. */
async function drive(tripId = ride.tripId, socket = driving) {
  const update = { tripId, ...aracaju, accuracy: 8, speed: 9, heading: 120, timestamp: (clock += 100) };
  expect(await ask(socket, 'location:update', update)).toEqual({ ok: true });
  return update;
}

describe('making links', () => {
  test('R2.5 the rider gets one that says where and until when', async () => {
    const before = Date.now();
    const { status, body } = await share(ride.rider, ride.tripId, 90);
    expect([status, body]).toEqual([
      201,
      {
        id: expect.any(String),
        token: expect.stringMatching(/^shr_[0-9a-z]{26}$/),
        url: `http://127.0.0.1:1/share/${body.token}`,
        expiresAt: expect.stringMatching(/Z$/),
      },
    ]);
    const ttl = Date.parse(body.expiresAt) - before;
    expect(ttl).toBeGreaterThan(89.9 * 60_000);
    expect(ttl).toBeLessThan(90.5 * 60_000);
  });

  test('R2.5 nobody else does: not the driver, not an admin, not a stranger', async () => {
    const admin = await signIn(system, '+919800000000');
    for (const user of [ride.driver, admin, await signIn(system)]) {
      expect(codeOf(await share(user, ride.tripId))).toEqual([403, 'TRIP_FORBIDDEN']);
      expect(codeOf(await list(user, ride.tripId))).toEqual([403, 'TRIP_FORBIDDEN']);
      expect(codeOf(await revoke(user, ride.tripId, 'x'))).toEqual([403, 'TRIP_FORBIDDEN']);
    }
  });

  test('a link lasts from a minute to a day', async () => {
    for (const ttl of [0, 1441, -5, 1.5, '60', null, undefined])
      expect([
        ttl,
        codeOf(await post(ride.rider, `/trips/${ride.tripId}/shares`, { ttlMinutes: ttl })),
      ]).toEqual([ttl, [400, 'VALIDATION']]);
    const { rider, tripId } = await activeTrip(system);
    for (const ttl of [1, 1440]) expect((await share(rider, tripId, ttl)).status).toBe(201);
  });

  test('a trip that is over, and a booking that is no trip yet, are not shared', async () => {
    const { tripId, rider, driver } = await activeTrip(system);
    await post(driver, `/trips/${tripId}/end`);
    expect(codeOf(await share(rider, tripId))).toEqual([409, 'TRIP_WRONG_STATE']);
    const booked = (await bookTrip(system, rider)).replace('bkg_', 'trp_');
    expect(codeOf(await share(rider, booked))).toEqual([404, 'TRIP_NOT_FOUND']);
    await post(rider, `/bookings/${booked.replace('trp_', 'bkg_')}/accept`);
    const other = await signInDriver(system);
    const scheduled = (await post(other, `/bookings/${booked.replace('trp_', 'bkg_')}/accept`)).body.id;
    expect((await share(rider, scheduled)).status).toBe(201);
  });

  test('a trip has ten at once, also of twenty asked for together; revoking one makes room', async () => {
    const { tripId, rider } = await activeTrip(system);
    const answers = await Promise.all(Array.from({ length: 20 }, () => share(rider, tripId)));
    const made = answers.filter(({ status }) => status === 201);
    expect(made).toHaveLength(10);
    expect(codeOf(answers.find(({ status }) => status !== 201)!)).toEqual([429, 'TOO_MANY_SHARES']);
    expect((await revoke(rider, tripId, made[0]!.body.token)).status).toBe(204);
    expect((await share(rider, tripId)).status).toBe(201);
  });

  test('the list names each without its token; a link is revoked by either', async () => {
    const { tripId, rider } = await activeTrip(system);
    const [one, two] = [(await share(rider, tripId)).body, (await share(rider, tripId, 5)).body];
    const { body } = await list(rider, tripId);
    expect(body.shares).toHaveLength(2);
    expect(body.shares).toEqual(
      expect.arrayContaining(
        [one, two].map(({ id, expiresAt }) => ({ id, expiresAt, createdAt: expect.stringMatching(/Z$/) })),
      ),
    );
    expect(JSON.stringify(body)).not.toMatch(/shr_/);
    // What names a link does not open it
    await isRefused(one.id);
    // Not somebody else's
    expect(codeOf(await revoke(ride.rider, ride.tripId, one.token))).toEqual([404, 'SHARE_INVALID']);
    expect((await revoke(rider, tripId, one.id)).status).toBe(204);
    expect((await revoke(rider, tripId, two.token)).status).toBe(204);
    expect(codeOf(await revoke(rider, tripId, two.token))).toEqual([404, 'SHARE_INVALID']);
    expect((await list(rider, tripId)).body).toEqual({ shares: [] });
  });

  test('only a hash is kept, and all of it ends by itself', async () => {
    const token = await tokenFor(ride);
    const content = (await redisContent(sosRedis.url)).filter((line) => line.startsWith('share'));
    expect(content.length).toBeGreaterThan(1);
    expect(content.join('\n')).not.toContain(token.slice(4));
    for (const key of await redis.keys('share*')) {
      const ttl = await redis.pttl(key);
      expect([key, ttl > 0 && ttl <= 86_400_000]).toEqual([key, true]);
    }
  });
});

describe('following a link', () => {
  test('R2.5 first the trip as it is and where it was last, then every update and change, and nothing else', async () => {
    const trip = await activeTrip(system);
    const { tripId, driver } = trip;
    const their = await connectSocket(system, driver.token);
    open.push(their);
    const token = await tokenFor(trip);
    const last = await drive(tripId, their);
    await eventually(async () =>
      expect(await system.broker.call('location.missed', { tripId })).toMatchObject({ last }),
    );
    const { seen } = await watch(token);
    const located = (update: object) => [
      'location',
      { ...update, userId: driver.id, at: expect.any(Number) },
    ];
    await eventually(() =>
      expect(seen).toEqual([['trip', { tripId, status: 'active', at: expect.any(Number) }], located(last)]),
    );
    const next = await drive(tripId, their);
    await eventually(() => expect(seen.at(-1)).toEqual(located(next)));
    // Another trip's
    await drive();
    await post(driver, `/trips/${tripId}/end`);
    await eventually(() =>
      expect(seen.slice(3)).toEqual([['trip', { tripId, status: 'ended', at: expect.any(Number) }]]),
    );
  });

  test('R2.5 of whoever is on the trip nothing is told but an id', async () => {
    const { seen } = await watch(await tokenFor(ride));
    await drive();
    await eventually(() => expect(seen.length).toBeGreaterThan(1));
    const fields = new Set(seen.flatMap(([, payload]) => Object.keys(payload as Update)));
    expect([...fields].toSorted()).toEqual(
      [
        'accuracy',
        'at',
        'heading',
        'lat',
        'lng',
        'speed',
        'status',
        'timestamp',
        'tripId',
        'userId',
      ].toSorted(),
    );
    expect(JSON.stringify(seen)).not.toContain(ride.driver.phone);
  });

  test('R2.5 what is no link is refused with a code', async () => {
    const token = await tokenFor(ride);
    for (const wrong of [
      undefined,
      null,
      '',
      7,
      {},
      ['x'],
      `${token}0`,
      token.slice(0, -1),
      token.toUpperCase(),
      ride.rider.token,
      '*',
    ])
      await isRefused(wrong);
    // A session is no link, and a link no session
    await expect(connectSocket(system, token)).rejects.toMatchObject({ data: { code: 'UNAUTHENTICATED' } });
    expect((await request(system, 'GET', '/api/v1/me', { token })).status).toBe(401);
  });

  test('takes nothing that it is sent', async () => {
    const socket = await follow(await tokenFor(ride));
    for (const event of ['trip:join', 'location:update', 'subscribe', 'anything'])
      expect(await ask(socket, event, { tripId: ride.tripId })).toEqual({
        ok: false,
        error: { code: 'UNKNOWN_EVENT', message: expect.any(String) },
      });
    expect(socket.connected).toBe(true);
    const gone = closed(socket);
    for (let n = 0; n < 30; n++) (socket as unknown as Socket).emit('anything');
    expect(await gone).toBe('io server disconnect');
  });

  test('R2.5 revoked, it is cut at once, and others are not', async () => {
    const [one, two] = [await tokenFor(ride), await tokenFor(ride)];
    const [socket, { seen }] = [await follow(one), await watch(two)];
    const gone = closed(socket);
    expect((await revoke(ride.rider, ride.tripId, one)).status).toBe(204);
    expect(await gone).toBe('io server disconnect');
    await isRefused(one);
    const update = await drive();
    await eventually(() => expect(seen.at(-1)?.[1]).toMatchObject({ timestamp: update.timestamp }));
  });

  test('R2.5 revoked without a word reaching this node, or expired, it is cut by the check', async () => {
    const [revoked, expired] = [await tokenFor(ride), await tokenFor(ride)];
    const [one, two] = [await follow(revoked), await follow(expired)];
    const gone = closed(one);
    const { hash } = (await gateway.shares.resolve(revoked)) as Share;
    expect(await gateway.shares.revoke(ride.tripId, hash)).toBe(hash);
    await gateway.shareDoor.check(Date.now() + 31_000);
    expect(await gone).toBe('io server disconnect');
    const ended = closed(two);
    await gateway.shareDoor.check(Date.now() + 61 * 60_000);
    expect(await ended).toBe('io server disconnect');
  });

  test('R2.5 a link ends some minutes after its trip, even when nobody could write that down', async () => {
    const trip = await activeTrip(system);
    const [token, other] = [await tokenFor(trip), await tokenFor(trip)];
    const { socket, seen } = await watch(token);
    await post(trip.driver, `/trips/${trip.tripId}/cancel`);
    await eventually(() =>
      expect(seen.at(-1)).toEqual(['trip', expect.objectContaining({ status: 'cancelled' })]),
    );
    const left = (await gateway.shares.list(trip.tripId)).map(({ expiresAt }) => expiresAt - Date.now());
    expect(left).toHaveLength(2);
    expect(Math.max(...left)).toBeLessThanOrEqual(10 * 60_000);
    // Whoever comes now still sees that it is over
    const { seen: late } = await watch(other);
    await eventually(() =>
      expect(late[0]).toEqual(['trip', expect.objectContaining({ status: 'cancelled' })]),
    );
    // As if the links had kept their whole time
    const { hash } = (await gateway.shares.resolve(token)) as Share;
    await redis.hset(`share:${hash}`, 'expiresAt', Date.now() + 3_600_000);
    const gone = closed(socket);
    await gateway.shareDoor.check(Date.now() + 10.1 * 60_000);
    expect(await gone).toBe('io server disconnect');
  });

  test('a rider who leaves the room does not take the updates from who follows a link, nor the other way round', async () => {
    const rider = await connectSocket(system, ride.rider.token);
    open.push(rider);
    const { socket, seen } = await watch(await tokenFor(ride));
    const theirs: Update[] = [];
    rider.on('location', (update) => theirs.push(update));
    await ask(rider, 'trip:join', { tripId: ride.tripId });
    await ask(rider, 'trip:leave', { tripId: ride.tripId });
    const one = await drive();
    await eventually(() => expect(seen.at(-1)?.[1]).toMatchObject({ timestamp: one.timestamp }));
    await ask(rider, 'trip:join', { tripId: ride.tripId });
    socket.close();
    await eventually(() => expect(gateway.io.of('/share').sockets.size).toBe(0));
    const two = await drive();
    await eventually(() => expect(theirs.at(-1)).toMatchObject({ timestamp: two.timestamp }));
  });
});

describe('an alert’s link', () => {
  test('outlives the trip, which the attacker may end, and is not among the trip’s links', async () => {
    const { tripId, rider, driver } = await activeTrip(system);
    const ttlMs = 3_600_000;
    const link = await gateway.shares.create({ userId: rider.id, tripId, alertId: 'sos_2', ttlMs });
    expect((await list(rider, tripId)).body).toEqual({ shares: [] });
    const { socket, seen } = await watch(link.token);
    await post(driver, `/trips/${tripId}/end`);
    await eventually(() =>
      expect(seen.at(-1)).toEqual(['trip', expect.objectContaining({ status: 'ended' })]),
    );
    expect((await gateway.shares.resolve(link.token))?.expiresAt).toBe(link.expiresAt);
    await gateway.shareDoor.check(Date.now() + 20 * 60_000);
    expect(socket.connected).toBe(true);
    expect((await follow(link.token)).connected).toBe(true);
  });

  test('needs no trip; all of an alert’s links end together', async () => {
    const { token } = await gateway.shares.create({ userId: ride.rider.id, ttlMs: 60_000, alertId: 'sos_1' });
    expect(await gateway.shares.resolve(token)).toMatchObject({
      tripId: null,
      alertId: 'sos_1',
      userId: ride.rider.id,
    });
    const { seen } = await watch(token);
    const update = { tripId: '', userId: ride.rider.id, ...aracaju, at: 1 };
    await eventually(() => expect(gateway.io.of('/share').adapter.rooms.has(alertRoom('sos_1'))).toBe(true));
    gateway.io.of('/share').to(alertRoom('sos_1')).emit('location', update);
    await eventually(() => expect(seen).toEqual([['location', update]]));
    expect(await gateway.shares.revokeAll('sos_1')).toHaveLength(1);
    expect(await gateway.shares.list('sos_1')).toEqual([]);
    await isRefused(token);
  });
});

test('whoever guesses is slowed down, by address', async () => {
  const strict = await startSystem({
    only: ['gateway', 'trips', 'location'],
    env: { SOS_REDIS_URL: sosRedis.url, REDIS_URL: sosRedis.url, RATE_LIMIT_PER_IP: '3' },
  });
  try {
    const code = () =>
      connectShare(strict, 'shr_00000000000000000000000000').catch(
        (error: { data: { code: string } }) => error.data,
      );
    const answers = [await code(), await code(), await code(), await code()];
    expect(answers.map((answer) => (answer as { code: string }).code)).toEqual([
      'SHARE_INVALID',
      'SHARE_INVALID',
      'SHARE_INVALID',
      'RATE_LIMITED',
    ]);
    expect(answers[3]).toMatchObject({ retryAfterS: expect.any(Number) });
  } finally {
    await strict.stop();
  }
});

test('without trips and location a link still opens, and is told how things are when they are back', async () => {
  const token = await tokenFor(ride);
  for (const name of ['trips', 'location']) {
    const service = system.broker.getLocalService(name);
    if (service) await system.broker.destroyService(service);
  }
  const { socket, seen } = await watch(token);
  expect(socket.connected).toBe(true);
  const { default: trips } = await import('../../services/trips/trips.service.ts');
  const { default: location } = await import('../../services/location/location.service.ts');
  for (const schema of [trips, location]) system.broker.createService(schema);
  await system.broker.waitForServices(['trips', 'location']);
  await gateway.shareDoor.check(Date.now() + 6000);
  await eventually(() => expect(seen.map(([event]) => event)).toContain('trip'));
});
