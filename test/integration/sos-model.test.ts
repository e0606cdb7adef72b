/**
 * P2 on the real system: random bursts, provider faults, restarts of the workers, in any order; then what must be true once
 * all has come to rest. SOS_MODEL_RUNS sets how many histories are tried.
 */
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import fc from 'fast-check';
import type { Redis } from 'ioredis';
import type { Service } from 'moleculer';
import type { AdminAlert, AlertStatus } from '../../contracts/sos.ts';
import { feedKeys } from '../../lib/feed-stream.ts';
import {
  type FailureScript,
  type ProviderSimulator,
  startProviderSimulator,
} from '../../lib/standins/providers.ts';
import sosSender from '../../services/sos/sos-sender.service.ts';
import sosWorker from '../../services/sos/sos-worker.service.ts';
import { aracaju, connectSocket, newPhone, request, signIn, type User } from '../support/clients.ts';
import { eventually } from '../support/eventually.ts';
import { withRedis } from '../support/redis-content.ts';
import { type System, startSystem } from '../support/system.ts';

const numRuns = Number(process.env['SOS_MODEL_RUNS'] ?? 4);
const twilio = { accountSid: 'AC00000000000000000000000000000000', authToken: 'development-only' };

let simulator: ProviderSimulator;
let system: System;
let admin: User;

beforeAll(async () => {
  simulator = await startProviderSimulator({ twilio, maxMessages: 100_000 });
  system = await startSystem({
    env: {
      PROVIDERS_SANDBOX_URL: simulator.url,
      RATE_LIMIT_PER_USER: '1000000',
      SOS_ESCALATE_AFTER_MS: '1500',
    },
  });
  admin = await signIn(system, '+919800000000');
}, 30_000);
afterAll(async () => {
  await system?.stop();
  await simulator?.stop();
});

/** Users of one history, each with contacts and PINs of its own. */
interface Person {
  user: User;
  phones: string[];
}
async function newPerson(contacts: number): Promise<Person> {
  const user = await signIn(system);
  const phones = Array.from({ length: contacts }, newPhone);
  const list = phones.map((phone, n) => ({ name: `Friend ${n}`, phone, relation: 'friend' }));
  const put = (path: string, body: object) =>
    request(system, 'PUT', `/api/v1/me/${path}`, { token: user.token, body });
  expect((await put('emergency-contacts', { contacts: list })).status).toBe(200);
  expect((await put('pin', { pin: '2468', duressPin: '8642' })).status).toBe(204);
  return { user, phones };
}

const who = fc.nat(2);
const press = fc.record({
  act: fc.constant('press' as const),
  who,
  // Keys repeat within a user, and between users
  key: fc.option(fc.constantFrom('k1', 'k2', 'k3')),
  tripId: fc.option(fc.constantFrom('trp_a', 'trp_b')),
  drill: fc.constantFrom(false, false, false, true),
  times: fc.integer({ min: 1, max: 4 }),
  located: fc.boolean(),
  via: fc.constantFrom('rest' as const, 'socket' as const),
});
const script: fc.Arbitrary<FailureScript> = fc.oneof(
  fc.constantFrom('down' as const, '500' as const, '429' as const).map((kind) => ({ kind, times: 2 })),
  fc.constant({ kind: 'reject' as const, code: 21211, times: 1 }),
  fc.constant({ kind: 'slow' as const, delayMs: 200, times: 3 }),
);
/** Acts that name an alert mean the `nth` that was acknowledged so far. */
const nth = fc.nat(6);
const act = fc.oneof(
  { weight: 6, arbitrary: press },
  {
    weight: 2,
    arbitrary: fc.record({
      act: fc.constant('cancel' as const),
      nth,
      pin: fc.constantFrom('2468', '2468', '8642', '1111'),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      act: fc.constant('step' as const),
      nth,
      step: fc.constantFrom('acknowledge', 'respond', 'resolve'),
    }),
  },
  { weight: 1, arbitrary: fc.record({ act: fc.constant('move' as const), nth }) },
  { weight: 1, arbitrary: fc.record({ act: fc.constant('fail' as const), script }) },
  // Long enough for messages to go out in between, or too short
  { weight: 2, arbitrary: fc.record({ act: fc.constant('pause' as const), turns: fc.nat(30) }) },
  { weight: 1, arbitrary: fc.record({ act: fc.constant('restart' as const) }) },
);
type Act = typeof act extends fc.Arbitrary<infer A> ? A : never;

/** Acknowledged: the alert that the answer named, and what was pressed. */
interface Pressed {
  alertId: string;
  person: Person;
  drill: boolean;
  key: string | null;
}

async function restartWorkers(): Promise<void> {
  const { broker } = system;
  for (const [name, schema] of Object.entries({ 'sos-sender': sosSender, 'sos-worker': sosWorker })) {
    const running: Service | undefined = broker.getLocalService(name);
    if (running) await broker.destroyService(running);
    const service = broker.createService(schema);
    // Its own start is under way already
    await broker.waitForServices(service.fullName, 5000);
  }
}

async function pressAs(person: Person, one: Extract<Act, { act: 'press' }>): Promise<string[]> {
  const { key, tripId, drill, times, located, via } = one;
  const body = {
    ...(tripId === null ? {} : { tripId }),
    ...(drill ? { drill } : {}),
    ...(located ? { location: { ...aracaju, accuracy: 5 } } : {}),
  };
  const { token } = person.user;
  if (via === 'rest') {
    const headers: Record<string, string> = key === null ? {} : { 'idempotency-key': key };
    const answers = await Promise.all(
      Array.from({ length: times }, () => request(system, 'POST', '/api/v1/sos', { token, body, headers })),
    );
    expect(answers.map(({ status }) => status)).toEqual(answers.map(() => 202));
    return answers.map((answer) => answer.body.alertId);
  }
  const socket = await connectSocket(system, token);
  try {
    const payload = { ...body, ...(key === null ? {} : { key }) };
    const acks = await Promise.all(
      Array.from({ length: times }, () => socket.emitWithAck('sos:trigger', payload)),
    );
    return acks.map((ack) => {
      expect(ack).toMatchObject({ ok: true });
      return ack.ok ? ack.alertId : '';
    });
  } finally {
    socket.close();
  }
}

async function play(acts: readonly Act[], people: readonly Person[]): Promise<Pressed[]> {
  const pressed: Pressed[] = [];
  const post = (path: string, token: string, body: object) =>
    request(system, 'POST', `/api/v1${path}`, { token, body });
  for (const one of acts) {
    const target = 'nth' in one ? pressed[one.nth % Math.max(1, pressed.length)] : undefined;
    if (one.act === 'press') {
      const person = people[one.who]!;
      for (const alertId of await pressAs(person, one))
        pressed.push({ alertId, person, drill: one.drill, key: one.key });
    } else if (one.act === 'fail') simulator.fail('twilio', one.script);
    else if (one.act === 'restart') await restartWorkers();
    else if (one.act === 'pause')
      for (let n = 0; n < one.turns; n++) await request(system, 'GET', '/healthz');
    else if (target && one.act === 'cancel') {
      const { status } = await post(`/sos/${target.alertId}/cancel`, target.person.user.token, {
        pin: one.pin,
      });
      expect([200, 403, 409]).toContain(status);
    } else if (target && one.act === 'step') {
      const { status } = await post(`/admin/sos/${target.alertId}/${one.step}`, admin.token, {});
      expect([200, 409]).toContain(status);
    } else if (target && one.act === 'move') {
      const updates = [{ lat: -10.5, lng: -37 }];
      expect(
        (await post(`/sos/${target.alertId}/locations`, target.person.user.token, { updates })).status,
      ).toBe(200);
    }
  }
  return pressed;
}

const rank: Record<AlertStatus, number> = {
  active: 0,
  acknowledged: 1,
  responding: 2,
  resolved: 3,
  'false-alarm': 3,
  cancelled: 3,
};
const ends = new Set<string>(['resolved', 'false-alarm', 'cancelled']);

/** Nothing is left to do for these alerts. */
async function atRest(redis: Redis, ids: readonly string[]): Promise<void> {
  await eventually(async () => {
    for (const key of ['sos:unprocessed', 'sos:unprojected']) {
      const left = new Set(await redis.zrange(key, 0, -1));
      expect(ids.filter((id) => left.has(id))).toEqual([]);
    }
    for (const id of ids) {
      const hash = await redis.hgetall(`sos:alert:${id}`);
      for (const [field, json] of Object.entries(hash)) {
        const [, purpose] = /^m:(raised|over):/.exec(field) ?? [];
        if (!purpose) continue;
        const { status, tries } = JSON.parse(json) as { status: string; tries: unknown[] };
        const isOpen =
          status === 'sending' || status === 'queued' || (status === 'failed' && tries.length < 4);
        // Once it is over nobody begins to tell of it
        if (isOpen && !(purpose === 'raised' && hash['endedAt'] && status !== 'sending'))
          expect([id, field, status]).toEqual([]);
      }
    }
  }, 20_000);
}

async function check(redis: Redis, pressed: readonly Pressed[]): Promise<void> {
  const ids = [...new Set(pressed.map(({ alertId }) => alertId))];
  await atRest(redis, ids);
  const feed = (await redis.xrange(feedKeys.stream, '-', '+')).map(([, fields]) => ({
    kind: fields[fields.indexOf('kind') + 1],
    data: JSON.parse(fields[fields.indexOf('data') + 1] ?? '{}') as {
      alertId?: string;
      status?: AlertStatus;
    },
  }));
  // A key is one alert for its user, for ever; keys of others are others'
  for (const one of pressed) {
    if (one.key === null) continue;
    const same = pressed.filter(({ key, person }) => key === one.key && person === one.person);
    expect(new Set(same.map(({ alertId }) => alertId)).size).toBe(1);
  }
  for (const alertId of ids) {
    const owners = new Set(pressed.filter((one) => one.alertId === alertId).map(({ person }) => person));
    expect(owners.size).toBe(1);
    const [{ phones }] = [...owners] as [Person];
    const { body } = await request(system, 'GET', `/api/v1/admin/sos/${alertId}`, { token: admin.token });
    const alert = body as AdminAlert;
    const log = alert.log.map(({ what }) => what);
    const count = (what: string) => log.filter((entry) => entry === what).length;

    // Statuses only moved forward
    const moves = log.filter((what): what is AlertStatus => what in rank);
    for (const [n, what] of moves.entries())
      expect(rank[what]).toBeGreaterThan(n === 0 ? 0 : rank[moves[n - 1]!]);
    expect(alert.status).toBe(moves.at(-1) ?? 'active');

    // The feed: raised once, first, and then in order
    const events = feed.filter(({ data }) => data.alertId === alertId);
    expect(events.filter(({ kind }) => kind === 'sos.triggered')).toHaveLength(1);
    expect(events[0]?.kind).toBe('sos.triggered');
    const told = events.flatMap(({ kind, data }) =>
      kind === 'sos.updated' && data.status ? [rank[data.status]] : [],
    );
    expect(told).toEqual(told.toSorted((a, b) => a - b));

    // Each contact once, or it is known that not
    const isOver = ends.has(alert.status);
    const states = Object.entries(await redis.hgetall(`sos:alert:${alertId}`)).filter(([field]) =>
      field.startsWith('m:'),
    );
    const sent = (purpose: string) =>
      states.filter(([field, json]) => field.startsWith(`m:${purpose}:`) && json.includes('"status":"sent"'))
        .length;
    expect(states.filter(([field]) => field.startsWith('m:raised:'))).toHaveLength(phones.length);
    if (alert.drill) expect([count('contact-told'), count('incident-opened')]).toEqual([0, 0]);
    else if (!isOver) expect(sent('raised') + count('contact-not-reached')).toBe(phones.length);
    expect(count('contact-told')).toBe(sent('raised'));
    const contactsOf = (purpose: string, of: (state: string) => boolean) =>
      states.flatMap(([field, json]) =>
        field.startsWith(`m:${purpose}:`) && of(json) ? [field.split(':')[2]] : [],
      );
    const toldOver = contactsOf('over', (json) => json.includes('"status":"sent"'));
    const heard = contactsOf('raised', (json) => json.includes('"status":"sent"'));
    // Also who may have heard of it: an attempt was made whose outcome nobody knows
    const mayHaveHeard = contactsOf('raised', (json) => json.includes('"channel":"sms"'));
    expect(count('contact-told-over')).toBe(toldOver.length);
    // Nobody reads that it is over before what it was
    const sentAt = (purpose: string, contact: string | undefined) => {
      const [, json] = states.find(([field]) => field === `m:${purpose}:${contact}`) ?? [];
      const state = json === undefined ? null : (JSON.parse(json) as { status: string; at: number });
      return state?.status === 'sent' ? state.at : null;
    };
    for (const contact of toldOver)
      expect(sentAt('raised', contact) ?? 0).toBeLessThanOrEqual(sentAt('over', contact)!);
    if (!isOver || alert.duress || alert.drill) expect(toldOver).toEqual([]);
    else {
      expect(toldOver).toEqual(expect.arrayContaining(heard));
      expect(mayHaveHeard).toEqual(expect.arrayContaining(toldOver));
    }

    // The database has what Redis has
    await eventually(async () => {
      const archived = await system.broker.call('sos-worker.archived', { id: alertId });
      const now = await request(system, 'GET', `/api/v1/admin/sos/${alertId}`, { token: admin.token });
      expect(archived).toEqual(now.body);
    });
  }
  // What went out: one text for each alert and contact that was told, no more
  for (const person of new Set(pressed.map(({ person: owner }) => owner))) {
    const own = ids.filter((id) => pressed.some((one) => one.alertId === id && one.person === person));
    const alerts = await Promise.all(own.map((id) => redis.hgetall(`sos:alert:${id}`)));
    const outcomes = alerts.flatMap((hash) =>
      Object.entries(hash).filter(([field]) => field.startsWith('m:')),
    );
    const expected = outcomes.filter(([, json]) => json.includes('"status":"sent"')).length;
    const texts = person.phones.flatMap((to) => simulator.outbox({ to, channel: 'sms' }));
    expect(texts).toHaveLength(expected);
  }
}

test(
  'P2 whatever is pressed, fails or restarts: each press is in one alert, each contact is told once, nothing is lost',
  async () => {
    await withRedis(system.config.redisUrl, async (redis) => {
      await fc.assert(
        fc.asyncProperty(fc.array(act, { minLength: 6, maxLength: 18 }), async (acts) => {
          const people = await Promise.all([0, 1, 2].map(newPerson));
          try {
            const pressed = await play(acts, people);
            simulator.clear('twilio');
            await check(redis, pressed);
          } finally {
            simulator.clear('twilio');
          }
        }),
        { numRuns, endOnFailure: true, interruptAfterTimeLimit: 60_000 * Math.ceil(numRuns / 4) },
      );
    });
  },
  120_000 * Math.ceil(numRuns / 4),
);
