import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { Redis } from 'ioredis';
import type { Service } from 'moleculer';
import type { Server } from 'socket.io';
import type { Socket } from 'socket.io-client';
import type { Update } from '../../contracts/location.ts';
import type { Sessions } from '../../mixins/sessions.ts';
import {
  activeTrip,
  aracaju,
  bookTrip,
  type ClientSocket,
  connectSocket,
  request,
  signIn,
  signInDriver,
  type User,
} from '../support/clients.ts';
import { eventually } from '../support/eventually.ts';
import { heapUsed } from '../support/heap.ts';
import { type System, startSystem } from '../support/system.ts';

type Ride = Awaited<ReturnType<typeof activeTrip>>;

let system: System;
let redis: Redis;
let admin: User;
let stranger: User;
/** Active for all tests; each test sends its own timestamps. */
let rides: [Ride, Ride, Ride, Ride];
const open: ClientSocket[] = [];

beforeAll(async () => {
  system = await startSystem({ env: { RATE_LIMIT_PER_USER: '100000', SOCKET_MAX_ROOMS: '3' } });
  redis = new Redis({ path: system.config.redisUrl ?? '', disconnectTimeout: 50 });
  admin = await signIn(system, '+919800000000');
  stranger = await signIn(system);
  const made: Ride[] = [];
  for (let n = 0; n < 4; n++) made.push(await activeTrip(system));
  rides = made as typeof rides;
}, 30_000);
afterEach(() => {
  for (const socket of open.splice(0)) socket.close();
});
afterAll(async () => {
  redis.disconnect();
  await system.stop();
});

async function connect(user: Pick<User, 'token'>): Promise<ClientSocket> {
  const socket = await connectSocket(system, user.token);
  open.push(socket);
  return socket;
}

/** Sends anything, also what the types forbid. */
const ask = (socket: ClientSocket, event: string, ...args: unknown[]) =>
  (socket as unknown as Socket).timeout(5000).emitWithAck(event, ...args);

const refusal = (code: string) => ({
  ok: false,
  error: expect.objectContaining({ code, message: expect.any(String) }),
});

const report = (tripId: string, over: object = {}) => ({
  tripId,
  ...aracaju,
  accuracy: 8,
  speed: 9,
  heading: 120,
  timestamp: Date.now(),
  ...over,
});

/** What a socket is sent from now on. */
function locationsOf(socket: ClientSocket): Update[] {
  const seen: Update[] = [];
  socket.on('location', (update) => seen.push(update));
  return seen;
}

const closed = (socket: ClientSocket) => new Promise((resolve) => socket.once('disconnect', resolve));

/** The sum of a metric over all its lines whose labels hold `labels`. */
async function metric(name: string, ...labels: string[]): Promise<number> {
  const text = await (await fetch(`${system.metricsUrl}/metrics`)).text();
  const lines = text.split('\n').filter((line) => line.startsWith(`${name}{`));
  return lines
    .filter((line) => labels.every((label) => line.includes(label)))
    .reduce((sum, line) => sum + Number(line.split('} ')[1]?.split(' ')[0]), 0);
}

describe('the handshake', () => {
  test.each<[string, () => Promise<string | undefined>]>([
    ['no token', async () => undefined],
    ['an empty token', async () => ''],
    ['something else', async () => 'v1.usr_a.b.c'],
    ['a forged one', async () => stranger.token.replace(stranger.id, admin.id)],
    [
      'one that has ended',
      async () => {
        const { token } = await signIn(system);
        await request(system, 'POST', '/api/v1/auth/logout', { token });
        return token;
      },
    ],
  ])('with %s is refused with a code', async (_, token) => {
    const { sessions } = system.broker.getLocalService('gateway') as unknown as { sessions: Sessions };
    const admit = sessions.admit.bind(sessions);
    // Who cannot be looked up in 50 ms is let in for an SOS alone; here Redis has the time that a busy machine needs
    sessions.admit = async (made) => {
      let admitted = await admit(made);
      for (let n = 0; n < 60 && admitted.standing === 'unknown'; n++) admitted = await admit(made);
      return admitted;
    };
    try {
      await expect(connectSocket(system, await token())).rejects.toMatchObject({
        data: { code: 'UNAUTHENTICATED', message: expect.any(String) },
      });
    } finally {
      sessions.admit = admit;
    }
  });

  test('a session is known though this process was busy when Redis said so', async () => {
    const { sessions } = system.broker.getLocalService('gateway') as unknown as { sessions: Sessions };
    const admitted = sessions.admit(stranger.token);
    for (const until = performance.now() + 200; performance.now() < until; );
    expect(await admitted).toMatchObject({ id: stranger.id, standing: 'live' });
  });

  test('from a foreign origin is refused, from this machine or from an app it is not', async () => {
    const poll = (headers: Record<string, string>) =>
      fetch(`${system.socketUrl}/socket.io/?EIO=4&transport=polling`, { headers });
    const foreign = await poll({ origin: 'https://evil.example' });
    expect([foreign.status, await foreign.json()]).toEqual([403, { code: 4, message: 'ORIGIN_REFUSED' }]);
    expect((await poll({ origin: 'http://localhost.evil.example' })).status).toBe(403);
    expect((await poll({ origin: 'http://localhost:5173' })).status).toBe(200);
    expect((await poll({})).status).toBe(200);
  });
});

describe('who may watch a trip', () => {
  test('R2.5 its rider, its driver and admins join; nobody else does', async () => {
    const [{ tripId, rider, driver }, other] = rides;
    for (const user of [rider, driver, admin])
      expect(await ask(await connect(user), 'trip:join', { tripId })).toMatchObject({ ok: true });
    for (const user of [stranger, other.rider, other.driver])
      expect(await ask(await connect(user), 'trip:join', { tripId })).toEqual(refusal('TRIP_FORBIDDEN'));
  });

  test('R2.5 who was refused gets nothing of the trip', async () => {
    const [{ tripId, rider, driver }] = rides;
    const [watching, refused, driving] = [
      await connect(rider),
      await connect(stranger),
      await connect(driver),
    ];
    const [seen, unseen] = [locationsOf(watching), locationsOf(refused)];
    await ask(watching, 'trip:join', { tripId });
    await ask(refused, 'trip:join', { tripId });
    await ask(driving, 'location:update', report(tripId));
    await eventually(() => expect(seen).toHaveLength(1));
    // Its own next answer comes after anything that was sent to it
    await ask(refused, 'trip:leave', { tripId });
    expect(unseen).toEqual([]);
  });

  test('R2.5 an unknown trip, and what cannot be an id', async () => {
    const socket = await connect(admin);
    expect(await ask(socket, 'trip:join', { tripId: 'trp_unknown' })).toEqual(refusal('TRIP_NOT_FOUND'));
    for (const tripId of [`user:${admin.id}`, '', 'x'.repeat(65), 7, null, undefined, { $ne: '' }])
      expect(await ask(socket, 'trip:join', { tripId })).toEqual(refusal('VALIDATION'));
  });

  test('R2.5 a booking that nobody has accepted is no trip yet', async () => {
    const rider = await signIn(system);
    const tripId = (await bookTrip(system, rider)).replace('bkg_', 'trp_');
    expect(await ask(await connect(rider), 'trip:join', { tripId })).toEqual(refusal('TRIP_NOT_FOUND'));
  });

  test('+ a session that could not be looked up in time is looked up when the socket asks for something', async () => {
    const { sessions } = system.broker.getLocalService('gateway') as unknown as { sessions: Sessions };
    const admit = sessions.admit.bind(sessions);
    sessions.admit = async (token) => ({ ...(await admit(token)), standing: 'unknown' });
    try {
      const socket = await connect(admin);
      const asked = rides.slice(0, 3).map(({ tripId }) => ask(socket, 'trip:join', { tripId }));
      for (const answer of await Promise.all(asked)) expect(answer).toMatchObject({ ok: true });
    } finally {
      sessions.admit = admit;
    }
  });

  test('a connection watches only so many trips; leaving one makes room', async () => {
    const socket = await connect(admin);
    const [a, b, c, d] = rides.map(({ tripId }) => ({ tripId }));
    for (const trip of [a, b, c]) expect(await ask(socket, 'trip:join', trip)).toMatchObject({ ok: true });
    expect(await ask(socket, 'trip:join', d)).toEqual(refusal('TOO_MANY_ROOMS'));
    expect(await ask(socket, 'trip:join', a)).toMatchObject({ ok: true });
    expect(await ask(socket, 'trip:leave', b)).toEqual({ ok: true });
    expect(await ask(socket, 'trip:join', d)).toMatchObject({ ok: true });
  });
});

describe('updates', () => {
  test("R2.5 reach their own trip's room only", async () => {
    const [one, two] = rides;
    const sockets = await Promise.all([one.rider, two.rider, one.driver, two.driver].map(connect));
    const [watchingOne, watchingTwo, drivingOne, drivingTwo] = sockets as [
      ClientSocket,
      ClientSocket,
      ClientSocket,
      ClientSocket,
    ];
    const [seenOne, seenTwo] = [locationsOf(watchingOne), locationsOf(watchingTwo)];
    await ask(watchingOne, 'trip:join', { tripId: one.tripId });
    await ask(watchingTwo, 'trip:join', { tripId: two.tripId });
    for (let n = 1; n <= 3; n++) {
      const [first, second] = [report(one.tripId), report(two.tripId)];
      expect(await ask(drivingOne, 'location:update', first)).toEqual({ ok: true });
      expect(await ask(drivingTwo, 'location:update', second)).toEqual({ ok: true });
      await eventually(() => expect([seenOne.length, seenTwo.length]).toEqual([n, n]));
      expect(seenOne.at(-1)).toEqual({ ...first, userId: one.driver.id, at: expect.any(Number) });
      expect(seenTwo.at(-1)).toEqual({ ...second, userId: two.driver.id, at: expect.any(Number) });
    }
  });

  test('R1.2 join with `after` gives what was missed, and the last', async () => {
    const { tripId, rider, driver } = await activeTrip(system);
    const [watching, driving] = [await connect(rider), await connect(driver)];
    const seen = locationsOf(watching);
    expect(await ask(watching, 'trip:join', { tripId, after: 0 })).toEqual({
      ok: true,
      last: null,
      missed: [],
    });
    for (let n = 1; n <= 3; n++) {
      expect(await ask(driving, 'location:update', report(tripId))).toEqual({ ok: true });
      await eventually(() => expect(seen).toHaveLength(n));
    }
    const [first, second, third] = seen;
    expect(second?.at).toBeGreaterThan(first?.at ?? Number.NaN);
    const back = await connect(rider);
    expect(await ask(back, 'trip:join', { tripId, after: second?.at })).toEqual({
      ok: true,
      last: third,
      missed: [second, third],
    });
    expect(await ask(back, 'trip:join', { tripId })).toEqual({ ok: true, last: third, missed: [] });
  });

  test('after trip:leave nothing more comes', async () => {
    const [{ tripId, rider, driver }] = rides;
    const [leaving, staying, driving] = [await connect(rider), await connect(rider), await connect(driver)];
    const [unseen, seen] = [locationsOf(leaving), locationsOf(staying)];
    for (const socket of [leaving, staying]) await ask(socket, 'trip:join', { tripId });
    await ask(leaving, 'trip:leave', { tripId });
    await ask(driving, 'location:update', report(tripId));
    await eventually(() => expect(seen).toHaveLength(1));
    await ask(leaving, 'trip:leave', { tripId });
    expect(unseen).toEqual([]);
  });

  test('R2 location:batch is answered with what was accepted and what was not', async () => {
    const { tripId, driver, rider } = await activeTrip(system);
    const { tripId: _, ...point } = report(tripId);
    const driving = await connect(driver);
    const updates = [point, { ...point, lat: 91 }, { ...point, timestamp: point.timestamp - 5000 }];
    expect(await ask(driving, 'location:batch', { tripId, updates })).toEqual({
      ok: true,
      accepted: 2,
      rejected: [{ index: 1, code: 'LOCATION_INVALID' }],
    });
    // Answered means that it is there
    const track = await request(system, 'GET', `/api/v1/trips/${tripId}/track`, { token: rider.token });
    expect(track.body.properties.times).toEqual([point.timestamp - 5000, point.timestamp]);
    expect(await ask(await connect(rider), 'location:batch', { tripId, updates })).toEqual(
      refusal('LOCATION_NOT_DRIVER'),
    );
    expect(await ask(await connect(stranger), 'location:batch', { tripId, updates })).toEqual(
      refusal('TRIP_FORBIDDEN'),
    );
    for (const bad of [[], 'x', Array.from({ length: 1001 }, () => 1)])
      expect(await ask(driving, 'location:batch', { tripId, updates: bad })).toEqual(refusal('VALIDATION'));
  });
});

describe('refused updates', () => {
  test.each<[string, object]>([
    ['lat 91', { lat: 91 }],
    ['lng -180.1', { lng: -180.1 }],
    // JSON makes null of it
    ['NaN', { lat: Number.NaN }],
    ['Infinity', { lng: Number.POSITIVE_INFINITY }],
    ['a string for a number', { lat: '12.9' }],
    ['no accuracy', { accuracy: undefined }],
    ['a negative accuracy', { accuracy: -1 }],
    ['no timestamp', { timestamp: undefined }],
    ['a timestamp with a fraction', { timestamp: 1.5 }],
    ['a heading of 361', { heading: 361 }],
    ['no trip', { tripId: undefined }],
  ])('R2 %s is LOCATION_INVALID and names the field', async (_, over) => {
    const [{ tripId, driver }] = rides;
    const answer = await ask(await connect(driver), 'location:update', report(tripId, over));
    expect(answer).toEqual(refusal('LOCATION_INVALID'));
    expect(answer.error.fields).toEqual([{ path: Object.keys(over)[0], message: expect.any(String) }]);
  });

  test('R2 a timestamp may run ahead by 60 s, not more', async () => {
    const { tripId, driver } = await activeTrip(system);
    const socket = await connect(driver);
    const ahead = (ms: number) =>
      ask(socket, 'location:update', report(tripId, { timestamp: Date.now() + ms }));
    expect(await ahead(65_000)).toEqual(refusal('LOCATION_AHEAD'));
    expect(await ahead(55_000)).toEqual({ ok: true });
  });

  test('R2.3 a phone whose clock runs an hour behind is followed, also when it is set right', async () => {
    const { tripId, rider, driver } = await activeTrip(system);
    const [watching, driving] = [await connect(rider), await connect(driver)];
    const seen = locationsOf(watching);
    await ask(watching, 'trip:join', { tripId });
    const anHour = 3_600_000;
    for (const [index, ms] of [-anHour, 5000 - anHour, 10_000].entries()) {
      const update = report(tripId, { timestamp: Date.now() + ms });
      expect(await ask(driving, 'location:update', update)).toEqual({ ok: true });
      await eventually(() => expect(seen).toHaveLength(index + 1));
      expect(seen.at(-1)?.timestamp).toBe(update.timestamp);
      // The server's time, whatever the phone thinks
      expect(Math.abs(Date.now() - (seen.at(-1)?.at ?? 0))).toBeLessThan(10_000);
    }
  });

  test('R2.3 of a phone whose clock ran ahead what comes later with an earlier time counts as late', async () => {
    const { tripId, rider, driver } = await activeTrip(system);
    const [watching, driving] = [await connect(rider), await connect(driver)];
    const seen = locationsOf(watching);
    await ask(watching, 'trip:join', { tripId });
    const late = () => metric('location_updates_total', 'outcome="late"');
    const before = await late();
    const base = Date.now();
    const send = (ms: number) => ask(driving, 'location:update', report(tripId, { timestamp: base + ms }));
    expect(await send(50_000)).toEqual({ ok: true });
    await eventually(() => expect(seen).toHaveLength(1));
    // Set right: no more than the minute by which clocks may run ahead
    expect(await send(5000)).toEqual({ ok: true });
    await eventually(async () => expect(await late()).toBe(before + 1));
    expect(await send(55_000)).toEqual({ ok: true });
    await eventually(() => expect(seen.map(({ timestamp }) => timestamp - base)).toEqual([50_000, 55_000]));
  });

  test('R2.5 a driver who sends for another’s trip: one by one, as a backlog, by REST; counted, and nothing arrives', async () => {
    const { tripId, rider, driver } = await activeTrip(system);
    const [watching, other] = [await connect(rider), await connect(rides[0].driver)];
    const seen = locationsOf(watching);
    await ask(watching, 'trip:join', { tripId });
    const count = (event: string, code: string) =>
      metric('gateway_refused_total', `event="${event}"`, `code="${code}"`);
    const before = [
      await count('location:update', 'LOCATION_NOT_DRIVER'),
      await count('location:batch', 'TRIP_FORBIDDEN'),
    ];
    const { tripId: _, ...point } = report(tripId, { lat: 1, lng: 1 });
    expect(await ask(other, 'location:update', { ...point, tripId })).toEqual(refusal('LOCATION_NOT_DRIVER'));
    expect(await ask(other, 'location:batch', { tripId, updates: [point] })).toEqual(
      refusal('TRIP_FORBIDDEN'),
    );
    const { token } = rides[0].driver;
    const path = `/api/v1/trips/${tripId}/locations`;
    const backlog = await request(system, 'POST', path, { token, body: { updates: [point] } });
    expect([backlog.status, backlog.body.error.code]).toEqual([403, 'TRIP_FORBIDDEN']);
    expect([
      await count('location:update', 'LOCATION_NOT_DRIVER'),
      await count('location:batch', 'TRIP_FORBIDDEN'),
    ]).toEqual(before.map((each) => each + 1));
    // The right one's comes after whatever might have
    const right = report(tripId);
    expect(await ask(await connect(driver), 'location:update', right)).toEqual({ ok: true });
    await eventually(() => expect(seen.map(({ lat }) => lat)).toEqual([right.lat]));
  });

  test('R2.5 someone who is not its driver: the rider, a stranger, an admin, another driver', async () => {
    const [{ tripId, rider }, other] = rides;
    for (const user of [rider, stranger, admin, other.driver])
      expect(await ask(await connect(user), 'location:update', report(tripId))).toEqual(
        refusal('LOCATION_NOT_DRIVER'),
      );
  });

  test('R2 a trip that has not started; once it has, the same socket may report', async () => {
    const [rider, driver] = [await signIn(system), await signInDriver(system)];
    const bookingId = await bookTrip(system, rider);
    const { token } = driver;
    const accepted = await request(system, 'POST', `/api/v1/bookings/${bookingId}/accept`, { token });
    const tripId: string = accepted.body.id;
    const socket = await connect(driver);
    expect(await ask(socket, 'location:update', report(tripId))).toEqual(refusal('LOCATION_TRIP_NOT_ACTIVE'));
    await request(system, 'POST', `/api/v1/trips/${tripId}/start`, { token });
    expect(await ask(socket, 'location:update', report(tripId))).toEqual({ ok: true });
  });

  test('R2 a jump; three that agree are refused, then the new place is believed', async () => {
    const { tripId, driver } = await activeTrip(system);
    const socket = await connect(driver);
    const base = Date.now() - 60_000;
    const at = (seconds: number, lat: number) =>
      ask(socket, 'location:update', report(tripId, { lat, timestamp: base + seconds * 1000 }));
    expect(await at(0, 10)).toEqual({ ok: true });
    for (const seconds of [5, 10, 15]) expect(await at(seconds, 11)).toEqual(refusal('LOCATION_JUMP'));
    expect(await at(20, 11)).toEqual({ ok: true });
  });

  test('R2 after a reconnect the jump is judged from the last accepted point', async () => {
    const { tripId, rider, driver } = await activeTrip(system);
    const watching = await connect(rider);
    const seen = locationsOf(watching);
    await ask(watching, 'trip:join', { tripId });
    const first = await connect(driver);
    expect(await ask(first, 'location:update', report(tripId))).toEqual({ ok: true });
    await eventually(() => expect(seen).toHaveLength(1));
    first.close();
    const second = await connect(driver);
    const far = report(tripId, { lat: aracaju.lat + 1 });
    expect(await ask(second, 'location:update', far)).toEqual(refusal('LOCATION_JUMP'));
    expect(await ask(second, 'location:update', report(tripId))).toEqual({ ok: true });
  });

  test('R2 without an acknowledgement a location:refused event tells which one and why', async () => {
    const [{ tripId, driver }] = rides;
    const socket = await connect(driver);
    const refused = new Promise((resolve) => socket.once('location:refused', resolve));
    const bad = report(tripId, { lat: 91 });
    socket.emit('location:update', bad);
    expect(await refused).toEqual({
      tripId,
      timestamp: bad.timestamp,
      error: expect.objectContaining({ code: 'LOCATION_INVALID' }),
    });
  });

  test('R2 are counted by code', async () => {
    const [{ tripId, driver }] = rides;
    const labels = ['event="location:update"', 'code="LOCATION_INVALID"'];
    const before = await metric('gateway_refused_total', ...labels);
    const socket = await connect(driver);
    for (let n = 0; n < 3; n++) await ask(socket, 'location:update', report(tripId, { lat: 91 }));
    expect(await metric('gateway_refused_total', ...labels)).toBe(before + 3);
  });
});

describe('what a client may send', () => {
  test('an unknown event, also one named like a property of objects', async () => {
    const socket = await connect(stranger);
    for (const event of ['call', 'no:such', '__proto__', 'constructor', 'toString'])
      expect(await ask(socket, event, {})).toEqual(refusal('UNKNOWN_EVENT'));
  });

  test('payloads of other types are refused, and the socket lives', async () => {
    const socket = await connect(stranger);
    for (const payload of [null, 7, 'text', [], [[]], true, Buffer.from('x')]) {
      expect(await ask(socket, 'trip:join', payload)).toEqual(refusal('VALIDATION'));
      expect(await ask(socket, 'location:update', payload)).toEqual(refusal('LOCATION_INVALID'));
    }
    expect(await ask(socket, 'trip:join')).toEqual(refusal('VALIDATION'));
    expect(await ask(socket, 'trip:leave', { tripId: 'trp_1' })).toEqual({ ok: true });
  });

  test('keys that change prototypes, and bottomless nesting, are refused', async () => {
    const socket = await connect(stranger);
    const hostile: unknown = JSON.parse('{"tripId":"trp_1","__proto__":{"polluted":true}}');
    expect(await ask(socket, 'trip:join', hostile)).toEqual(refusal('VALIDATION'));
    let deep: object = {};
    for (let n = 0; n < 50; n++) deep = { deep };
    expect(await ask(socket, 'trip:leave', { tripId: 'trp_1', deep })).toEqual(refusal('VALIDATION'));
    expect(Object.hasOwn(Object.prototype, 'polluted')).toBe(false);
  });

  test('a megabyte is too large, and the socket lives', async () => {
    const socket = await connect(stranger);
    const pad = 'x'.repeat(1_000_000);
    expect(await ask(socket, 'trip:leave', { tripId: 'trp_1', pad })).toEqual(refusal('PAYLOAD_TOO_LARGE'));
    expect(await ask(socket, 'trip:leave', { tripId: 'trp_1' })).toEqual({ ok: true });
  });

  test('bursts of 100 pass, what is beyond is refused for a second', async () => {
    const socket = await connect(stranger);
    const begun = performance.now();
    const answers = await Promise.all(
      Array.from({ length: 200 }, () => ask(socket, 'trip:leave', { tripId: 'trp_1' })),
    );
    const seconds = (performance.now() - begun) / 1000;
    const passed = answers.filter((answer) => answer.ok).length;
    expect(passed).toBeGreaterThanOrEqual(100);
    expect(passed).toBeLessThanOrEqual(100 + 50 * seconds + 1);
    expect(answers.slice(0, 100).every((answer) => answer.ok)).toBe(true);
    const refused = answers.find((answer) => !answer.ok);
    expect(refused).toEqual(refusal('RATE_LIMITED'));
    expect(refused.error.retryAfterS).toBe(1);
    await eventually(async () =>
      expect(await ask(socket, 'trip:leave', { tripId: 'trp_1' })).toEqual({ ok: true }),
    );
  });
});

describe('a socket that sends far too much', () => {
  /** Sends so many at once; `answers` grows, `all` resolves when each has been answered. */
  function flood(socket: ClientSocket, event: string, payloads: object[]) {
    const answers: { ok: boolean; error?: { code: string } }[] = [];
    const all = Promise.all(
      payloads.map(async (payload) => {
        answers.push(await (socket as unknown as Socket).emitWithAck(event, payload));
      }),
    );
    return { answers, all };
  }

  test('R2 1,000 updates at once: what is beyond the limit is refused and counted, others notice nothing', async () => {
    const [one, two] = rides;
    const socket = await connect(one.driver);
    const [watching, driving] = [await connect(two.rider), await connect(two.driver)];
    const seen = locationsOf(watching);
    await ask(watching, 'trip:join', { tripId: two.tripId });
    await ask(driving, 'location:update', report(two.tripId));
    const limited = () => metric('gateway_refused_total', 'event="location:update"', 'code="RATE_LIMITED"');
    const before = await limited();

    const base = Date.now();
    const updates = Array.from({ length: 1000 }, (_, n) => report(one.tripId, { timestamp: base + n }));
    const { answers, all } = flood(socket, 'location:update', updates);
    const beside = report(two.tripId);
    expect(await ask(driving, 'location:update', beside)).toEqual({ ok: true });
    // It did not wait for what was sent before it
    expect(answers.length).toBeLessThan(1000);
    await eventually(() => expect(seen.at(-1)?.timestamp).toBe(beside.timestamp));
    await all;
    const refused = answers.filter(({ ok }) => !ok);
    expect(refused.length).toBeGreaterThan(500);
    for (const answer of refused) expect(answer).toEqual(refusal('RATE_LIMITED'));
    expect(await limited()).toBe(before + refused.length);
  }, 30_000);

  test('R2.5 10,000 joins: each is answered, none is let in beyond the limit, and memory stays as it was', async () => {
    const [socket, other] = [await connect(admin), await connect(rides[0].rider)];
    const ids = [...rides.map(({ tripId }) => tripId), 'trp_unknown', `user:${admin.id}`];
    const joins = (count: number) =>
      flood(
        socket,
        'trip:join',
        Array.from({ length: count }, (_, n) => ({ tripId: ids[n % ids.length] })),
      );
    await joins(1000).all;
    const before = await heapUsed();
    const { answers, all } = joins(10_000);
    expect(await ask(other, 'trip:join', { tripId: rides[0].tripId })).toMatchObject({ ok: true });
    expect(answers.length).toBeLessThan(10_000);
    await all;
    const codes = answers.map(({ ok, error }) => (ok ? 'ok' : error?.code));
    answers.length = 0;
    expect(codes.filter((code) => !joinAnswers.has(code))).toEqual([]);
    expect(codes.filter((code) => code === 'RATE_LIMITED').length).toBeGreaterThan(5000);
    expect((await heapUsed()) - before).toBeLessThan(4 * 1024 * 1024);
    const gateway: Service & { io?: Server } = system.broker.getLocalService('gateway');
    const rooms = [...(gateway.io?.sockets.sockets.get(socket.id ?? '')?.rooms ?? [])];
    expect(rooms.filter((room) => room.startsWith('trip:'))).toHaveLength(3);
  }, 60_000);

  const joinAnswers = new Set<string | undefined>([
    'ok',
    'RATE_LIMITED',
    'TOO_MANY_ROOMS',
    'TRIP_NOT_FOUND',
    'VALIDATION',
  ]);
});

describe('the end of a trip', () => {
  test('R2 when `end` has answered no update counts, nobody is near, and watchers know', async () => {
    const { tripId, rider, driver } = await activeTrip(system);
    const place = { lat: 41.5, lng: 2.5 };
    const [watching, driving] = [await connect(rider), await connect(driver)];
    const changes: unknown[] = [];
    watching.on('trip', (change) => changes.push(change));
    const seen = locationsOf(watching);
    await ask(watching, 'trip:join', { tripId });
    await ask(driving, 'location:update', report(tripId, place));
    await eventually(() => expect(seen).toHaveLength(1));
    const nearby = async () => {
      const path = `/api/v1/trips/nearby?lat=${place.lat}&lng=${place.lng}&radiusM=500`;
      return (await request(system, 'GET', path, { token: driver.token })).body.trips;
    };
    expect(await nearby()).toEqual([expect.objectContaining({ tripId })]);

    await request(system, 'POST', `/api/v1/trips/${tripId}/end`, { token: driver.token });
    expect(await ask(driving, 'location:update', report(tripId, place))).toEqual(
      refusal('LOCATION_TRIP_NOT_ACTIVE'),
    );
    expect(await nearby()).toEqual([]);
    expect(await ask(await connect(rider), 'trip:join', { tripId })).toMatchObject({ ok: true, last: null });
    await eventually(() => expect(changes).toEqual([{ tripId, status: 'ended', at: expect.any(Number) }]));
    expect(seen).toHaveLength(1);
  });

  test('R2.5 nearby is for drivers and admins', async () => {
    const nearby = async ({ token }: User) =>
      (await request(system, 'GET', '/api/v1/trips/nearby?lat=1&lng=1', { token })).status;
    expect([await nearby(stranger), await nearby(rides[0].driver), await nearby(admin)]).toEqual([
      403, 200, 200,
    ]);
  });
});

describe('the end of a session', () => {
  /** A second device of the user. */
  const another = (user: User) => {
    const accounts: Service & { sessions?: Sessions } = system.broker.getLocalService('accounts');
    return accounts.sessions!.create(user.id, 'rider', 1);
  };

  test('logout cuts the sockets of that session, not those of another device', async () => {
    const user = await signIn(system);
    const [here, hereToo, there] = [
      await connect(user),
      await connect(user),
      await connect(await another(user)),
    ];
    const cut = Promise.all([closed(here), closed(hereToo)]);
    await request(system, 'POST', '/api/v1/auth/logout', { token: user.token });
    expect(await cut).toEqual(['io server disconnect', 'io server disconnect']);
    expect(await ask(there, 'trip:leave', { tripId: 'trp_1' })).toEqual({ ok: true });
  });

  test('logout-all cuts every socket of the user, and nobody else’s', async () => {
    const user = await signIn(system);
    const [here, there, theirs] = [
      await connect(user),
      await connect(await another(user)),
      await connect(stranger),
    ];
    const cut = Promise.all([closed(here), closed(there)]);
    await request(system, 'POST', '/api/v1/auth/logout-all', { token: user.token });
    expect(await cut).toHaveLength(2);
    expect(await ask(theirs, 'trip:leave', { tripId: 'trp_1' })).toEqual({ ok: true });
  });

  test('a session that vanished without a word is found by the sweep', async () => {
    const user = await signIn(system);
    const [socket, theirs] = [await connect(user), await connect(stranger)];
    const cut = closed(socket);
    await redis.del(`sessions:{${user.id}}`);
    // Makes its look-up due now, instead of in five minutes
    for (const { id } of [user, stranger]) await system.broker.emit('profile.changed', { userId: id });
    expect(await cut).toBe('io server disconnect');
    expect(await ask(theirs, 'trip:leave', { tripId: 'trp_1' })).toEqual({ ok: true });
  });
});

test('R1.4 connections are counted on their node, up and down', async () => {
  const node = `nodeID="${system.broker.nodeID}"`;
  // Nobody's socket is open, but what only polled once is kept for a while
  await eventually(async () => expect(await metric('moleculer_io_socket_active', node)).toBe(0));
  const before = await metric('gateway_connections', node);
  const sockets = await Promise.all(Array.from({ length: 5 }, () => connect(stranger)));
  expect(await metric('gateway_connections', node)).toBe(before + 5);
  for (const socket of sockets.slice(0, 2)) socket.close();
  await eventually(async () => expect(await metric('gateway_connections', node)).toBe(before + 3));
});
