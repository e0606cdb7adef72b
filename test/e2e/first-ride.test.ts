import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import type { Update } from '../../contracts/location.ts';
import { aracaju, bookTrip, connectSocket, request, signIn, signInDriver } from '../support/clients.ts';
import { eventually } from '../support/eventually.ts';
import { type System, startSystem } from '../support/system.ts';

describe('a first ride, exactly as the interface says', () => {
  let system: System;
  beforeAll(async () => {
    system = await startSystem();
  });
  afterAll(() => system.stop());

  test('login → booking → accept → start → join → location → end', async () => {
    const rider = await signIn(system);
    const driver = await signInDriver(system);
    expect(rider.role).toBe('rider');

    const bookingId = await bookTrip(system, rider);
    const accepted = await request(system, 'POST', `/api/v1/bookings/${bookingId}/accept`, {
      token: driver.token,
    });
    expect(accepted.status).toBe(201);
    expect(accepted.body).toMatchObject({
      bookingId,
      riderId: rider.id,
      driverId: driver.id,
      status: 'scheduled',
    });
    const tripId: string = accepted.body.id;
    const started = await request(system, 'POST', `/api/v1/trips/${tripId}/start`, { token: driver.token });
    expect(started.body.status).toBe('active');

    const watching = await connectSocket(system, rider.token);
    const driving = await connectSocket(system, driver.token);
    const seen: Update[] = [];
    const changes: string[] = [];
    watching.on('location', (update) => seen.push(update));
    watching.on('trip', ({ status }) => changes.push(status));

    expect(await watching.emitWithAck('trip:join', { tripId })).toEqual({ ok: true, last: null, missed: [] });
    const report = { tripId, ...aracaju, accuracy: 8, speed: 9, heading: 120, timestamp: Date.now() };
    expect(await driving.emitWithAck('location:update', report)).toEqual({ ok: true });
    await eventually(() => expect(seen).toHaveLength(1));
    expect(seen[0]).toMatchObject({ ...report, userId: driver.id, at: expect.any(Number) });

    const ended = await request(system, 'POST', `/api/v1/trips/${tripId}/end`, { token: driver.token });
    expect(ended.body.status).toBe('ended');
    await eventually(() => expect(changes).toEqual(['ended']));
    watching.close();
    driving.close();
  });
});
