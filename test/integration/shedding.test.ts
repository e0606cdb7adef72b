import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import type { Service } from 'moleculer';
import type { Server } from 'socket.io';
import type { Sessions } from '../../mixins/sessions.ts';
import type { Shedding } from '../../mixins/shedding.ts';
import { activeTrip, aracaju, connectSocket, request } from '../support/clients.ts';
import { eventually } from '../support/eventually.ts';
import { type System, startSystem } from '../support/system.ts';

/** A door that believes that its event loop is late. */
function overload(system: System, door: 'api' | 'gateway'): { refused: string[]; end: () => void } {
  const { shedding } = system.broker.getLocalService(door) as Service & { shedding: Shedding };
  const refuses = shedding.refuses.bind(shedding);
  const refused: string[] = [];
  shedding.refuses = (what) => refused.push(what) > 0;
  return {
    refused,
    end: () => {
      shedding.refuses = refuses;
    },
  };
}

describe('+ everything else sheds load before an SOS does', () => {
  let system: System;
  beforeAll(async () => {
    system = await startSystem();
  }, 30_000);
  afterAll(() => system.stop());

  test('a late REST door answers 503 with Retry-After to all but SOS and probes, before it reads a body', async () => {
    const { rider, tripId } = await activeTrip(system);
    const { refused, end } = overload(system, 'api');
    try {
      for (const [method, path, body] of [
        ['GET', `/api/v1/trips/${tripId}`],
        ['POST', '/api/v1/auth/otp', '{"not json'],
        ['GET', '/api/v1/sosnot'],
        ['GET', '/dev/outbox'],
      ] as const) {
        const answer = await request(system, method, path, { token: rider.token, body });
        expect([answer.status, answer.body.error.code]).toEqual([503, 'UNAVAILABLE']);
        expect(answer.headers.get('retry-after')).toBe('2');
        expect(answer.headers.get('x-content-type-options')).toBe('nosniff');
      }
      expect(refused).toHaveLength(4);
      const raised = await request(system, 'POST', '/api/v1/sos', { token: rider.token, body: { tripId } });
      expect(raised.status).toBe(202);
      const seen = await request(system, 'GET', `/api/v1/sos/${raised.body.alertId}`, { token: rider.token });
      expect(seen.status).toBe(200);
      expect((await request(system, 'GET', '/api/v1/admin/sos', { token: rider.token })).status).toBe(403);
      expect((await request(system, 'GET', '/healthz')).status).toBe(200);
      expect((await request(system, 'GET', '/readyz')).status).toBe(200);
      expect(refused).toHaveLength(4);
    } finally {
      end();
    }
    expect((await request(system, 'GET', `/api/v1/trips/${tripId}`, { token: rider.token })).status).toBe(
      200,
    );
  });

  test('an SOS does not wait for requests that are under way, however many', async () => {
    const { rider, tripId } = await activeTrip(system);
    const { sessions } = system.broker.getLocalService('api') as Service & { sessions: Sessions };
    const resolve = sessions.resolve.bind(sessions);
    const { promise: released, resolve: release } = Promise.withResolvers<void>();
    let held = 0;
    sessions.resolve = async (token) => {
      held++;
      await released;
      return resolve(token);
    };
    // More than a bulkhead lets through at once
    const waiting = Array.from({ length: 250 }, () =>
      request(system, 'GET', '/api/v1/me', { token: rider.token }),
    );
    try {
      await eventually(() => expect(held).toBe(waiting.length));
      const raised = await request(system, 'POST', '/api/v1/sos', { token: rider.token, body: { tripId } });
      expect(raised.status).toBe(202);
    } finally {
      sessions.resolve = resolve;
      release();
      await Promise.all(waiting);
    }
  });

  test('a late socket door refuses all but SOS and answers of safety checks, by name', async () => {
    const { rider, driver, tripId } = await activeTrip(system);
    const driving = await connectSocket(system, driver.token);
    const riding = await connectSocket(system, rider.token);
    const { refused, end } = overload(system, 'gateway');
    try {
      const fix = { tripId, ...aracaju, accuracy: 8, speed: 9, heading: 1, timestamp: Date.now() };
      expect(await driving.emitWithAck('location:update', fix)).toMatchObject({
        ok: false,
        error: { code: 'UNAVAILABLE', retryAfterS: 2 },
      });
      const told: unknown[] = [];
      driving.on('location:refused', (refusal) => told.push(refusal));
      driving.emit('location:update', fix);
      await eventually(() =>
        expect(told).toMatchObject([{ tripId, timestamp: fix.timestamp, error: { code: 'UNAVAILABLE' } }]),
      );
      expect(await riding.emitWithAck('trip:join', { tripId })).toMatchObject({ ok: false });
      const raised = await riding.emitWithAck('sos:trigger', { tripId });
      expect(raised).toMatchObject({ ok: true, status: 'active' });
      const alertId = raised.ok ? raised.alertId : '';
      expect(await riding.emitWithAck('sos:location', { alertId, ...aracaju })).toMatchObject({ ok: true });
      // Refused, "I am safe" would become an alarm
      expect(await riding.emitWithAck('safety:answer', { tripId, safe: true })).toMatchObject({
        ok: false,
        error: { code: 'SAFETY_NOT_ASKED' },
      });
      expect(refused).toEqual(['location:update', 'location:update', 'trip:join']);
      end();
      expect(await driving.emitWithAck('location:update', fix)).toEqual({ ok: true });
    } finally {
      end();
      driving.close();
      riding.close();
    }
  });

  test('sockets take turns: an SOS does not wait for what others have sent before it', async () => {
    const { rider, driver, tripId } = await activeTrip(system);
    const riding = await connectSocket(system, rider.token);
    const flooding = await Promise.all(Array.from({ length: 20 }, () => connectSocket(system, driver.token)));
    try {
      // In which order the door is handed what has come
      const handed: string[] = [];
      const { io } = system.broker.getLocalService('gateway') as unknown as { io: Server };
      for (const { conn, data } of io.of('/').sockets.values())
        conn.on('data', () => handed.push((data as { caller: { id: string } }).caller.id));
      const floods = flooding.flatMap((socket) =>
        Array.from({ length: 300 }, () => socket.emitWithAck('trip:leave', { tripId })),
      );
      expect(await riding.emitWithAck('sos:trigger', { tripId })).toMatchObject({ ok: true });
      await Promise.all(floods);
      expect(handed).toHaveLength(floods.length + 1);
      expect(handed.indexOf(rider.id)).toBeLessThan(floods.length / 3);
    } finally {
      for (const socket of [riding, ...flooding]) socket.close();
    }
  });
});
