/**
 * The attacker in the car: everything that a driver's phone is sent, and can ask for, over the same scripted ride, with and
 * without an SOS of the rider. Compared as wholes, with ids and times by name.
 */
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import {
  activeTrip,
  aracaju,
  type ClientSocket,
  connectShare,
  connectSocket,
  newPhone,
  request,
  signIn,
  type User,
} from '../support/clients.ts';
import { eventually } from '../support/eventually.ts';
import { startTestRedis, type TestRedis } from '../support/redis.ts';
import { type System, startSystem } from '../support/system.ts';

let system: System;
let sosRedis: TestRedis;
let admin: User;

beforeAll(async () => {
  sosRedis = await startTestRedis();
  system = await startSystem({
    env: { RATE_LIMIT_PER_USER: '100000', SOS_REDIS_URL: sosRedis.url, SOS_ESCALATE_AFTER_MS: '300' },
  });
  admin = await signIn(system, '+919800000000');
}, 30_000);
afterAll(async () => {
  await system?.stop();
  await sosRedis?.stop();
});

const api = (method: string, path: string, token: string, body?: unknown) =>
  request(system, method, `/api/v1${path}`, { token, body });

/** Headers whose values differ from answer to answer whatever happens. */
const changing = new Set(['date', 'content-length', 'x-request-id', 'etag']);

/** All that one ride shows its driver. */
interface Shown {
  heard: unknown[];
  answers: unknown[];
}

interface Ride {
  tripId: string;
  rider: User;
  driver: User;
  /** What the rider's app knows of the alert. */
  alertId: string;
}

/** What the rider does at each of the ride's three stops. */
type Script = ((ride: Ride) => Promise<void>)[];

const share = (answer: { status: number; headers: Headers; body: unknown }) => ({
  status: answer.status,
  headers: Object.fromEntries([...answer.headers].filter(([name]) => !changing.has(name))),
  body: answer.body,
});

async function recordRide(script: Script, stops = 3): Promise<{ shown: Shown; ride: Ride }> {
  const trip = await activeTrip(system);
  const { tripId, rider, driver } = trip;
  const contacts = [{ name: 'Ravi', phone: newPhone(), relation: 'friend' }];
  expect((await api('PUT', '/me/emergency-contacts', rider.token, { contacts })).status).toBe(200);
  expect((await api('PUT', '/me/pin', rider.token, { pin: '2468', duressPin: '8642' })).status).toBe(204);
  const current: Ride = { ...trip, alertId: 'sos_none' };
  const heard: [device: number, event: string, ...args: unknown[]][] = [];
  const positions = () => heard.filter(([, event]) => event === 'location');
  const answers: unknown[] = [];
  // Two devices, one of which has joined the trip twice
  const driving = await connectSocket(system, driver.token);
  const watching = await connectSocket(system, driver.token);
  const sockets: ClientSocket[] = [driving, watching];
  try {
    for (const [device, socket] of sockets.entries())
      socket.onAny((event: string, ...args: unknown[]) => heard.push([device, event, ...args]));
    const ask = async (socket: ClientSocket, event: string, payload: object) => {
      const emit = socket.emitWithAck.bind(socket) as (event: string, payload: object) => Promise<unknown>;
      answers.push([event, await emit(event, payload)]);
    };
    for (const socket of sockets) await ask(socket, 'trip:join', { tripId });
    const bookingId = (await api('GET', `/trips/${tripId}`, driver.token)).body.bookingId;
    for (let stop = 0; stop < stops; stop++) {
      await script[stop]?.(current);
      const fix = { ...aracaju, accuracy: 8, speed: 9, heading: 1 };
      // One at a time, so that none replaces another in a batch
      const seen = async (event: string, payload: object) => {
        const already = positions().length;
        await ask(driving, event, payload);
        await eventually(() => expect(positions()).toHaveLength(already + sockets.length));
      };
      for (let n = 0; n < 3; n++) {
        const lat = aracaju.lat + (stop * 3 + n) / 10_000;
        await seen('location:update', { tripId, ...fix, lat, timestamp: Date.now() });
      }
      await ask(driving, 'location:update', { tripId, ...fix, lat: 91, timestamp: Date.now() });
      await seen('location:batch', { tripId, updates: [{ ...fix, timestamp: Date.now() }] });
      await ask(watching, 'trip:join', { tripId });
      const questions = [
        ['GET', `/trips/${tripId}`],
        ['GET', '/trips'],
        ['GET', '/trips?status=active'],
        ['GET', `/trips/${tripId}/track`],
        ['GET', `/trips/nearby?lat=${aracaju.lat}&lng=${aracaju.lng}&radiusM=100000&limit=100`],
        ['GET', `/bookings/${bookingId}`],
        ['GET', '/me'],
        ['GET', `/trips/${tripId}/shares`],
        ['POST', `/trips/${tripId}/shares`, { ttlMinutes: 5 }],
        ['GET', `/sos/${current.alertId}`],
        ['POST', `/sos/${current.alertId}/cancel`, { pin: '2468' }],
        ['POST', `/sos/${current.alertId}/locations`, { updates: [aracaju] }],
        ['GET', `/admin/sos`],
        ['GET', `/admin/sos/${current.alertId}`],
        ['POST', `/admin/sos/${current.alertId}/resolve`, {}],
        ['GET', '/admin/events'],
        ['POST', `/trips/${tripId}/start`],
      ] as const;
      // At once: while the SOS Redis is silent some of them wait for it
      const asking = questions.map(async ([method, path, body]) => {
        const answer = share(await api(method, path, driver.token, body));
        if (path.startsWith('/trips/nearby')) {
          const { trips } = answer.body as { trips: { tripId: string }[] };
          answer.body = trips.filter((found) => found.tripId === tripId);
        }
        return [method, path, answer];
      });
      const bySocket = [
        watching.emitWithAck('sos:cancel', { alertId: current.alertId, pin: '2468' }),
        watching.emitWithAck('sos:location', { alertId: current.alertId, ...fix }),
      ];
      answers.push(...(await Promise.all([...asking, ...bySocket])));
    }
    answers.push(['end', share(await api('POST', `/trips/${tripId}/end`, driver.token))]);
    await eventually(() =>
      expect(heard.filter(([, event]) => event === 'trip')).toHaveLength(sockets.length),
    );
    answers.push(['after', share(await api('GET', `/trips/${tripId}`, driver.token))]);
  } finally {
    for (const socket of sockets) socket.close();
  }
  // Each device by itself: which of two hears first is chance
  return { shown: { heard: heard.toSorted(([a], [b]) => a - b), answers }, ride: current };
}

/** Ids by name, times without their values. */
const plain = ({ shown, ride: { tripId, rider, driver, alertId } }: { shown: Shown; ride: Ride }): string[] =>
  [...shown.heard.map((entry) => ['heard', entry]), ...shown.answers.map((entry) => ['asked', entry])].map(
    (entry) =>
      JSON.stringify(entry)
        .replaceAll(tripId, 'TRIP')
        .replaceAll(tripId.replace('trp_', 'bkg_'), 'BOOKING')
        .replaceAll(rider.id, 'RIDER')
        .replaceAll(driver.id, 'DRIVER')
        .replaceAll(driver.phone, 'PHONE')
        .replaceAll(alertId, 'ALERT')
        .replace(/"requestId":"[^"]+"/g, '"requestId":"ID"')
        .replace(/\d{4}-\d\d-\d\dT[\d:.]+Z/g, 'AT')
        .replace(/\b17\d{11}\b|\b18\d{11}\b/g, 'MS')
        .replace(/(bytes|x-ratelimit-\w+)":"\d+"/g, '$1":"N"'),
  );

const press = async (ride: Ride): Promise<void> => {
  const answer = await api('POST', '/sos', ride.rider.token, { tripId: ride.tripId, location: aracaju });
  expect(answer.status).toBe(202);
  ride.alertId = answer.body.alertId;
};
const told = (ride: Ride) =>
  eventually(async () => {
    const { body } = await api('GET', `/sos/${ride.alertId}`, ride.rider.token);
    expect(body.contacts).toMatchObject([{ status: 'sent' }]);
  }, 10_000);
const move = async ({ rider, alertId }: Ride): Promise<void> => {
  const updates = [{ lat: -10.5, lng: -37.2, accuracy: 5 }];
  expect((await api('POST', `/sos/${alertId}/locations`, rider.token, { updates })).status).toBe(200);
};
const step = (name: string) => async (ride: Ride) => {
  expect((await api('POST', `/admin/sos/${ride.alertId}/${name}`, admin.token, {})).status).toBe(200);
};
const cancel = (pin: string) => async (ride: Ride) => {
  expect((await api('POST', `/sos/${ride.alertId}/cancel`, ride.rider.token, { pin })).status).toBe(200);
};
const both =
  (...acts: ((ride: Ride) => Promise<void>)[]) =>
  async (ride: Ride): Promise<void> => {
    for (const act of acts) await act(ride);
  };

describe('+ the attacker in the car', () => {
  let quiet: string[];
  beforeAll(async () => {
    quiet = plain(await recordRide([]));
  }, 30_000);

  test('the recording is one: it holds positions, refusals and the end', () => {
    expect(quiet.filter((line) => line.startsWith('["heard",[1,"location"')).length).toBeGreaterThanOrEqual(
      9,
    );
    expect(quiet.join()).toMatch(/SOS_NOT_FOUND.*FORBIDDEN/s);
    expect(quiet.length).toBeGreaterThan(80);
  });

  test.each<[string, Script]>([
    ['an SOS that contacts and the person on call are told of', [press, both(told, move)]],
    ['an SOS and the duress PIN', [press, both(told, cancel('8642'), move)]],
    ['an SOS that is taken back', [press, both(told, cancel('2468'))]],
    [
      'an SOS that admins see, respond to and resolve',
      [both(press, step('acknowledge')), both(told, step('respond'), move), step('resolve')],
    ],
  ])(
    'sees and reads the same, to the letter, with %s',
    async (_, script) => {
      expect(plain(await recordRide(script))).toEqual(quiet);
    },
    30_000,
  );
});

describe("+ an alert's link", () => {
  test("is in nobody's list, takes no place of the trip's links, and outlives the trip", async () => {
    const trip = await activeTrip(system);
    const { rider, driver, tripId } = trip;
    const phone = newPhone();
    await eventually(async () => {
      const contacts = [{ name: 'Ravi', phone, relation: 'friend' }];
      expect((await api('PUT', '/me/emergency-contacts', rider.token, { contacts })).status).toBe(200);
    }, 10_000);
    const current = { ...trip, alertId: '' };
    await press(current);
    await told(current);
    const { body } = await request(system, 'GET', `/dev/outbox?to=${encodeURIComponent(phone)}`);
    const token = /share\/(shr_\w+)/.exec(body.messages[0].text)?.[1];
    expect(token).toEqual(expect.any(String));
    expect((await api('GET', `/trips/${tripId}/shares`, rider.token)).body).toEqual({ shares: [] });
    expect((await api('GET', `/trips/${tripId}/shares`, driver.token)).status).toBe(403);
    const ended = await api('DELETE', `/trips/${tripId}/shares/${token}`, rider.token);
    expect(ended.body.error.code).toBe('SHARE_INVALID');
    const made = await Promise.all(
      Array.from({ length: 11 }, () =>
        api('POST', `/trips/${tripId}/shares`, rider.token, { ttlMinutes: 5 }),
      ),
    );
    expect(made.filter(({ status }) => status === 201)).toHaveLength(10);

    const events: unknown[] = [];
    const following = await connectShare(system, token, (socket) =>
      socket.onAny((event: string, data: { lat?: number; status?: string }) =>
        events.push(data.status ?? data.lat),
      ),
    );
    try {
      await eventually(() => expect(events).toContain(aracaju.lat));
      await api('POST', `/trips/${tripId}/end`, driver.token);
      await eventually(() => expect(events).toContain('ended'));
      await withoutTheTrip(current, following, events);
    } finally {
      following.close();
    }
  }, 20_000);

  /** Who drives has ended the trip: the alert's position still comes. */
  async function withoutTheTrip(current: Ride, following: { connected: boolean }, events: unknown[]) {
    await eventually(async () => {
      await move(current);
      expect(events).toContain(-10.5);
    }, 8000);
    expect(following.connected).toBe(true);
  }
});

describe('+ the attacker in the car, while the SOS Redis is silent', () => {
  test('sees and reads the same; the alert is in the journal, and its contacts are told once Redis is back', async () => {
    // What a ride needs before it begins is there; one stop shows all
    const silent = () => sosRedis.halt();
    const without = plain(await recordRide([silent], 1));
    await sosRedis.resume();
    const alarmed = await recordRide([both(silent, press)], 1);
    expect(plain(alarmed)).toEqual(without);
    await sosRedis.resume();
    await told(alarmed.ride);
  }, 60_000);
});
