import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { aracaju, bookTrip, request, signIn, signInDriver, type User } from '../support/clients.ts';
import { eventually } from '../support/eventually.ts';
import { mongoBackend, startMongo, type TestMongo } from '../support/mongo.ts';
import { type System, startSystem } from '../support/system.ts';

describe(`services on ${mongoBackend}`, () => {
  let mongo: TestMongo;
  let system: System;
  beforeAll(async () => {
    mongo = await startMongo();
    system = await startSystem({ env: { MONGO_URI: mongo.uri } });
  });
  afterAll(async () => {
    await system.stop();
    await mongo.stop();
  });

  const call = (user: User, method: string, path: string, body?: unknown) =>
    request(system, method, `/api/v1${path}`, { token: user.token, ...(body === undefined ? {} : { body }) });

  test('sign-in, profile, contacts and PIN', async () => {
    const user = await signIn(system);
    expect((await signIn(system)).id).not.toBe(user.id);
    const contacts = [{ name: 'Ravi', phone: '+919812345678', relation: 'brother' }];
    expect((await call(user, 'PUT', '/me/emergency-contacts', { contacts })).status).toBe(200);
    expect((await call(user, 'PATCH', '/me', { name: 'Asha R' })).body).toMatchObject({ name: 'Asha R' });
    expect((await call(user, 'PUT', '/me/pin', { pin: '4821' })).status).toBe(204);
    expect((await call(user, 'PUT', '/me/pin', { pin: '4822', currentPin: '1111' })).body.error.code).toBe(
      'WRONG_PIN',
    );
    expect((await call(user, 'GET', '/me')).body).toMatchObject({
      id: user.id,
      name: 'Asha R',
      phone: user.phone,
      emergencyContacts: contacts,
      hasPin: true,
    });
  });

  test('R9.1 R9.4 R9.5 from booking to the end, found on the way', async () => {
    const [rider, driver, other] = await Promise.all([
      signIn(system),
      signInDriver(system),
      signInDriver(system),
    ]);
    const bookingId = await bookTrip(system, rider);
    const nearby = await call(
      driver,
      'GET',
      `/bookings/nearby?lat=${aracaju.lat + 0.001}&lng=${aracaju.lng}`,
    );
    expect(nearby.body.bookings).toEqual([
      expect.objectContaining({ id: bookingId, status: 'requested', riderId: rider.id, distanceM: 111 }),
    ]);
    const accepts = await Promise.all(
      [driver, other].map((one) => call(one, 'POST', `/bookings/${bookingId}/accept`)),
    );
    expect(accepts.map(({ status }) => status).toSorted((a, b) => a - b)).toEqual([201, 409]);
    const won = accepts[0]?.status === 201 ? driver : other;
    const tripId: string = accepts.find(({ status }) => status === 201)?.body.id;
    expect((await call(won, 'POST', `/trips/${tripId}/start`)).body).toMatchObject({ status: 'active' });
    expect((await call(rider, 'GET', '/trips?status=active')).body.trips).toMatchObject([{ id: tripId }]);
    expect((await call(won, 'POST', `/trips/${tripId}/end`)).body).toMatchObject({ status: 'ended' });
    expect((await call(rider, 'POST', `/trips/${tripId}/cancel`)).body.error.code).toBe('TRIP_WRONG_STATE');
    expect((await call(rider, 'GET', `/trips/${tripId}`)).body).toMatchObject({
      status: 'ended',
      driverId: won.id,
    });
    expect(
      (await call(won, 'GET', `/bookings/nearby?lat=${aracaju.lat}&lng=${aracaju.lng}`)).body.bookings,
    ).toEqual([]);
  });

  test('R9.1 R9.3 the indexes are there, and the list of an admin comes from a secondary', async () => {
    const { simulator } = mongo;
    // A real server would have to be asked for what it was sent
    if (!simulator) return;
    const indexes = (name: string) =>
      simulator
        .database()
        .collection(name)
        .indexes.map(({ key }) => key);
    expect(indexes('users')).toContainEqual({ phoneHash: 1 });
    expect(indexes('trips')).toEqual(
      expect.arrayContaining([{ status: 1, departAt: 1 }, { region: 1, _id: 1 }, { pickup: '2dsphere' }]),
    );
    const admin = await signIn(system, '+919800000000');
    simulator.forget();
    await call(admin, 'GET', '/trips');
    const lists = simulator
      .commands('find')
      .filter(({ command }) => command['find'] === 'trips' && command['sort']);
    expect(lists.map(({ node }) => node)).toEqual(['secondary']);
  });

  test('R9.2 npm run migrate makes all collections, and may be run again', async () => {
    for (let time = 1; time <= 2; time++) {
      const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', 'bin/migrate.ts'], {
        env: { ...process.env, MONGO_URI: mongo.uri },
        stdio: ['ignore', 'pipe', 'pipe'],
      });
      let output = '';
      for (const stream of [child.stdout, child.stderr])
        stream.on('data', (chunk: Buffer) => (output += chunk.toString()));
      expect(await once(child, 'close')).toEqual([0, null]);
      for (const name of ['users', 'trips', 'alerts', 'location-history'])
        expect(output).toContain(`${name}: ready\n`);
    }
    const kept = mongo.simulator?.database().collection('location-history').options;
    if (kept) expect(kept['expireAfterSeconds']).toBe(30 * 86_400);
  }, 30_000);

  test('while MongoDB is away REST answers 503 with a time to wait; it works again by itself', async () => {
    const { simulator } = mongo;
    if (!simulator) return;
    const rider = await signIn(system);
    await simulator.halt();
    const start = performance.now();
    const refused = await call(rider, 'GET', '/me');
    expect([refused.status, refused.body.error.code]).toEqual([503, 'UNAVAILABLE']);
    expect(refused.headers.get('retry-after')).toBe('2');
    // 2.5 s, and what a busy machine adds
    expect(performance.now() - start).toBeLessThan(3500);
    const readiness = await fetch(`${system.metricsUrl}/readyz`);
    expect(readiness.status).toBe(200);
    expect(await readiness.json()).toMatchObject({
      ready: true,
      checks: { db: expect.not.stringMatching(/^ok$/) },
    });
    await simulator.resume();
    await eventually(async () => expect((await call(rider, 'GET', '/me')).status).toBe(200), 10_000);
  }, 30_000);
});
