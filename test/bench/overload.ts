/**
 * Nothing stands before an SOS: locations and sign-in codes at twice what the machine takes, and 50 alerts a second beside
 * them, through REST and sockets, on real processes by role over NATS. Baseline: doors that do not shed load.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import type { Redis } from 'ioredis';
import { callTimes } from '../support/bench/calls.ts';
import type { FloodOrder, FloodOutcome } from '../support/bench/flood.ts';
import { atMost, type Bench, type Figures } from '../support/bench/result.ts';
import {
  activeTrip,
  type ClientSocket,
  connectSocket,
  type Doors,
  newPhone,
  request,
  signIn,
  type User,
} from '../support/clients.ts';
import { eventually } from '../support/eventually.ts';
import { startNats } from '../support/nats.ts';
import { type RoleProcess, startRoles } from '../support/process.ts';
import { startSingle } from '../support/redis-topology.ts';
import { Durations, type Percentiles } from '../support/simulate/meter.ts';

const fleet = {
  data: 'accounts,trips,notify',
  location: 'location',
  sos: 'sos',
  api: 'api',
  gateway: 'gateway',
};
/** Doors to the same system that take everything, for as long as they can. */
const plainDoors = { api2: 'api', gateway2: 'gateway' };
const drivers = 40;
const raisers = 20;
const alertsPerS = 50;
const contactsEach = 2;
/** An alert whose contacts have not all been told after so long is lost, ms. */
const toldWithinMs = 45_000;

const node = ['--disable-warning=ExperimentalWarning', '--disable-warning=DEP0174'];

/** The simulator in a process of its own: its work is not to be in the times. */
async function startProviders(): Promise<{ url: string; child: ChildProcess }> {
  const args = [...node, 'bin/providers.ts', '--max-messages', '100000'];
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  for await (const url of createInterface(child.stdout)) return { url, child };
  throw new Error('The provider simulator did not start');
}

/** `onUp` is called when everybody is connected and the flood begins. */
async function flood(order: FloodOrder, onUp = () => {}): Promise<FloodOutcome> {
  const args = [...node, 'test/support/bench/flood.ts', JSON.stringify(order)];
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  let last = '';
  for await (const line of createInterface(child.stdout)) {
    if (last === '') onUp();
    last = line;
  }
  return JSON.parse(last) as FloodOutcome;
}

interface Raised {
  rest: Percentiles;
  socket: Percentiles;
  all: Percentiles;
  /** Over both, from the request, ms. */
  p95: number;
  ids: string[];
  refused: number;
}

/** Every other alert by REST, the others by socket; each one new, since each is of another trip. */
async function raiseAlerts(
  doors: Doors,
  people: User[],
  sockets: ClientSocket[],
  forMs: number,
): Promise<Raised> {
  const [rest, socket, ids] = [new Durations(), new Durations(), [] as string[]];
  const times: number[] = [];
  let refused = 0;
  const run = Math.random().toString(36).slice(2, 8);
  const all = await callTimes(Math.round((forMs / 1000) * alertsPerS), alertsPerS, async (n) => {
    const body = { tripId: `trp_${run}_${n}`, location: { lat: 12.97, lng: 77.59, accuracy: 9 } };
    const since = performance.now();
    try {
      if (n % 2 === 0) {
        const { token } = people[(n / 2) % people.length] as User;
        const answer = await request(doors, 'POST', '/api/v1/sos', { token, body });
        if (answer.status !== 202) throw new Error(String(answer.status));
        ids.push(answer.body.alertId);
        times.push(performance.now() - since);
        rest.add(performance.now() - since);
      } else {
        const line = sockets[((n - 1) / 2) % sockets.length] as ClientSocket;
        const ack = await line.timeout(10_000).emitWithAck('sos:trigger', body);
        if (!ack.ok) throw new Error(ack.error.code);
        ids.push(ack.alertId);
        times.push(performance.now() - since);
        socket.add(performance.now() - since);
      }
    } catch {
      refused++;
    }
  });
  const p95 = times.toSorted((a, b) => a - b)[Math.ceil(0.95 * times.length) - 1] ?? Number.NaN;
  return { rest: rest.total(), socket: socket.total(), all: all.total(), p95, ids, refused };
}

/** Acknowledged alerts that are not there, or whose contacts were not all told. */
async function lostOf(redis: Redis, ids: string[]): Promise<number> {
  const untold = async () => {
    const pipeline = redis.pipeline();
    for (const id of ids) pipeline.hvals(`sos:alert:${id}`);
    const values = ((await pipeline.exec()) ?? []).map(([, found]) => found as string[]);
    return values.filter(
      (found) => found.filter((json) => json.includes('"status":"sent"')).length < contactsEach,
    );
  };
  try {
    await eventually(async () => {
      const { length } = await untold();
      if (length > 0) throw new Error(`${length} alerts wait`);
    }, toldWithinMs);
    return 0;
  } catch {
    return (await untold()).length;
  }
}

const figuresOf = ({ rest, socket, all, p95, refused }: Raised): Figures => ({
  sosRestP50Ms: rest.p50 ?? Number.NaN,
  sosRestP99Ms: rest.p99 ?? Number.NaN,
  sosSocketP50Ms: socket.p50 ?? Number.NaN,
  sosSocketP99Ms: socket.p99 ?? Number.NaN,
  sosP95Ms: p95,
  sosP99Ms: all.p99 ?? Number.NaN,
  sosMaxMs: all.max ?? Number.NaN,
  sosRefused: refused,
});

/** How late a door's event loop was since the last look, p99, ms. */
async function lateOf({ metricsUrl }: { metricsUrl: string }): Promise<number> {
  const text = await (await fetch(`${metricsUrl}/metrics`)).text();
  const line = text.split('\n').find((each) => /eventloop_delay\{.*quantile="p99"/.test(each));
  return Number(line?.split(' ')[1] ?? Number.NaN);
}

const sum = (counts: Record<string, number>) =>
  Object.values(counts).reduce((total, each) => total + each, 0);
const shedOf = ({ locations, otps }: FloodOutcome): Figures => ({
  locationsTaken: locations['ok'] ?? 0,
  locationsShed: (locations['UNAVAILABLE'] ?? 0) + (locations['RATE_LIMITED'] ?? 0),
  otpsTaken: otps['202'] ?? 0,
  otpsShed429: otps['429'] ?? 0,
  otpsShed503: otps['503'] ?? 0,
});

const overload: Bench = async ({ quick }) => {
  const [calibrateMs, floodMs, baselineMs] = quick ? [2000, 4000, 3000] : [4000, 15_000, 8000];
  const stops: (() => Promise<unknown>)[] = [];
  try {
    // As production has them (docs/running-in-production.md): the two share a disk here
    const redis = await startSingle();
    stops.push(() => redis.stop());
    const sosRedis = await startSingle({ appendfsync: 'always' });
    stops.push(() => sosRedis.stop());
    const nats = await startNats();
    stops.push(() => nats.stop());
    const { url, child } = await startProviders();
    stops.push(async () => child.kill() && (await once(child, 'exit')));
    const many = '100000000';
    const env = {
      NAMESPACE: `overload-${process.pid}`,
      NATS_URL: nats.url,
      REDIS_URL: redis.url,
      SOS_REDIS_URL: sosRedis.url,
      PROVIDERS_SANDBOX_URL: url,
      RATE_LIMIT_PER_USER: many,
      RATE_LIMIT_PER_IP: many,
      OTP_PER_IP_PER_HOUR: many,
      SOCKET_EVENTS_PER_S: many,
      SOCKET_EVENTS_BURST: many,
      SOS_ESCALATE_AFTER_MS: '600000',
      LOG_LEVEL: 'error',
    };
    const ours = await startRoles(fleet, { ...env, SHED_WHEN_LATE_MS: '60' });
    stops.push(() => ours.stop());
    const theirs = await startRoles(plainDoors, { ...env, SHED_WHEN_LATE_MS: '1000000' });
    stops.push(() => theirs.stop());
    const { api, gateway } = ours.of;
    const { api2, gateway2 } = theirs.of;
    const doors: Doors = { apiUrl: api.apiUrl, socketUrl: gateway.socketUrl };
    const plain: Doors = { apiUrl: api2.apiUrl, socketUrl: gateway2.socketUrl };

    const driving: FloodOrder['drivers'] = [];
    for (let n = 0; n < drivers; n += 5) {
      const made = await Promise.all(Array.from({ length: 5 }, () => activeTrip(plain)));
      driving.push(...made.map(({ driver, tripId }) => ({ token: driver.token, tripId })));
    }
    const people: User[] = [];
    for (let n = 0; n < raisers; n++) {
      const user = await signIn(plain);
      const contacts = Array.from({ length: contactsEach }, () => ({
        name: 'Friend',
        phone: newPhone(),
        relation: 'friend',
      }));
      await request(plain, 'PUT', '/api/v1/me/emergency-contacts', { token: user.token, body: { contacts } });
      people.push(user);
    }

    const connection = sosRedis.connect(sosRedis.ports[0] ?? 0);
    const measure = async (
      at: Doors,
      looks: [RoleProcess, RoleProcess],
      forMs: number,
      perS: FloodOrder['perS'],
    ) => {
      const sockets = await Promise.all(people.map(({ token }) => connectSocket(at, token)));
      try {
        await Promise.all(looks.map(lateOf));
        const { promise: isUp, resolve: onUp } = Promise.withResolvers<void>();
        const flooding = flood({ ...at, drivers: driving, forMs, perS }, onUp);
        // One that ends before it has begun says why
        await Promise.race([isUp, flooding]);
        const raised = await raiseAlerts(at, people, sockets, forMs);
        const [apiLateP99Ms = Number.NaN, gatewayLateP99Ms = Number.NaN] = await Promise.all(
          looks.map(lateOf),
        );
        return { raised, flooded: await flooding, late: { apiLateP99Ms, gatewayLateP99Ms } };
      } finally {
        for (const socket of sockets) socket.close();
      }
    };
    // Both pairs of doors, so that each has compiled its code; the better one is what the machine takes
    const taken = [
      await flood({ ...doors, drivers: driving, forMs: calibrateMs, perS: null }),
      await flood({ ...plain, drivers: driving, forMs: calibrateMs, perS: null }),
    ];
    const best = (count: (outcome: FloodOutcome) => number | undefined) =>
      Math.max(...taken.map((outcome) => ((count(outcome) ?? 0) / outcome.tookMs) * 1000));
    const most = {
      locations: best(({ locations }) => locations['ok']),
      otps: best(({ otps }) => otps['202']),
    };
    const twice = { locations: 2 * most.locations, otps: 2 * most.otps };
    const shedding = await measure(doors, [api, gateway], floodMs, twice);
    const since = performance.now();
    const lost = (await lostOf(connection, shedding.raised.ids)) + shedding.raised.refused;
    const allToldAfterMs = performance.now() - since;
    const baseline = await measure(plain, [api2, gateway2], baselineMs, twice);
    const p99 = shedding.raised.all.p99 ?? Number.NaN;
    return {
      name: 'overload',
      lost,
      doubled: shedding.raised.ids.length - new Set(shedding.raised.ids).size,
      figures: {
        takenLocationsPerS: most.locations,
        takenOtpsPerS: most.otps,
        ...figuresOf(shedding.raised),
        allToldAfterMs,
        ...shedding.late,
        ...shedOf(shedding.flooded),
        unanswered:
          shedding.flooded.sent.locations +
          shedding.flooded.sent.otps -
          sum(shedding.flooded.locations) -
          sum(shedding.flooded.otps),
      },
      baseline: { ...figuresOf(baseline.raised), ...baseline.late, ...shedOf(baseline.flooded) },
      ratio: { sosP99Ms: (baseline.raised.all.p99 ?? Number.NaN) / p99 },
      targets: [
        atMost('R3.3', 'SOS acknowledged at twice the load that the machine takes, p99, ms', p99, 500),
      ],
      notes: [
        `Taken is what ${drivers} sockets and 32 HTTP clients get through together; flooded with twice that for ${floodMs / 1000} s (baseline ${baselineMs / 1000} s), ${alertsPerS} alerts a second beside it, half by REST, half by socket. All of it, generators too, on this one machine.`,
        'Baseline: the same doors, which never shed. Lost: refused alerts, and acknowledged ones whose two contacts were not told within 45 s after the flood.',
      ],
    };
  } finally {
    for (const stop of stops.toReversed()) await stop();
  }
};

export default overload;
