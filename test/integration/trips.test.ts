import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import type { Service } from 'moleculer';
import { feedKeys } from '../../lib/feed-stream.ts';
import { shardKeys, shardOf } from '../../lib/location-keys.ts';
import { type DevelopmentRedis, startRedis } from '../../lib/standins/redis.ts';
import type { WithPending } from '../../mixins/feed.ts';
import type { Collection } from '../../mixins/store.ts';
import location from '../../services/location/location.service.ts';
import {
  type Answer,
  aracaju,
  bookTrip,
  newPhone,
  request,
  signIn,
  signInDriver,
  type User,
} from '../support/clients.ts';
import { eventually } from '../support/eventually.ts';
import { withRedis } from '../support/redis-content.ts';
import { type System, startSystem } from '../support/system.ts';

let dataDir: string;
/** The feed's own, for a test to take away. */
let feedRedis: DevelopmentRedis;
let system: System;
let admin: User;

beforeAll(async () => {
  dataDir = await mkdtemp(join(tmpdir(), 'ride-feed-'));
  feedRedis = await startRedis({ dataDir });
  system = await startSystem({ env: { SOS_REDIS_URL: feedRedis.socketPath } });
  admin = await signIn(system, '+919800000000');
});
afterAll(async () => {
  await system.stop();
  await feedRedis.stop();
  await rm(dataDir, { recursive: true, force: true });
});

const post = (user: User, path: string, body?: unknown) =>
  request(system, 'POST', `/api/v1${path}`, { token: user.token, body });
const get = (user: User, path: string) => request(system, 'GET', `/api/v1${path}`, { token: user.token });
const step = (user: User, tripId: string, name: 'start' | 'end' | 'cancel') =>
  post(user, `/trips/${tripId}/${name}`);
const accept = (user: User, bookingId: string) => post(user, `/bookings/${bookingId}/accept`);

function expectRefusal(answer: Answer, status: number, code: string): void {
  expect([answer.status, answer.body?.error?.code]).toEqual([status, code]);
}

/** A trip that a driver has accepted. */
async function scheduledTrip(people?: { rider: User; driver: User }) {
  const rider = people?.rider ?? (await signIn(system));
  const driver = people?.driver ?? (await signInDriver(system));
  const bookingId = await bookTrip(system, rider);
  const tripId: string = (await accept(driver, bookingId)).body.id;
  return { rider, driver, bookingId, tripId };
}

interface Entry {
  kind: string;
  data: Record<string, unknown>;
}
/** The feed's events of one trip and its booking, in the feed's order. */
const feedOf = (trip: { tripId?: string; bookingId: string }): Promise<Entry[]> =>
  withRedis(feedRedis.socketPath, async (redis) => {
    const entries = await redis.xrange(feedKeys.stream, '-', '+');
    return entries
      .map(([, [, kind = '', , , , data = '{}']]) => ({ kind, data: JSON.parse(data) as Entry['data'] }))
      .filter(({ data }) => data['tripId'] === (trip.tripId ?? '-') || data['bookingId'] === trip.bookingId);
  });
const kindsOf = async (trip: { tripId?: string; bookingId: string }) =>
  (await feedOf(trip)).map(({ kind }) => kind);

describe('from booking to the end', () => {
  test('each step answers with the trip as it is now', async () => {
    const [rider, driver] = await Promise.all([signIn(system), signInDriver(system)]);
    const departAt = new Date().toISOString();
    const to = { lat: -10.9, lng: -37.05, address: 'Orla' };
    const booked = await post(rider, '/bookings', { from: aracaju, to, departAt });
    expect(booked.status).toBe(201);
    expect(booked.body).toEqual({
      id: expect.stringMatching(/^bkg_/),
      status: 'requested',
      riderId: rider.id,
      from: aracaju,
      to,
      departAt,
      tripId: null,
    });
    expect(booked.headers.get('location')).toBe(`/api/v1/bookings/${booked.body.id}`);

    const accepted = await accept(driver, booked.body.id);
    const trip = {
      id: expect.stringMatching(/^trp_/),
      bookingId: booked.body.id,
      riderId: rider.id,
      driverId: driver.id,
      status: 'scheduled',
      from: aracaju,
      to,
      departAt,
      startedAt: null,
      endedAt: null,
    };
    expect(accepted.status).toBe(201);
    expect(accepted.body).toEqual(trip);
    const { id } = accepted.body;
    expect(accepted.headers.get('location')).toBe(`/api/v1/trips/${id}`);

    const started = { ...trip, status: 'active', startedAt: expect.any(String) };
    expect((await step(driver, id, 'start')).body).toEqual(started);
    const ended = { ...started, status: 'ended', endedAt: expect.any(String) };
    expect((await step(driver, id, 'end')).body).toEqual(ended);
    expect((await get(rider, `/trips/${id}`)).body).toEqual(ended);
  });

  test('a step out of turn is refused and changes nothing', async () => {
    const { rider, driver, bookingId, tripId } = await scheduledTrip();
    const wrong = async (answer: Promise<Answer>) => expectRefusal(await answer, 409, 'TRIP_WRONG_STATE');
    const statusNow = async () => (await get(rider, `/trips/${tripId}`)).body.status;
    await wrong(step(driver, tripId, 'end'));
    await wrong(accept(driver, bookingId));
    expect(await statusNow()).toBe('scheduled');
    await step(driver, tripId, 'start');
    await wrong(step(driver, tripId, 'start'));
    expect(await statusNow()).toBe('active');
    await step(driver, tripId, 'end');
    for (const name of ['start', 'end', 'cancel'] as const) await wrong(step(driver, tripId, name));
    expect(await statusNow()).toBe('ended');
  });

  test.each(['scheduled', 'active'])('a rider cancels a trip that is %s, for good', async (status) => {
    const { rider, driver, tripId } = await scheduledTrip();
    if (status === 'active') await step(driver, tripId, 'start');
    expect((await step(rider, tripId, 'cancel')).body).toMatchObject({ status: 'cancelled' });
    expectRefusal(await step(driver, tripId, 'start'), 409, 'TRIP_WRONG_STATE');
  });

  test('what does not exist is not found; an own booking is not driven', async () => {
    const driver = await signInDriver(system);
    expectRefusal(await accept(driver, 'bkg_none'), 404, 'BOOKING_NOT_FOUND');
    expectRefusal(await get(driver, '/trips/trp_none'), 404, 'TRIP_NOT_FOUND');
    expectRefusal(await step(driver, 'trp_none', 'start'), 404, 'TRIP_NOT_FOUND');
    expectRefusal(await accept(driver, await bookTrip(system, driver)), 409, 'OWN_BOOKING');
  });

  test.each([
    ['no destination', { to: undefined }],
    ['a latitude of 91', { from: { lat: 91, lng: 0 } }],
    ['a time that is none', { departAt: 'tomorrow' }],
    ['a time without its zone', { departAt: '2026-11-23T20:00:00' }],
  ])('a booking with %s is refused', async (_, change) => {
    const rider = await signIn(system);
    const good = { from: aracaju, to: aracaju, departAt: new Date().toISOString() };
    expectRefusal(await post(rider, '/bookings', { ...good, ...change }), 400, 'VALIDATION');
  });
});

describe('a booking', () => {
  const booked = async () => {
    const rider = await signIn(system);
    return { rider, bookingId: await bookTrip(system, rider) };
  };

  test('is where its Location says, for its rider, and for drivers while it is free', async () => {
    const { rider, bookingId } = await booked();
    const [driver, other, stranger] = [
      await signInDriver(system),
      await signInDriver(system),
      await signIn(system),
    ];
    const path = `/bookings/${bookingId}`;
    expect((await get(rider, path)).body).toMatchObject({ id: bookingId, status: 'requested', tripId: null });
    expect((await get(driver, path)).status).toBe(200);
    expectRefusal(await get(stranger, path), 403, 'TRIP_FORBIDDEN');
    const { body: trip } = await accept(driver, bookingId);
    expect((await get(rider, path)).body).toMatchObject({ status: 'scheduled', tripId: trip.id });
    expectRefusal(await get(other, path), 403, 'TRIP_FORBIDDEN');
  });

  test('is found by drivers near its pickup while it is free, the nearest first, but not their own', async () => {
    // Where no other test books
    const from = (lat: number) => ({
      from: { lat, lng: 78 },
      to: aracaju,
      departAt: new Date().toISOString(),
    });
    const [rider, driver] = [await signIn(system), await signInDriver(system)];
    const [far, near, own] = [
      await post(rider, '/bookings', from(20.02)),
      await post(rider, '/bookings', from(20.01)),
      await post(driver, '/bookings', from(20)),
    ].map(({ body }) => body.id as string);
    const idsNear = async (user: User, more = '') => {
      const { body } = await get(user, `/bookings/nearby?lat=20&lng=78${more}`);
      return body.bookings.map(({ id, distanceM }: { id: string; distanceM: number }) => [id, distanceM]);
    };
    expect(await idsNear(driver)).toEqual([
      [near, 1112],
      [far, 2224],
    ]);
    expect(await idsNear(driver, '&limit=1')).toEqual([[near, 1112]]);
    expect(await idsNear(driver, '&radiusM=1500')).toEqual([[near, 1112]]);
    const other = await signInDriver(system);
    await accept(other, near ?? '');
    expect(await idsNear(other)).toEqual([
      [own, 0],
      [far, 2224],
    ]);
    expectRefusal(await get(rider, '/bookings/nearby?lat=20&lng=78'), 403, 'FORBIDDEN');
    expectRefusal(await get(driver, '/bookings/nearby?lat=91&lng=78'), 400, 'VALIDATION');
  });

  test('is withdrawn by its rider, once, while nobody has taken it, and nobody gets it then', async () => {
    const { rider, bookingId } = await booked();
    const driver = await signInDriver(system);
    const withdraw = (user: User) => post(user, `/bookings/${bookingId}/cancel`);
    expectRefusal(await withdraw(driver), 403, 'TRIP_FORBIDDEN');
    expect((await withdraw(rider)).body).toMatchObject({ id: bookingId, status: 'cancelled' });
    expectRefusal(await withdraw(rider), 409, 'TRIP_WRONG_STATE');
    expectRefusal(await accept(driver, bookingId), 409, 'TRIP_WRONG_STATE');
    const tripId = bookingId.replace('bkg_', 'trp_');
    expect(await kindsOf({ tripId, bookingId })).toEqual(['booking.created', 'trip.cancelled']);
  });

  test('that is taken is cancelled as a trip', async () => {
    const { rider, bookingId } = await booked();
    await accept(await signInDriver(system), bookingId);
    expectRefusal(await post(rider, `/bookings/${bookingId}/cancel`), 409, 'TRIP_WRONG_STATE');
  });
});

describe('when requests race', () => {
  const outcomes = (answers: Answer[]) => {
    const won = answers.filter(({ status }) => status < 300);
    for (const answer of answers.filter((each) => !won.includes(each)))
      expectRefusal(answer, 409, 'TRIP_WRONG_STATE');
    return won;
  };

  test('ten drivers accept, one gets the trip', async () => {
    const rider = await signIn(system);
    const drivers = await Promise.all(Array.from({ length: 10 }, () => signInDriver(system)));
    const bookingId = await bookTrip(system, rider);
    const won = outcomes(await Promise.all(drivers.map((driver) => accept(driver, bookingId))));
    expect(won).toHaveLength(1);
    const { id, driverId } = won[0]!.body;
    expect((await get(rider, `/trips/${id}`)).body.driverId).toBe(driverId);
    expect(await kindsOf({ tripId: id, bookingId })).toEqual(['booking.created', 'trip.accepted']);
  });

  test('ten starts and ten ends at once are one each', async () => {
    const { driver, tripId, bookingId } = await scheduledTrip();
    for (const name of ['start', 'end'] as const) {
      const answers = await Promise.all(Array.from({ length: 10 }, () => step(driver, tripId, name)));
      expect(outcomes(answers)).toHaveLength(1);
    }
    expect(await kindsOf({ tripId, bookingId })).toEqual([
      'booking.created',
      'trip.accepted',
      'trip.started',
      'trip.ended',
    ]);
  });

  test('end and cancel at once leave one final state', async () => {
    const { rider, driver, tripId } = await scheduledTrip();
    await step(driver, tripId, 'start');
    const won = outcomes(
      await Promise.all([
        step(driver, tripId, 'end'),
        step(rider, tripId, 'cancel'),
        step(admin, tripId, 'end'),
      ]),
    );
    expect(won).toHaveLength(1);
    expect((await get(rider, `/trips/${tripId}`)).body.status).toBe(won[0]?.body.status);
  });
});

describe('who may', () => {
  test('R2.5 others neither see nor steer a trip; admins see it', async () => {
    const { rider, driver, tripId } = await scheduledTrip();
    const strangers = await Promise.all([signIn(system), signInDriver(system)]);
    for (const stranger of strangers) {
      expectRefusal(await get(stranger, `/trips/${tripId}`), 403, 'TRIP_FORBIDDEN');
      for (const name of ['start', 'end', 'cancel'] as const)
        expectRefusal(await step(stranger, tripId, name), 403, 'TRIP_FORBIDDEN');
    }
    for (const name of ['start', 'end'] as const)
      expectRefusal(await step(rider, tripId, name), 403, 'TRIP_FORBIDDEN');
    for (const user of [rider, driver, admin]) expect((await get(user, `/trips/${tripId}`)).status).toBe(200);
    expectRefusal(await step(admin, tripId, 'start'), 403, 'TRIP_FORBIDDEN');
    expect((await step(admin, tripId, 'cancel')).body.status).toBe('cancelled');
  });

  test('riders do not accept, admins do not book, nobody does anything without signing in', async () => {
    const rider = await signIn(system);
    const bookingId = await bookTrip(system, rider);
    expectRefusal(await accept(await signIn(system), bookingId), 403, 'FORBIDDEN');
    const booking = { from: aracaju, to: aracaju, departAt: new Date().toISOString() };
    expectRefusal(await post(admin, '/bookings', booking), 403, 'FORBIDDEN');
    for (const path of ['/bookings', `/bookings/${bookingId}/accept`, '/trips/trp_x/start'])
      expectRefusal(await request(system, 'POST', `/api/v1${path}`, { body: {} }), 401, 'UNAUTHENTICATED');
  });
});

describe('the list of trips', () => {
  const idsOf = ({ body }: Answer): string[] => body.trips.map(({ id }: { id: string }) => id);

  test('comes in pages that hold each trip once, of the caller only', async () => {
    const rider = await signIn(system, newPhone());
    const driver = await signInDriver(system);
    const mine: string[] = [];
    for (let count = 0; count < 5; count += 1) mine.push((await scheduledTrip({ rider, driver })).tripId);
    await scheduledTrip();

    const seen: string[] = [];
    const sizes: number[] = [];
    let next: string | null = '';
    while (next !== null) {
      const page = await get(rider, `/trips?limit=2${next ? `&after=${next}` : ''}`);
      sizes.push(idsOf(page).length);
      seen.push(...idsOf(page));
      next = page.body.next;
    }
    expect(sizes).toEqual([2, 2, 1]);
    expect(seen.toSorted((a, b) => a.localeCompare(b))).toEqual(mine.toSorted((a, b) => a.localeCompare(b)));
    expect(idsOf(await get(driver, '/trips'))).toHaveLength(5);

    await step(driver, mine[0]!, 'start');
    expect(idsOf(await get(rider, '/trips?status=active'))).toEqual([mine[0]]);
    expect(idsOf(await get(rider, '/trips?status=ended'))).toEqual([]);
    expect(idsOf(await get(admin, '/trips?limit=100')).length).toBeGreaterThan(5);
    for (const query of ['limit=0', 'limit=101', 'limit=x', 'status=none', 'status[$ne]=x', 'after[$gt]='])
      expectRefusal(await get(rider, `/trips?${query}`), 400, 'VALIDATION');
  });
});

describe('P9 the admin feed', () => {
  test('has each event once, in the order in which they happened, with what admins need', async () => {
    const trip = await scheduledTrip();
    await step(trip.driver, trip.tripId, 'start');
    await step(trip.driver, trip.tripId, 'end');
    const parties = { tripId: trip.tripId, riderId: trip.rider.id, driverId: trip.driver.id };
    expect(await feedOf(trip)).toEqual([
      {
        kind: 'booking.created',
        data: expect.objectContaining({ bookingId: trip.bookingId, riderId: trip.rider.id, from: aracaju }),
      },
      { kind: 'trip.accepted', data: parties },
      { kind: 'trip.started', data: parties },
      { kind: 'trip.ended', data: parties },
    ]);
  });

  test('gets what happened while it was away, in order, once it is back', async () => {
    await feedRedis.stop();
    const trip = await scheduledTrip();
    expect((await step(trip.driver, trip.tripId, 'start')).status).toBe(200);
    feedRedis = await startRedis({ dataDir });
    const inOrder = ['booking.created', 'trip.accepted', 'trip.started'];
    await eventually(async () => expect(await kindsOf(trip)).toEqual(inOrder), 15_000);
    await step(trip.driver, trip.tripId, 'end');
    await eventually(async () => expect(await kindsOf(trip)).toEqual([...inOrder, 'trip.ended']));
  }, 60_000);

  test('has an event once that a crash left on its record after it was appended', async () => {
    const { store } = system.broker.getLocalService('trips') as unknown as { store: Collection<WithPending> };
    const trip = await scheduledTrip();
    const before = await store.get(trip.tripId);
    const event = { kind: 'trip.accepted', version: 2, at: Date.now() } as const;
    const data = { tripId: trip.tripId, riderId: trip.rider.id, driverId: trip.driver.id };
    expect(before).toMatchObject({ version: 2, pending: [], hasPending: false });
    await store.update({ _id: trip.tripId }, { $set: { pending: [{ ...event, data }], hasPending: true } });
    // The sweep takes it off again
    await eventually(
      async () => expect(await store.get(trip.tripId)).toMatchObject({ pending: [], hasPending: false }),
      10_000,
    );
    expect(await kindsOf(trip)).toEqual(['booking.created', 'trip.accepted']);
  });

  test('+ its Redis keeps nothing of a trip for ever: alerts need the room', async () => {
    const trip = await scheduledTrip();
    await step(trip.driver, trip.tripId, 'start');
    await step(trip.driver, trip.tripId, 'end');
    await withRedis(feedRedis.socketPath, async (redis) => {
      const [keys, forGood] = [await redis.keys('*'), [] as string[]];
      let [named, hashes] = [0, 0];
      for (const key of keys) {
        if (key.includes(trip.tripId)) {
          named++;
          if ((await redis.pttl(key)) < 0) forGood.push(key);
        } else if ((await redis.type(key)) === 'hash') {
          hashes++;
          if ((await redis.hexists(key, trip.tripId)) === 1) forGood.push(key);
        }
      }
      expect(named).toBeGreaterThan(0);
      expect(hashes).toBeGreaterThan(0);
      expect(forGood).toEqual([]);
    });
  });

  test('+ has the events behind a record that it can never take', async () => {
    const { store } = system.broker.getLocalService('trips') as unknown as { store: Collection<WithPending> };
    const trips = [await scheduledTrip(), await scheduledTrip()].toSorted((a, b) =>
      a.tripId < b.tripId ? -1 : 1,
    );
    const pendingOf = (trip: (typeof trips)[number], version: unknown) => ({
      $set: {
        pending: [
          {
            kind: 'trip.accepted',
            version,
            at: 1,
            data: { tripId: trip.tripId },
          } as WithPending['pending'][0],
        ],
        hasPending: true,
      },
    });
    // Whichever the sweep comes to first
    const spoiled = trips[0]!;
    for (const [n, trip] of trips.entries())
      await store.update({ _id: trip.tripId }, pendingOf(trip, n === 0 ? 'no number' : 1));
    await eventually(
      async () => expect(await store.get(trips[1]!.tripId)).toMatchObject({ pending: [], hasPending: false }),
      10_000,
    );
    expect(await store.get(spoiled.tripId)).toMatchObject({ hasPending: true });
    await store.update({ _id: spoiled.tripId }, { $set: { pending: [], hasPending: false } });
  });
});

describe('the location service', () => {
  test('+ hears of a trip that it could not be told of at its start: the silence of its driver must be noticed', async () => {
    const trips: Service & { openPending?(): Promise<void> } = system.broker.getLocalService('trips');
    const trip = await scheduledTrip();
    const { active } = shardKeys(shardOf(trip.tripId));
    const driverInIndex = () => withRedis(system.config.redisUrl, (redis) => redis.hget(active, trip.tripId));
    await system.broker.destroyService('location');
    expect((await step(trip.driver, trip.tripId, 'start')).status).toBe(200);
    expect(await driverInIndex()).toBe(null);

    system.broker.createService(location);
    await system.broker.waitForServices('location');
    await trips.openPending?.();
    expect(await driverInIndex()).toBe(trip.driver.id);
    // Once it is known, an end is not undone
    await step(trip.driver, trip.tripId, 'end');
    await trips.openPending?.();
    expect(await driverInIndex()).toBe(null);
  });
});
