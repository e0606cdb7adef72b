/** "Are you OK?" from the driver's phone to the admins' screen, with real sockets; and that who drives sees none of it. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import type { Redis } from 'ioredis';
import type { Service } from 'moleculer';
import type { Socket } from 'socket.io-client';
import type { DeliveredEvent } from '../../contracts/feed.ts';
import type { SafetyCheck } from '../../contracts/safety.ts';
import {
  activeTrip,
  aracaju,
  type ClientSocket,
  connectAdmin,
  connectShare,
  connectSocket,
  request,
  signIn,
  signInDriver,
} from '../support/clients.ts';
import { eventually } from '../support/eventually.ts';
import { startTestRedis, type TestRedis } from '../support/redis.ts';
import { type System, startSystem } from '../support/system.ts';

const answerWithinMs = 3000;

let mainRedis: TestRedis;
let sosRedis: TestRedis;
let system: System;
let redis: Redis;
let emit: System['broker']['emit'];
/** What admins have seen. */
const feed: DeliveredEvent[] = [];
const sockets: { close(): unknown }[] = [];
const forAll: { close(): unknown }[] = [];

beforeAll(async () => {
  [mainRedis, sosRedis] = await Promise.all([startTestRedis(), startTestRedis()]);
  system = await startSystem({
    env: {
      REDIS_URL: mainRedis.url,
      SOS_REDIS_URL: sosRedis.url,
      RATE_LIMIT_PER_USER: '100000',
      SAFETY_READ_EVERY_MS: '50',
      SAFETY_ANSWER_WITHIN_MS: String(answerWithinMs),
    },
  });
  redis = sosRedis.connect();
  emit = system.broker.emit.bind(system.broker);
  const admin = await connectAdmin(system, (await signIn(system, '+919800000000')).token);
  admin.on('events', (events) => feed.push(...events));
  expect(await admin.emitWithAck('subscribe', {})).toMatchObject({ ok: true });
  forAll.push(admin);
}, 30_000);
afterEach(() => {
  system.broker.emit = emit;
  for (const socket of sockets.splice(0)) socket.close();
});
afterAll(async () => {
  for (const socket of forAll) socket.close();
  await system.stop();
  await Promise.all([mainRedis.stop(), sosRedis.stop()]);
});

type Ride = Awaited<ReturnType<typeof activeTrip>>;

async function connect(token: string): Promise<{ socket: ClientSocket; heard: [string, unknown][] }> {
  const socket = await connectSocket(system, token);
  const heard: [string, unknown][] = [];
  socket.onAny((event: string, payload: unknown) => heard.push([event, payload]));
  sockets.push(socket);
  return { socket, heard };
}
const checksIn = (heard: [string, unknown][]) =>
  heard.flatMap(([event, payload]) => (event === 'safety:check' ? [payload as SafetyCheck] : []));

/** By the phone's clock it has stood for longer than is usual. */
async function standStill({ tripId }: Ride, driving: ClientSocket): Promise<void> {
  for (const ms of [400_000, 1000]) {
    const fix = { tripId, ...aracaju, accuracy: 8, speed: 0, heading: null, timestamp: Date.now() - ms };
    expect(await driving.emitWithAck('location:update', fix)).toEqual({ ok: true });
    await eventually(async () =>
      expect(await system.broker.call('location.missed', { tripId })).toMatchObject({
        last: { timestamp: fix.timestamp },
      }),
    );
  }
}
/** A ride whose rider has been asked. */
async function askedRide() {
  const ride = await activeTrip(system);
  const [rider, driver] = await Promise.all([connect(ride.rider.token), connect(ride.driver.token)]);
  expect(await driver.socket.emitWithAck('trip:join', { tripId: ride.tripId })).toMatchObject({ ok: true });
  await standStill(ride, driver.socket);
  const check = await eventually(() => {
    const [first] = checksIn(rider.heard);
    if (!first) throw new Error('Nobody has asked the rider');
    return first;
  });
  return { ...ride, riding: rider, driving: driver, check };
}
const answer = (socket: ClientSocket, tripId: string, safe: unknown = true) =>
  (socket as unknown as Socket).timeout(5000).emitWithAck('safety:answer', { tripId, safe });
const refusal = (code: string) => ({ ok: false, error: expect.objectContaining({ code }) });
const eventsOf = (tripId: string) =>
  feed.filter(({ kind, data }) => kind.startsWith('safety.') && data['tripId'] === tripId);
const end = ({ tripId, driver }: Ride) =>
  request(system, 'POST', `/api/v1/trips/${tripId}/end`, { token: driver.token });
/** Nothing is open, and nothing will come of it. */
async function expectOver(tripId: string): Promise<void> {
  expect(await redis.exists(`safety:trip:${tripId}`)).toBe(1);
  expect(await redis.zscore('safety:due', tripId)).toBeNull();
}

describe('+ a trip that stands still', () => {
  test('its rider is asked, on each device; "safe" ends it: no alarm, and not asked again', async () => {
    const ride = await askedRide();
    const { check, tripId, riding } = ride;
    expect(check).toEqual({ tripId, kind: 'long-stop', answerBy: expect.any(Number) });
    expect(check.answerBy - Date.now()).toBeLessThanOrEqual(answerWithinMs);
    const other = await connect(ride.rider.token);
    // Another device, which came later, is told again
    await eventually(() => expect(checksIn(other.heard)).toContainEqual(check));
    expect(await answer(other.socket, tripId)).toEqual({ ok: true });
    await expectOver(tripId);
    expect(eventsOf(tripId)).toEqual([]);
    expect(new Set(checksIn(riding.heard).map(({ answerBy }) => answerBy)).size).toBe(1);
    // Twice is once
    expect(await answer(other.socket, tripId)).toEqual({ ok: true });
  });

  test('silence alarms admins, once, with the place; it is asked again and again until then', async () => {
    const ride = await askedRide();
    await eventually(() => expect(eventsOf(ride.tripId)).toHaveLength(1), answerWithinMs + 5000);
    expect(eventsOf(ride.tripId)[0]).toMatchObject({
      kind: 'safety.alarm',
      data: {
        tripId: ride.tripId,
        riderId: ride.rider.id,
        driverId: ride.driver.id,
        kind: 'long-stop',
        why: 'silence',
        location: { ...aracaju, accuracy: 8 },
      },
    });
    expect(checksIn(ride.riding.heard).length).toBeGreaterThanOrEqual(3);
    // A late word is passed on
    expect(await answer(ride.riding.socket, ride.tripId)).toEqual({ ok: true });
    await eventually(() =>
      expect(eventsOf(ride.tripId).slice(1)).toMatchObject([
        { kind: 'safety.answered', data: { kind: 'long-stop', safe: true } },
      ]),
    );
  }, 20_000);

  test('"not safe" alarms at once; also when the driver has ended the trip', async () => {
    const ride = await askedRide();
    expect((await end(ride)).status).toBe(200);
    expect(await answer(ride.riding.socket, ride.tripId, false)).toEqual({ ok: true });
    expect(Date.now()).toBeLessThan(ride.check.answerBy);
    await eventually(() =>
      expect(eventsOf(ride.tripId)).toMatchObject([{ kind: 'safety.alarm', data: { why: 'not-safe' } }]),
    );
    await expectOver(ride.tripId);
    expect(eventsOf(ride.tripId)).toHaveLength(1);
  });

  test('neither the end of the trip nor driving on ends a question: silence is an alarm', async () => {
    const ride = await askedRide();
    const on = { ...aracaju, lat: aracaju.lat + 0.005, accuracy: 8, speed: 9, heading: 1 };
    await ride.driving.socket.emitWithAck('location:update', {
      tripId: ride.tripId,
      ...on,
      timestamp: Date.now(),
    });
    expect((await end(ride)).status).toBe(200);
    await eventually(() => expect(eventsOf(ride.tripId)).toHaveLength(1), answerWithinMs + 5000);
  }, 20_000);

  test('with every event lost the rider hears of it by joining the trip', async () => {
    system.broker.emit = async () => undefined;
    const ride = await activeTrip(system);
    const driver = await connect(ride.driver.token);
    await standStill(ride, driver.socket);
    const check = await eventually(async () => {
      const { socket, heard } = await connect(ride.rider.token);
      expect(await socket.emitWithAck('trip:join', { tripId: ride.tripId })).toMatchObject({ ok: true });
      await eventually(() => expect(checksIn(heard)).toHaveLength(1), 100);
      return checksIn(heard)[0];
    });
    expect(check).toMatchObject({ tripId: ride.tripId, kind: 'long-stop' });
    const { socket } = await connect(ride.rider.token);
    expect(await answer(socket, ride.tripId)).toEqual({ ok: true });
  });
});

describe('+ the attacker in the car', () => {
  test('of a question and of its answer nobody learns but the rider: not the driver, not the trip, not who follows a link', async () => {
    const bystander = await connect((await signIn(system)).token);
    const ride = await askedRide();
    const link = await request(system, 'POST', `/api/v1/trips/${ride.tripId}/shares`, {
      token: ride.rider.token,
      body: { ttlMinutes: 5 },
    });
    const followed: string[] = [];
    const following = await connectShare(system, link.body.token, (socket) =>
      socket.onAny((event: string) => followed.push(event)),
    );
    sockets.push(following);
    await eventually(() => expect(checksIn(ride.riding.heard).length).toBeGreaterThanOrEqual(2));
    expect(await ride.driving.socket.emitWithAck('trip:join', { tripId: ride.tripId })).toMatchObject({
      ok: true,
    });
    await answer(ride.riding.socket, ride.tripId, false);
    await eventually(() => expect(eventsOf(ride.tripId)).toHaveLength(1));
    const kindsOf = (heard: [string, unknown][]) => new Set(heard.map(([event]) => event));
    expect(kindsOf(ride.driving.heard)).toEqual(new Set(['location']));
    for (const event of followed) expect(['location', 'trip']).toContain(event);
    expect(bystander.heard).toEqual([]);
  });

  test('answers are the rider’s: others are refused, and in the same way whether there is a question or not', async () => {
    const quiet = await activeTrip(system);
    const asked = await askedRide();
    const stranger = await connect((await signIn(system)).token);
    const quietDriver = await connect(quiet.driver.token);
    const quietRider = await connect(quiet.rider.token);
    const byDriver = [
      await answer(quietDriver.socket, quiet.tripId),
      await answer(asked.driving.socket, asked.tripId),
      await answer(asked.driving.socket, asked.tripId, false),
    ];
    for (const one of byDriver) expect(one).toEqual(refusal('TRIP_FORBIDDEN'));
    expect(new Set(byDriver.map((one) => JSON.stringify(one))).size).toBe(1);
    expect(await answer(stranger.socket, asked.tripId)).toEqual(refusal('TRIP_FORBIDDEN'));
    expect(await answer(stranger.socket, 'trp_nobody')).toEqual(refusal('TRIP_NOT_FOUND'));
    expect(await answer(quietRider.socket, quiet.tripId)).toEqual(refusal('SAFETY_NOT_ASKED'));
    expect(await answer(asked.riding.socket, asked.tripId, 'yes')).toEqual(refusal('VALIDATION'));
    // None of it has answered the question
    expect(eventsOf(asked.tripId)).toEqual([]);
    expect(await answer(asked.riding.socket, asked.tripId)).toEqual({ ok: true });
  });
});

describe('+ what may be away', () => {
  test('with trips and the main Redis gone an open question still takes its answer, and ends in its alarm', async () => {
    const [answered, silent] = [await askedRide(), await askedRide()];
    const trips = system.broker.getLocalService('trips') as Service & { store: { get: unknown } };
    const { get } = trips.store;
    trips.store.get = () => Promise.reject(new Error('The DB is away'));
    await mainRedis.halt();
    try {
      expect(await answer(answered.riding.socket, answered.tripId, false)).toEqual({ ok: true });
      await eventually(() => expect(eventsOf(answered.tripId)).toHaveLength(1));
      await eventually(() => expect(eventsOf(silent.tripId)).toHaveLength(1), answerWithinMs + 5000);
    } finally {
      trips.store.get = get;
      await mainRedis.resume();
    }
    // And it goes on by itself
    await eventually(async () => expect(checksIn((await askedRide()).riding.heard)).not.toEqual([]), 15_000);
  }, 40_000);
});

describe('+ a planned way', () => {
  test('comes with the booking, is what the checks measure by, and is in nobody’s list', async () => {
    const [rider, driver] = [await signIn(system), await signInDriver(system)];
    const to = { lat: -10.9, lng: -37.05 };
    const route = [aracaju, { lat: -10.92, lng: -37.06 }, to];
    const booking = { from: { ...aracaju, address: 'Here' }, to, departAt: new Date().toISOString() };
    const book = (body: object) => request(system, 'POST', '/api/v1/bookings', { token: rider.token, body });
    for (const wrong of [{ route: [aracaju] }, { route: [{ lat: 91, lng: 0 }, to] }, { durationS: 1 }])
      expect((await book({ ...booking, ...wrong })).body.error.code).toBe('VALIDATION');
    const { body } = await book({ ...booking, route, durationS: 900 });
    const trip = await request(system, 'POST', `/api/v1/bookings/${body.id}/accept`, {
      token: driver.token,
    });
    const tripId: string = trip.body.id;
    expect(await system.broker.call('trips.plans', { ids: [tripId] })).toEqual({ plans: [] });
    const started = await request(system, 'POST', `/api/v1/trips/${tripId}/start`, { token: driver.token });
    expect(await system.broker.call('trips.plans', { ids: [tripId, 'trp_nobody'] })).toEqual({
      plans: [
        {
          tripId,
          riderId: rider.id,
          driverId: driver.id,
          from: aracaju,
          to,
          startedAt: Date.parse(started.body.startedAt),
          route,
          durationS: 900,
        },
      ],
    });
    for (const shown of [body, trip.body, started.body]) expect(Object.keys(shown)).not.toContain('route');
  });
});
