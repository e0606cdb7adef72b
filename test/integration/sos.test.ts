import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import type { Alert } from '../../contracts/sos.ts';
import {
  activeTrip,
  aracaju,
  type ClientSocket,
  connectSocket,
  newPhone,
  request,
  signIn,
  type User,
} from '../support/clients.ts';
import { eventually } from '../support/eventually.ts';
import { type System, startSystem } from '../support/system.ts';

let system: System;
let admin: User;
const sockets: ClientSocket[] = [];

const post = (path: string, token: string, body?: unknown, headers = {}) =>
  request(system, 'POST', `/api/v1${path}`, { token, body, headers });
const get = (path: string, token: string) => request(system, 'GET', `/api/v1${path}`, { token });
const outbox = async (to: string) =>
  (await request(system, 'GET', `/dev/outbox?to=${encodeURIComponent(to)}`)).body.messages as {
    channel: string;
    provider: string;
    text: string;
  }[];

/** A user with so many contacts and, if one is given, a PIN. */
async function userWith(howMany: number, pins: object | null = null) {
  const user = await signIn(system);
  const phones = Array.from({ length: howMany }, newPhone);
  const contacts = phones.map((phone, n) => ({ name: `Friend ${n}`, phone, relation: 'friend' }));
  const put = (path: string, body: object) =>
    request(system, 'PUT', `/api/v1${path}`, { token: user.token, body });
  expect((await put('/me/emergency-contacts', { contacts })).status).toBe(200);
  if (pins) expect((await put('/me/pin', pins)).status).toBe(204);
  return { user, phones };
}

const alertOf = async (id: string, token: string): Promise<Alert> => (await get(`/sos/${id}`, token)).body;
const until = <T>(read: () => Promise<T>, check: (value: T) => void) =>
  eventually(async () => {
    const value = await read();
    check(value);
    return value;
  }, 10_000);
const told = (id: string, token: string, howMany: number, status = 'sent') =>
  until(
    () => alertOf(id, token),
    ({ contacts }) => expect(contacts.map((contact) => contact.status)).toEqual(Array(howMany).fill(status)),
  );

beforeAll(async () => {
  system = await startSystem({ env: { SOS_ESCALATE_AFTER_MS: '700', RATE_LIMIT_PER_USER: '100000' } });
  admin = await signIn(system, '+919800000000');
}, 30_000);
afterAll(async () => {
  for (const socket of sockets) socket.close();
  await system.stop();
});

describe('raising an alert', () => {
  test('R3.4 R3.2 answers at once, tells every contact with map and link, and shows whom it reached', async () => {
    const { user, phones } = await userWith(3);
    const { status, body } = await post('/sos', user.token, {
      location: { ...aracaju, accuracy: 12, timestamp: Date.now() - 1500 },
      device: { model: 'Pixel 9', battery: 0.31 },
      timestamp: Date.now() - 20,
    });
    expect([status, body.status]).toEqual([202, 'active']);
    expect(Date.parse(body.acceptedAt)).toBeGreaterThan(Date.now() - 5000);
    const alert = await told(body.alertId, user.token, 3);
    expect(alert).toMatchObject({
      drill: false,
      location: { ...aracaju, accuracy: 12, source: 'gps' },
      contacts: phones.map(() => ({ status: 'sent', channel: 'sms' })),
    });
    expect(alert.location!.ageMs).toBeGreaterThanOrEqual(1500);
    expect(alert.contacts.map(({ name }) => name).toSorted()).toEqual(['Friend 0', 'Friend 1', 'Friend 2']);
    for (const phone of phones) {
      const [message, ...others] = await outbox(phone);
      expect(others).toEqual([]);
      expect(message!.text).toMatch(
        /^SOS: Asha needs help\. At https:\/\/maps\.google\.com\/\?q=-10\.93934,-37\.06274/,
      );
      expect(message!.text).toMatch(/Follow: \S+\/share\/shr_\w{26} Call them\. In danger, call 112\.$/);
    }
    expect(JSON.stringify(alert)).not.toContain(phones[0]);
  });

  test("R3.4 writes in the raiser's language, from its change on, also of the end", async () => {
    const { user, phones } = await userWith(1, { pin: '2468' });
    const preferences = { token: user.token, body: { language: 'hi' } };
    expect((await request(system, 'PUT', '/api/v1/me/preferences', preferences)).status).toBe(200);
    const { alertId } = (await post('/sos', user.token, { location: aracaju })).body;
    await told(alertId, user.token, 1);
    const [raised] = await outbox(phones[0]!);
    expect(raised!.text).toMatch(
      /^SOS: Asha को मदद चाहिए। https:\/\/maps\.google\.com\/\?q=-10\.93934,-37\.06274 \S+\/shr_\w{26}$/,
    );
    await post(`/sos/${alertId}/cancel`, user.token, { pin: '2468' });
    await until(
      () => outbox(phones[0]!),
      (messages) => expect(messages[0]!.text).toMatch(/^Asha का SOS समाप्त हो गया है: वापस ले लिया गया।/),
    );
  });

  test('R3.4 is never refused for what is missing, absurd or unreadable; that is kept raw', async () => {
    const { user } = await userWith(1);
    for (const body of [
      undefined,
      '{"broken":',
      'SOS!',
      '[1,2]',
      'null',
      { location: { lat: 91, lng: 'here' }, device: 'x'.repeat(5000), tripId: { $gt: '' }, drill: 'no' },
      JSON.parse('{"__proto__":{"drill":true}}'),
      `${'{"a":'.repeat(100)}1${'}'.repeat(100)}`,
    ]) {
      const answer = await post('/sos', user.token, body, {
        'content-type': 'application/json; charset=nonsense',
      });
      expect([body, answer.status]).toEqual([body, 202]);
    }
    // All of them without a usable trip: one open alert
    const { body } = await get('/admin/sos?status=active', admin.token);
    const mine = body.alerts.filter(({ userId }: { userId: string }) => userId === user.id);
    expect(mine).toEqual([expect.objectContaining({ drill: false, presses: 8, mapUrl: null })]);
  });

  test('a body of 10 MB is 413, and the next press works', async () => {
    const { user } = await userWith(0);
    const answer = await post('/sos', user.token, { device: 'x'.repeat(10_000_000) });
    expect([answer.status, answer.body.error.code]).toEqual([413, 'PAYLOAD_TOO_LARGE']);
    expect((await post('/sos', user.token, {})).status).toBe(202);
  });

  test("+ the same key is one alert, also when it is another user's; a second press joins the open one", async () => {
    const [{ user }, { user: other }] = [await userWith(1), await userWith(1)];
    const key = { 'idempotency-key': 'press-1' };
    const answers = await Promise.all(Array.from({ length: 5 }, () => post('/sos', user.token, {}, key)));
    const ids = new Set(answers.map(({ body }) => body.alertId));
    expect(ids.size).toBe(1);
    const foreign = await post('/sos', other.token, {}, key);
    expect(ids).not.toContain(foreign.body.alertId);
    const again = await post(
      '/sos',
      user.token,
      { location: { ...aracaju, accuracy: 5 } },
      { 'idempotency-key': 'press-2' },
    );
    expect(ids).toContain(again.body.alertId);
    const alert = await told(again.body.alertId, user.token, 1);
    expect(alert.location).toMatchObject(aracaju);
    // Contacts are told once
    expect(alert.log.filter(({ what }) => what === 'contact-told')).toHaveLength(1);
  });

  test('1,000 presses in a second are one alert, and none is refused', async () => {
    const { user, phones } = await userWith(1);
    const socket = await connectSocket(system, user.token);
    sockets.push(socket);
    const answers = await Promise.all(
      Array.from({ length: 1000 }, () => socket.emitWithAck('sos:trigger', {})),
    );
    expect(answers.filter(({ ok }) => !ok)).toEqual([]);
    const ids = new Set(answers.map((answer) => (answer.ok ? answer.alertId : '')));
    expect(ids.size).toBe(1);
    await told([...ids][0]!, user.token, 1);
    expect(await outbox(phones[0]!)).toHaveLength(1);
  });

  test('+ one account cannot fill the memory of all: trips that it makes up are twenty alerts, and no press is refused', async () => {
    const { user } = await userWith(1);
    const press = async (n: number, drill = false) => {
      const answer = await post('/sos', user.token, { tripId: `trp_madeup${n}`, drill });
      expect([answer.status, answer.body.status]).toEqual([202, 'active']);
      return answer.body.alertId as string;
    };
    const drills = new Set<string>();
    for (let n = 0; n < 25; n++) drills.add(await press(n, true));
    expect(drills.size).toBe(20);
    const ids: string[] = [];
    for (let n = 0; n < 50; n++) ids.push(await press(n));
    expect(new Set(ids).size).toBe(20);
    expect(ids.some((id) => drills.has(id))).toBe(false);
    // The rest is heard of with the newest
    expect(new Set(ids.slice(20))).toEqual(new Set([ids[19]]));
    const { body } = await get(`/admin/sos/${ids[19]}`, admin.token);
    expect(body).toMatchObject({ status: 'active', presses: 31 });
    // A trip that has its own goes on with that
    expect(await press(3)).toBe(ids[3]);
  });

  test('R3.4 without a fix the last known location of the trip is used, marked, with its age', async () => {
    const { tripId, rider, driver } = await activeTrip(system);
    const driving = await connectSocket(system, driver.token);
    sockets.push(driving);
    await driving.emitWithAck('location:update', {
      tripId,
      ...aracaju,
      accuracy: 8,
      speed: 9,
      heading: 1,
      timestamp: Date.now(),
    });
    await until(
      () => post('/sos', rider.token, { tripId, location: null, drill: true }),
      ({ body }) => expect(body.alertId).toEqual(expect.any(String)),
    );
    const located = await until(
      async () => alertOf((await post('/sos', rider.token, { tripId })).body.alertId, rider.token),
      (alert) => expect(alert.location).toBeDefined(),
    );
    expect(located.location).toMatchObject({ ...aracaju, accuracy: 8, source: 'last-known' });
    expect(located.tripId).toBe(tripId);
  });

  test('no contacts at all: the user and admins are told', async () => {
    const { user } = await userWith(0);
    const { body } = await post('/sos', user.token, {});
    const alert = await until(
      () => alertOf(body.alertId, user.token),
      ({ log }) => expect(log.map(({ what }) => what)).toContain('no-contacts'),
    );
    expect(alert.contacts).toEqual([]);
    const { events } = (await get('/admin/events?limit=1000', admin.token)).body;
    expect(events).toContainEqual(
      expect.objectContaining({
        kind: 'sos.updated',
        data: expect.objectContaining({ alertId: body.alertId, what: 'no-contacts' }),
      }),
    );
  });

  test('is refused without a session that was ever valid, and taken with one that has ended', async () => {
    const { user } = await userWith(0);
    expect((await post('/sos', 'nonsense', {})).status).toBe(401);
    expect((await post('/sos', `${user.token}x`, {})).status).toBe(401);
    expect((await request(system, 'POST', '/api/v1/sos')).status).toBe(401);
    await post('/auth/logout', user.token);
    const { status, body } = await post('/sos', user.token, {});
    expect(status).toBe(202);
    // It may raise, and say where it is; it may not read
    expect((await get(`/sos/${body.alertId}`, user.token)).status).toBe(401);
    expect(
      (await post(`/sos/${body.alertId}/locations`, user.token, { updates: [aracaju] })).body.accepted,
    ).toBe(1);
    const seen = await get(`/admin/sos/${body.alertId}`, admin.token);
    expect(seen.body).toMatchObject({ verified: 'ended', status: expect.any(String) });
  });

  test("is nobody else's business", async () => {
    const [{ user }, { user: other }] = [await userWith(0), await userWith(0)];
    const { alertId } = (await post('/sos', user.token, {})).body;
    for (const [method, path, body] of [
      ['GET', '', undefined],
      ['POST', '/cancel', { pin: '1234' }],
      ['POST', '/locations', { updates: [aracaju] }],
    ] as const) {
      const answer = await request(system, method, `/api/v1/sos/${alertId}${path}`, {
        token: other.token,
        body,
      });
      expect([path, answer.status, answer.body.error.code]).toEqual([path, 404, 'SOS_NOT_FOUND']);
    }
    for (const path of ['', `/${alertId}`])
      expect((await get(`/admin/sos${path}`, other.token)).status).toBe(403);
  });
});

describe('an alert from its beginning to its end', () => {
  const stepOf = (id: string, step: string, body = {}) => post(`/admin/sos/${id}/${step}`, admin.token, body);

  test('+ active, acknowledged, responding, resolved: forward only, each with who and when', async () => {
    const { user, phones } = await userWith(1);
    const socket = await connectSocket(system, user.token);
    sockets.push(socket);
    const heard: string[] = [];
    socket.on('sos', ({ status }) => heard.push(status));
    const { alertId } = (await post('/sos', user.token, {})).body;
    await told(alertId, user.token, 1);
    expect((await stepOf(alertId, 'acknowledge', { note: 'Calling her' })).body.status).toBe('acknowledged');
    expect((await stepOf(alertId, 'acknowledge')).body.error.code).toBe('SOS_WRONG_STATE');
    expect((await stepOf(alertId, 'respond')).body.status).toBe('responding');
    expect((await stepOf(alertId, 'acknowledge')).status).toBe(409);
    const ended = await stepOf(alertId, 'resolve', { note: 'She is safe' });
    expect(ended.body).toMatchObject({ status: 'resolved', duress: false, userId: user.id, name: 'Asha' });
    for (const step of ['acknowledge', 'respond', 'resolve'])
      expect((await stepOf(alertId, step)).body.error.code).toBe('SOS_WRONG_STATE');
    const trail = ended.body.log.filter(({ who }: { who?: string }) => who !== undefined);
    expect(trail).toEqual([
      expect.objectContaining({
        what: 'acknowledged',
        who: admin.id,
        note: 'Calling her',
        at: expect.any(String),
      }),
      expect.objectContaining({ what: 'responding', who: admin.id }),
      expect.objectContaining({ what: 'resolved', who: admin.id, note: 'She is safe' }),
    ]);
    // The raiser sees the steps, not who took them
    const seen = await alertOf(alertId, user.token);
    expect(seen.log.map(({ what }) => what)).toEqual(
      expect.arrayContaining(['acknowledged', 'responding', 'resolved']),
    );
    expect(JSON.stringify(seen)).not.toContain(admin.id);
    await eventually(() =>
      expect(new Set(heard)).toEqual(new Set(['active', 'acknowledged', 'responding', 'resolved'])),
    );
    // Contacts hear of the end
    await until(
      () => outbox(phones[0]!),
      (messages) => expect(messages[0]!.text).toMatch(/^The SOS of Asha is over: our team has closed it\./),
    );
  });

  test('+ skips ahead, and a false alarm is an end too', async () => {
    const { user } = await userWith(0);
    const { alertId } = (await post('/sos', user.token, {})).body;
    expect((await stepOf(alertId, 'resolve', { falseAlarm: true })).body.status).toBe('false-alarm');
    // A new press is a new alert
    expect((await post('/sos', user.token, {})).body.alertId).not.toBe(alertId);
    expect((await stepOf('sos_nobody', 'resolve')).body.error.code).toBe('SOS_NOT_FOUND');
  });

  test('+ a PIN takes it back, contacts hear it; three wrong ones tell admins and the alert stays', async () => {
    const { user, phones } = await userWith(1, { pin: '2468' });
    const { alertId } = (await post('/sos', user.token, {})).body;
    await told(alertId, user.token, 1);
    for (const pin of ['0000', '1111', '2222']) {
      const answer = await post(`/sos/${alertId}/cancel`, user.token, { pin });
      expect([answer.status, answer.body.error.code]).toEqual([403, 'WRONG_PIN']);
    }
    expect((await alertOf(alertId, user.token)).status).toBe('active');
    const { events } = (await get('/admin/events?limit=1000', admin.token)).body;
    expect(events).toContainEqual(
      expect.objectContaining({
        data: expect.objectContaining({ alertId, what: 'wrong-pins', wrongPins: 3 }),
      }),
    );
    const cancelled = await post(`/sos/${alertId}/cancel`, user.token, { pin: '2468' });
    expect([cancelled.status, cancelled.body]).toEqual([200, { alertId, status: 'cancelled' }]);
    expect((await post(`/sos/${alertId}/cancel`, user.token, { pin: '2468' })).body.error.code).toBe(
      'SOS_WRONG_STATE',
    );
    await until(
      () => outbox(phones[0]!),
      (messages) => expect(messages[0]!.text).toMatch(/^The SOS of Asha is over: it was called off\./),
    );
  });

  test('+ pressed again and again, its raiser is told once a second at most, and of each change at once', async () => {
    const { user } = await userWith(1, { pin: '2468', duressPin: '8642' });
    const socket = await connectSocket(system, user.token);
    sockets.push(socket);
    const heard: string[] = [];
    socket.on('sos', ({ status }) => heard.push(status));
    const began = performance.now();
    const presses = await Promise.all(Array.from({ length: 60 }, () => post('/sos', user.token, {})));
    for (let n = 0; n < 20; n++) presses.push(await post('/sos', user.token, {}));
    expect(new Set(presses.map(({ status }) => status))).toEqual(new Set([202]));
    const cancelled = await post(`/sos/${presses[0]?.body.alertId}/cancel`, user.token, { pin: '2468' });
    expect(cancelled.status).toBe(200);
    await eventually(() => expect(heard.at(-1)).toBe('cancelled'));
    const seconds = (performance.now() - began) / 1000;
    expect(heard.slice(0, -1)).not.toEqual([]);
    expect(new Set(heard.slice(0, -1))).toEqual(new Set(['active']));
    expect(heard.length - 1).toBeLessThanOrEqual(1 + seconds);
  });

  test('+ the duress PIN looks like a cancel to the letter, and the alert goes on', async () => {
    const pins = { pin: '2468', duressPin: '8642' };
    const [honest, forced] = [await userWith(1, pins), await userWith(1, pins)];
    /** All that the raiser can see, with what differs by nature taken out. */
    const seenAfter = async ({ user }: typeof honest, pin: string) => {
      const socket = await connectSocket(system, user.token);
      sockets.push(socket);
      const heard: unknown[] = [];
      socket.onAny((event, payload) => heard.push([event, payload.status]));
      const { alertId } = (await post('/sos', user.token, { location: aracaju })).body;
      await told(alertId, user.token, 1);
      const answer = await post(`/sos/${alertId}/cancel`, user.token, { pin });
      const later = await post(`/sos/${alertId}/cancel`, user.token, { pin: '9999' });
      const moved = await post(`/sos/${alertId}/locations`, user.token, {
        updates: [{ lat: -10.5, lng: -37 }],
      });
      const alert = await alertOf(alertId, user.token);
      await eventually(() => expect(heard.at(-1)).toEqual(['sos', 'cancelled']));
      const shape = JSON.stringify({
        answer: [answer.status, answer.body],
        later: [later.status, later.body.error.code],
        moved: moved.body,
        alert,
        heard: [...new Set(heard.map((event) => JSON.stringify(event)))],
      });
      return {
        alertId,
        shape: shape
          .replaceAll(alertId, 'ID')
          .replaceAll(user.id, 'USER')
          .replace(/\d{4}-[^"]+Z/g, 'AT')
          .replace(/"ageMs":\d+/g, 'AGE'),
      };
    };
    const cancelled = await seenAfter(honest, '2468');
    const duress = await seenAfter(forced, '8642');
    expect(duress.shape).toBe(cancelled.shape);
    const truth = await get(`/admin/sos/${duress.alertId}`, admin.token);
    expect(truth.body).toMatchObject({ duress: true, status: 'active' });
    const { events } = (await get('/admin/events?limit=1000', admin.token)).body;
    expect(events).toContainEqual(
      expect.objectContaining({
        data: expect.objectContaining({ alertId: duress.alertId, what: 'duress', duress: true }),
      }),
    );
    // Somebody is woken at once, and closing it shows the raiser nothing new
    await until(
      () => outbox('+12025550199'),
      (messages) => expect(messages.length).toBeGreaterThan(0),
    );
    const before = JSON.stringify(await alertOf(duress.alertId, forced.user.token));
    await stepOf(duress.alertId, 'resolve');
    expect(JSON.stringify(await alertOf(duress.alertId, forced.user.token))).toBe(before);
    // The contacts never hear that it is over
    const texts = (await outbox(forced.phones[0]!)).map(({ text }) => text);
    expect(texts.join()).not.toContain('is over');
    // A further press is a new alert
    expect((await post('/sos', forced.user.token, {})).body.alertId).not.toBe(duress.alertId);
  });

  test('+ while it is open the position goes on: to admins and to the contacts’ link', async () => {
    const { user } = await userWith(0);
    const { alertId } = (await post('/sos', user.token, {})).body;
    const socket = await connectSocket(system, user.token);
    sockets.push(socket);
    const moved = await socket.emitWithAck('sos:location', { alertId, lat: -10.9, lng: -37.1, accuracy: 5 });
    expect(moved).toEqual({ ok: true, alertId });
    const refused = await socket.emitWithAck('sos:location', { alertId, lat: 'x' });
    expect(refused).toMatchObject({ ok: false, error: { code: 'LOCATION_INVALID' } });
    expect((await alertOf(alertId, user.token)).location).toMatchObject({ lat: -10.9, lng: -37.1 });
    const { events } = (await get('/admin/events?limit=1000', admin.token)).body;
    expect(events).toContainEqual(
      expect.objectContaining({ kind: 'sos.moved', data: expect.objectContaining({ alertId }) }),
    );
  });

  test('+ a drill looks real, reaches no contact and wakes nobody', async () => {
    const { user, phones } = await userWith(2);
    const { alertId } = (await post('/sos', user.token, { drill: true })).body;
    const drill = await told(alertId, user.token, 2, 'drill');
    expect(drill).toMatchObject({ drill: true, status: 'active' });
    // A real press is not swallowed by it
    const real = (await post('/sos', user.token, {})).body.alertId;
    expect(real).not.toBe(alertId);
    await told(real, user.token, 2);
    expect(await outbox(phones[0]!)).toHaveLength(1);
    const seen = (await get(`/admin/sos/${alertId}`, admin.token)).body;
    expect(seen.drill).toBe(true);
    expect(seen.log.map(({ what }: { what: string }) => what)).not.toContain('incident-opened');
  });

  test('+ not acknowledged in time: an incident and a call; acknowledged in time: neither', async () => {
    const [{ user: late }, { user: early }] = [await userWith(0), await userWith(0)];
    const [lateId, earlyId] = [
      (await post('/sos', late.token, {})).body.alertId,
      (await post('/sos', early.token, {})).body.alertId,
    ];
    await stepOf(earlyId, 'acknowledge');
    const logOf = async (id: string) =>
      ((await get(`/admin/sos/${id}`, admin.token)).body.log as { what: string }[]).map(({ what }) => what);
    await until(
      () => logOf(lateId),
      (log) => {
        expect(log).toContain('incident-opened');
        expect(log).toEqual(
          expect.arrayContaining([expect.stringMatching(/^on-call-(called|being-called)$/)]),
        );
      },
    );
    expect(await logOf(earlyId)).not.toContain('incident-opened');
    await stepOf(lateId, 'acknowledge');
    await until(
      () => logOf(lateId),
      (log) => expect(log).toContain('incident-acknowledged'),
    );
    await stepOf(lateId, 'resolve');
    await until(
      () => logOf(lateId),
      (log) => expect(log).toContain('incident-resolved'),
    );
  });
});
