import type { Socket as NodeSocket } from 'node:net';
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import * as fc from 'fast-check';
import type { Redis } from 'ioredis';
import type { Service } from 'moleculer';
import type { Server } from 'socket.io';
import type { Socket } from 'socket.io-client';
import type { Role } from '../../contracts/common.ts';
import type { DeliveredEvent, FeedDigest } from '../../contracts/feed.ts';
import { feedKeys } from '../../lib/feed-stream.ts';
import type { Sessions } from '../../mixins/sessions.ts';
import type { Shares } from '../../mixins/shares.ts';
import {
  type AdminSocket,
  aracaju,
  bookTrip,
  connectAdmin,
  connectShare,
  request,
  signIn,
  type User,
} from '../support/clients.ts';
import { eventually } from '../support/eventually.ts';
import { appendEvent, feedIds } from '../support/feed.ts';
import { startTestRedis, type TestRedis } from '../support/redis.ts';
import { type System, startSystem } from '../support/system.ts';

let mainRedis: TestRedis;
let sosRedis: TestRedis;
let system: System;
let redis: Redis;
let admin: User;
const open: AdminSocket[] = [];

beforeAll(async () => {
  [mainRedis, sosRedis] = await Promise.all([startTestRedis(), startTestRedis()]);
  system = await startSystem({
    env: { REDIS_URL: mainRedis.url, SOS_REDIS_URL: sosRedis.url, RATE_LIMIT_PER_USER: '100000' },
  });
  redis = sosRedis.connect();
  admin = await signIn(system, '+919800000000');
}, 30_000);
afterEach(() => {
  for (const socket of open.splice(0)) socket.close();
});
afterAll(async () => {
  await system.stop();
  await Promise.all([mainRedis.stop(), sosRedis.stop()]);
});

const sessionsOf = (target: System) =>
  (target.broker.getLocalService('gateway') as Service & { sessions: Sessions }).sessions;
const tokenOf = async (role: Role, id = `usr_${role}`) =>
  (await sessionsOf(system).create(id, role, 0)).token;

async function connect(token = admin.token): Promise<AdminSocket> {
  const socket = await connectAdmin(system, token);
  open.push(socket);
  return socket;
}
/** Sends anything, also what the types forbid. */
const ask = (socket: AdminSocket, event: string, ...args: unknown[]) =>
  (socket as unknown as Socket).timeout(5000).emitWithAck(event, ...args);
const subscribe = (socket: AdminSocket, payload: object = {}) => ask(socket, 'subscribe', payload);
const refusal = (code: string) => ({ ok: false, error: expect.objectContaining({ code }) });

function seenBy(socket: AdminSocket) {
  const seen = { events: [] as DeliveredEvent[], digests: [] as FeedDigest[], resyncs: [] as object[] };
  socket.on('events', (events) => seen.events.push(...events));
  socket.on('digest', (digest) => seen.digests.push(digest));
  socket.on('resync', (resync) => seen.resyncs.push(resync));
  return seen;
}
const idsOf = ({ events }: { events: DeliveredEvent[] }) => events.map(({ id }) => id);
const append = (kind = 'trip.started', data: Record<string, unknown> = {}) => appendEvent(redis, kind, data);
const closed = (socket: AdminSocket) => new Promise((resolve) => socket.once('disconnect', resolve));

describe('who may watch', () => {
  test.each(['viewer', 'support', 'operations', 'super-admin'] as const)('R7.5 a %s', async (role) => {
    expect(await subscribe(await connect(await tokenOf(role)))).toEqual({
      ok: true,
      cursor: expect.any(String),
    });
  });

  test('riders, drivers and strangers are refused with a code', async () => {
    for (const role of ['rider', 'driver'] as const)
      await expect(connectAdmin(system, await tokenOf(role))).rejects.toMatchObject({
        data: { code: 'FORBIDDEN' },
      });
    for (const token of [undefined, '', 'nonsense', `${admin.token}x`])
      await expect(connectAdmin(system, token)).rejects.toMatchObject({ data: { code: 'UNAUTHENTICATED' } });
  });

  test('whoever signs out, or is an admin no more, is cut off', async () => {
    const [out, demoted] = [
      await connect(await tokenOf('support', 'usr_out')),
      await connect(await tokenOf('viewer', 'usr_was')),
    ];
    const cut = Promise.all([closed(out), closed(demoted)]);
    await system.broker.broadcast('session.revoked', { userId: 'usr_out', sessionId: null });
    await sessionsOf(system).setRole('usr_was', 'rider', 1);
    await system.broker.broadcast('profile.changed', { userId: 'usr_was' });
    expect(await cut).toEqual(['io server disconnect', 'io server disconnect']);
  });
});

describe('what an admin is sent', () => {
  test('R7.1 R3.5 a booking and an SOS, whole, as they happen', async () => {
    const socket = await connect();
    const seen = seenBy(socket);
    await subscribe(socket);
    const rider = await signIn(system);
    const bookingId = await bookTrip(system, rider);
    const sos = {
      alertId: 'sos_1',
      userId: rider.id,
      name: 'Asha',
      location: { ...aracaju, accuracy: 8, source: 'gps', ageMs: 200 },
      mapUrl: 'https://maps.example/?q=1,2',
      sound: true,
      drill: false,
    };
    await append('sos.triggered', sos);
    await eventually(() => expect(seen.events).toHaveLength(2));
    expect(seen.events).toEqual([
      {
        id: expect.stringMatching(/^\d+-\d+$/),
        kind: 'booking.created',
        at: expect.any(Number),
        data: expect.objectContaining({ bookingId, riderId: rider.id, from: aracaju }),
      },
      { id: expect.any(String), kind: 'sos.triggered', at: expect.any(Number), data: sos },
    ]);
  });

  test('R7.6 only what matches; another filter takes over without a new connection', async () => {
    const socket = await connect();
    const seen = seenBy(socket);
    await subscribe(socket, { kinds: ['sos.triggered'] });
    await append('trip.started', { tripId: 'trp_a' });
    const alarm = await append('sos.triggered', { alertId: 'sos_2' });
    await eventually(() => expect(idsOf(seen)).toEqual([alarm]));
    await subscribe(socket, { tripId: 'trp_a' });
    await append('sos.triggered', { alertId: 'sos_3' });
    const started = await append('trip.ended', { tripId: 'trp_a' });
    await eventually(() => expect(idsOf(seen)).toEqual([alarm, started]));
    await subscribe(socket, { bbox: [-38, -11, -37, -10] });
    await append('booking.created', { from: { lat: 0, lng: 0 } });
    const here = await append('booking.created', { from: aracaju });
    await eventually(() => expect(idsOf(seen)).toEqual([alarm, started, here]));
  });

  test('refuses what makes no sense, and stays connected', async () => {
    const socket = await connect();
    for (const payload of [
      { after: 'yesterday' },
      { after: -1 },
      { kinds: 'sos' },
      { kinds: Array(101).fill('a') },
      { bbox: [0, 1, 0, 0] },
      { city: '' },
      { tripId: { $ne: '' } },
      'all',
      JSON.parse('{"__proto__":{"a":1}}'),
    ])
      expect([payload, await ask(socket, 'subscribe', payload)]).toEqual([payload, refusal('VALIDATION')]);
    for (const event of ['trip:join', 'events', 'constructor', ''])
      expect(await ask(socket, event, {})).toEqual(refusal('UNKNOWN_EVENT'));
    expect(await ask(socket, 'subscribe')).toMatchObject({ ok: true });
    expect(socket.connected).toBe(true);
  });

  test('one that floods is slowed down', async () => {
    const socket = await connect();
    const answers = await Promise.all(Array.from({ length: 150 }, () => ask(socket, 'nothing')));
    expect(answers.map(({ error }) => error.code)).toContain('RATE_LIMITED');
  });

  test('`after` from before what is kept: resync, then what is live', async () => {
    const socket = await connect();
    const seen = seenBy(socket);
    const old = await append();
    for (let n = 0; n < 10; n++) await append();
    await redis.xtrim(feedKeys.stream, 'MAXLEN', 3);
    expect(await subscribe(socket, { after: old })).toEqual({ ok: true, cursor: old });
    const last = (await feedIds(redis)).at(-1);
    await eventually(() => expect(seen.resyncs).toEqual([{ cursor: last }]));
    const id = await append();
    await eventually(() => expect(idsOf(seen)).toEqual([id]));
  });

  test('P9 R7.5 admins who are cut at random come back with the last id, and have the feed exactly', async () => {
    const start = await append();
    const step = fc.oneof(
      fc.record({ append: fc.integer({ min: 1, max: 30 }) }),
      fc.record({ cut: fc.nat(3) }),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 4, maxLength: 10 }), async (steps) => {
        const after = (await feedIds(redis)).at(-1) ?? start;
        const people = await Promise.all(
          Array.from({ length: 4 }, async () => {
            const person = { ids: [] as string[], last: after, socket: undefined as AdminSocket | undefined };
            const come = async () => {
              const socket = await connect();
              person.socket = socket;
              socket.on('events', (events) => {
                // What arrives on a connection that was given up is not seen
                if (person.socket !== socket) return;
                person.ids.push(...events.map(({ id }) => id));
                person.last = person.ids.at(-1) ?? person.last;
              });
              await subscribe(socket, { after: person.last });
            };
            await come();
            return { person, come };
          }),
        );
        const producers: Promise<unknown>[] = [];
        for (const one of steps) {
          if ('append' in one)
            producers.push(Promise.all(Array.from({ length: one.append }, () => append())));
          else {
            const { person, come } = people[one.cut]!;
            person.socket?.close();
            await come();
          }
        }
        await Promise.all(producers);
        const ids = await feedIds(redis);
        const expected = ids.slice(ids.indexOf(after) + 1);
        for (const { person } of people) await eventually(() => expect(person.ids).toEqual(expected));
        for (const socket of open.splice(0)) socket.close();
      }),
      { numRuns: 8 },
    );
  }, 60_000);

  test('R7.5 of a client that reads no more hardly anything waits here, and it misses nothing', async () => {
    const socket = await connect();
    const seen = seenBy(socket);
    await subscribe(socket);
    const first = await append();
    await eventually(() => expect(idsOf(seen)).toEqual([first]));
    const gateway = system.broker.getLocalService('gateway') as Service & { io: Server };
    const { conn } = gateway.io.of('/admin').sockets.get(socket.id ?? '')!;
    const { ws } = socket.io.engine.transport as unknown as { ws: { _socket: NodeSocket } };
    ws._socket.pause();
    for (let n = 0; n < 15; n++) {
      const pipeline = redis.pipeline();
      for (let m = 0; m < 100; m++)
        pipeline.xadd(
          feedKeys.stream,
          '*',
          'kind',
          'a',
          'data',
          JSON.stringify({ note: 'x'.repeat(10_000) }),
        );
      await pipeline.exec();
    }
    const ids = await feedIds(redis);
    // More than the kernel takes
    await eventually(() => expect(conn.transport.writable).toBe(false));
    expect((Reflect.get(conn, 'writeBuffer') as unknown[]).length).toBeLessThanOrEqual(2);
    ws._socket.resume();
    await eventually(() => expect(idsOf(seen)).toEqual(ids.slice(ids.indexOf(first))), 10_000);
  }, 20_000);

  test('R3.5 a storm is a digest and the newest, and the list has all of it', async () => {
    const socket = await connect();
    const seen = seenBy(socket);
    const { cursor } = await subscribe(socket);
    // A storm is what comes live, and not what is caught up with: the reader waits for it
    await eventually(async () => expect(await redis.client('LIST')).toMatch(/flags=\w*b\w* .*cmd=xread/));
    const pipeline = redis.pipeline();
    for (let n = 0; n < 5000; n++)
      pipeline.xadd(
        feedKeys.stream,
        '*',
        'kind',
        'sos.triggered',
        'at',
        Date.now(),
        'data',
        `{"alertId":"sos_${n}"}`,
      );
    await pipeline.exec();
    await eventually(() => expect(seen.events.at(-1)?.data).toEqual({ alertId: 'sos_4999' }));
    const counted = seen.digests.reduce((sum, { counts }) => sum + (counts['sos.triggered'] ?? 0), 0);
    expect(seen.digests.length).toBeGreaterThan(0);
    expect(counted + seen.events.length).toBe(5000);
    let [next, total] = [cursor as string, 0];
    for (let page = 0; page < 6; page++) {
      const { body } = await request(system, 'GET', `/api/v1/admin/events?after=${next}&limit=1000`, admin);
      total += body.events.length;
      next = body.next;
    }
    expect(total).toBe(5000);
  });
});

describe('GET /admin/events', () => {
  const list = async (query = '') =>
    (await request(system, 'GET', `/api/v1/admin/events${query}`, admin)).body;

  test('the newest without `after`; then page by page, also what comes later', async () => {
    const ids = [await append('a'), await append('b', { x: 1 }), await append('c')];
    const newest = await list('?limit=2');
    expect(newest.events.map(({ id }: DeliveredEvent) => id)).toEqual(ids.slice(1));
    expect(newest.events[0]).toEqual({
      id: ids[1],
      kind: 'b',
      at: expect.stringMatching(/^\d{4}-.*Z$/),
      data: { x: 1 },
    });
    const next = await list(`?after=${ids[0]}&limit=1`);
    expect(next).toMatchObject({ next: ids[1], resync: false });
    const end = await list(`?after=${ids[2]}`);
    expect(end).toEqual({ events: [], next: ids[2], resync: false });
    const later = await append('d');
    expect((await list(`?after=${end.next}`)).events).toEqual([expect.objectContaining({ id: later })]);
  });

  test('says so when what comes after `after` is no longer kept', async () => {
    const old = await append();
    for (let n = 0; n < 5; n++) await append();
    await redis.xtrim(feedKeys.stream, 'MAXLEN', 2);
    const kept = await feedIds(redis);
    for (const after of [old, '0', '99999999999999-1']) {
      const answer = await list(`?after=${after}`);
      expect([after, answer.resync]).toEqual([after, true]);
      expect(answer.events.map(({ id }: DeliveredEvent) => id)).toEqual(kept);
    }
  });
});

describe('GET /admin/events/stream', () => {
  const openStreams: AbortController[] = [];
  afterEach(() => {
    for (const controller of openStreams.splice(0)) controller.abort();
  });

  /** A client of server-sent events that keeps what it got. */
  async function stream(token: string, headers: Record<string, string> = {}) {
    const controller = new AbortController();
    openStreams.push(controller);
    const response = await fetch(`${system.apiUrl}/api/v1/admin/events/stream`, {
      headers: { authorization: `Bearer ${token}`, ...headers },
      signal: controller.signal,
    });
    const got = { response, text: '', ended: false };
    const read = async () => {
      for await (const chunk of response.body ?? []) got.text += Buffer.from(chunk).toString();
      got.ended = true;
    };
    read().catch(() => undefined);
    const events = () =>
      got.text.split('\n\n').flatMap((block) => {
        const data = /^data: (.*)$/m.exec(block)?.[1];
        return data
          ? [
              {
                id: /^id: (.*)$/m.exec(block)?.[1],
                event: /^event: (.*)$/m.exec(block)?.[1],
                data: JSON.parse(data),
              },
            ]
          : [];
      });
    return { got, response, events };
  }

  test('P9 goes on after Last-Event-ID, each event with its id', async () => {
    const ids = [await append('a'), await append('b'), await append('c', { x: 1 })];
    const { response, events } = await stream(admin.token, { 'last-event-id': ids[0] ?? '' });
    expect(response.status).toBe(200);
    expect(response.headers.get('content-type')).toBe('text/event-stream; charset=utf-8');
    await eventually(() => expect(events().map(({ id }) => id)).toEqual(ids.slice(1)));
    ids.push(await append('d'));
    await eventually(() => expect(events().map(({ id }) => id)).toEqual(ids.slice(1)));
    expect(events()[1]).toEqual({
      id: ids[2],
      event: undefined,
      data: { id: ids[2], kind: 'c', at: expect.any(String), data: { x: 1 } },
    });
  });

  test('without an id only what comes', async () => {
    await append('before');
    const { events } = await stream(admin.token);
    const id = await append('after');
    await eventually(() => expect(events().map((event) => event.id)).toEqual([id]));
  });

  test('is for admins, and wants an id that is one', async () => {
    const path = '/api/v1/admin/events/stream';
    expect((await request(system, 'GET', path)).body.error.code).toBe('UNAUTHENTICATED');
    expect((await request(system, 'GET', path, { token: await tokenOf('rider') })).body.error.code).toBe(
      'FORBIDDEN',
    );
    const bad = await request(system, 'GET', path, { token: admin.token, headers: { 'last-event-id': 'x' } });
    expect([bad.status, bad.body.error.code]).toEqual([400, 'VALIDATION']);
  });

  test('ends with its session', async () => {
    const [one, other] = await Promise.all([
      stream(await tokenOf('viewer', 'usr_leaves')),
      stream(await tokenOf('viewer', 'usr_stays')),
    ]);
    await system.broker.broadcast('session.revoked', { userId: 'usr_leaves', sessionId: null });
    await eventually(() => expect(one.got.ended).toBe(true));
    const id = await append();
    await eventually(() => expect(other.events().map((event) => event.id)).toEqual([id]));
  });
});

describe('with the rest away', () => {
  test('R3.5 an admin who is connected goes on without the main Redis, the broker’s services or the DB', async () => {
    const socket = await connect();
    const seen = seenBy(socket);
    await subscribe(socket);
    for (const name of ['trips', 'accounts', 'location', 'admin']) {
      const service = system.broker.getLocalService(name);
      if (service) await system.broker.destroyService(service);
    }
    await mainRedis.halt();
    const first = await append('sos.triggered', { alertId: 'sos_9' });
    await eventually(() => expect(idsOf(seen)).toEqual([first]));
    const { shares } = system.broker.getLocalService('gateway') as Service & { shares: Shares };
    const link = await shares.create({ userId: 'usr_a', tripId: 'trp_a', alertId: 'sos_9', ttlMs: 60_000 });
    const contact = await connectShare(system, link.token);
    expect(contact.connected).toBe(true);
    contact.close();
    await subscribe(socket, { kinds: ['sos.updated'] });
    const second = await append('sos.updated', { alertId: 'sos_9' });
    await eventually(() => expect(idsOf(seen)).toEqual([first, second]));
    expect(socket.connected).toBe(true);
    await mainRedis.resume();
  });

  test('P9 the feed’s Redis goes and comes: it goes on from the last event', async () => {
    const socket = await connect();
    const seen = seenBy(socket);
    const first = await append();
    await subscribe(socket, { after: first });
    const ids = [await append()];
    await eventually(() => expect(idsOf(seen)).toEqual(ids));
    await sosRedis.halt();
    await sosRedis.resume();
    await eventually(() => redis.ping());
    ids.push(await append(), await append());
    await eventually(() => expect(idsOf(seen)).toEqual(ids));
    expect(seen.resyncs).toEqual([]);
  });

  test('a drain tells admins and streams, and lets them go', async () => {
    const other = await startSystem({
      env: { REDIS_URL: mainRedis.url, SOS_REDIS_URL: sosRedis.url },
    });
    const socket = await connectAdmin(other, await tokenOf('viewer'));
    open.push(socket);
    const drained = new Promise((resolve) => socket.once('server:drain', resolve));
    const gone = closed(socket);
    const response = await fetch(`${other.apiUrl}/api/v1/admin/events/stream`, {
      headers: { authorization: `Bearer ${await tokenOf('viewer')}` },
    });
    const text = response.text();
    await other.stop();
    expect(await drained).toEqual({ reconnectInMs: expect.any(Number) });
    await gone;
    expect(await text).toContain('retry: 1000');
  });
});
