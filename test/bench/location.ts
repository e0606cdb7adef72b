/**
 * R1.3, R2.1 to R2.5: what a position costs from the driver's socket to two watchers, and how long it takes. Two gateways and two
 * location processes over NATS, against a plain Socket.IO server with the Redis adapter on two processes, and two that do next
 * to nothing: a Socket.IO server without checks and Redis, and a relay of `ws`; the same phones, in turns, at the same rates.
 */
import { once } from 'node:events';
import { setTimeout as pause } from 'node:timers/promises';
import type { Redis } from 'ioredis';
import { newId } from '../../lib/ids.ts';
import type { Collection } from '../../mixins/collection.ts';
import type { Sessions } from '../../mixins/sessions.ts';
import { addDelivery, type Delivery, noDelivery } from '../support/bench/delivery.ts';
import type {
  LoadAnswer,
  LoadOrder,
  LoadOutcome,
  RunOrder,
  TripOrder,
} from '../support/bench/location-load.ts';
import { processCpuMs, redisCommands, redisCpuMs } from '../support/bench/machine.ts';
import { type RedisLoad, redisCpuUsPerUpdate } from '../support/bench/redis-alone.ts';
import { atLeast, atMost, type Bench, type Figures, type Target } from '../support/bench/result.ts';
import { quantile } from '../support/bench/sos-load.ts';
import { aracaju } from '../support/clients.ts';
import { startNats } from '../support/nats.ts';
import { startRoles } from '../support/process.ts';
import { type RedisTopology, startSingle } from '../support/redis-topology.ts';
import { spawnAnnounced, spawnTied } from '../support/spawn.ts';
import { startSystem } from '../support/system.ts';

const rates = [1, 5, 25] as const;
/** Updates a second, of all trips together: what of the platform's 25,000 fits on this machine beside its generator. */
const floods = [10_000, 25_000] as const;
const watchersEach = 2;
const generators = 2;
const tickMs = 1000;
/** From sending to processing: the tick, location's moment, and what others may take of the machine. */
const supersededWithinMs = tickMs + 400;
const warmMs = 2000;
const monitorMs = 3000;
/** From the beginning of a load until it is what it says, ms. */
const settleMs = 500;
/** Both run on as young a heap as `npm start`. */
const nodeOptions = ['--max-semi-space-size=64', '--disable-warning=DEP0174'];

/** What a run is about: who serves, and what of it is looked at. */
interface Contender {
  name: string;
  /** Two; each takes half of the drivers. */
  urls: readonly [string, string];
  pids: number[];
  redis: { port: number; client: Redis } | null;
  natsPid: number | null;
  /** Both watchers on the driver's server: it knows of no other. */
  isLocal: boolean;
  supersededWithinMs: number;
}

/** Sums over all turns of a contender at a rate. */
interface Cost {
  delivery: Delivery;
  serverMs: number;
  redisMs: number;
  natsMs: number;
  sentCommands: number;
  commandsInScripts: number;
  monitoredUpdates: number;
  errors: number;
  lateP99Ms: number;
  generatorMs: number;
  /** In which all was sent. */
  tookMs: number;
}

const noCost = (): Cost => ({
  delivery: noDelivery(),
  serverMs: 0,
  redisMs: 0,
  natsMs: 0,
  sentCommands: 0,
  commandsInScripts: 0,
  monitoredUpdates: 0,
  errors: 0,
  lateP99Ms: 0,
  generatorMs: 0,
  tookMs: 0,
});

interface Generator {
  obey(order: LoadOrder): Promise<LoadOutcome | null>;
  stop(): Promise<void>;
}

function startGenerator(): Generator {
  const args = [
    '--disable-warning=ExperimentalWarning',
    ...nodeOptions,
    'test/support/bench/location-load.ts',
  ];
  const child = spawnTied(process.execPath, args, {
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
    serialization: 'advanced',
  });
  const exited = once(child, 'exit');
  return {
    async obey(order) {
      child.send(order);
      const [answer] = (await Promise.race([
        once(child, 'message'),
        exited.then(() => [{ failed: 'the generator has ended' }]),
      ])) as [LoadAnswer];
      if ('failed' in answer) throw new Error(`${order.do} ${order.system}: ${answer.failed}`);
      return answer.ok;
    },
    async stop() {
      child.disconnect();
      await exited;
    },
  };
}

/** Runs `work` for each of `count`, some at a time. */
async function forEach(count: number, atOnce: number, work: (n: number) => Promise<void>): Promise<void> {
  let next = 0;
  const worker = async () => {
    for (let n = next++; n < count; n = next++) await work(n);
  };
  await Promise.all(Array.from({ length: atOnce }, worker));
}

const theRedis = (redis: RedisTopology) => {
  const [port = 0] = redis.ports;
  return { port, client: redis.connect(port) };
};

interface People {
  tripId: string;
  driverToken: string;
  riderToken: string;
}

/** Ours: the roles as processes, and in this process, which does nothing while it is measured, the trips. */
async function startOurs(keep: (stop: () => Promise<unknown>) => void) {
  const nats = await startNats();
  keep(() => nats.stop());
  const redis = await startSingle();
  keep(() => redis.stop());
  const sosRedis = await startSingle();
  keep(() => sosRedis.stop());
  const env = {
    NAMESPACE: `bench-${process.pid}`,
    NATS_URL: nats.url,
    REDIS_URL: redis.url,
    SOS_REDIS_URL: sosRedis.url,
    // Nobody is told anything here
    PROVIDERS_SANDBOX_URL: 'http://127.0.0.1:9',
    LOCATION_TICK_MS: String(tickMs),
    // What it costs to move history to the database is another question, and the baseline has no such thing
    LOCATION_HISTORY_INTERVAL_MS: '3600000',
  };
  const system = await startSystem({
    only: ['accounts', 'trips'],
    env: { ...env, NODE_ENV: 'development' },
  });
  keep(() => system.stop());
  const roles = await startRoles(
    { gateway1: 'gateway', gateway2: 'gateway', location1: 'location', location2: 'location' },
    env,
  );
  keep(() => roles.stop());
  const { gateway1, gateway2, location1, location2 } = roles.of;
  const { broker } = system;
  await broker.waitForServices('location', 20_000);
  const { sessions } = broker.getLocalService('accounts') as unknown as { sessions: Sessions };
  const { store } = broker.getLocalService('trips') as unknown as {
    store: Collection<{ _id: string } & Record<string, unknown>>;
  };

  /** A trip that is under way, and tokens of its people. */
  const ride = async (): Promise<People> => {
    const [tripId, driverId, riderId] = [newId('trp'), newId('usr'), newId('usr')];
    const startedAt = new Date().toISOString();
    // As booked, accepted and started; thousands of times that would take longer than all the rest
    await store.insert({
      _id: tripId,
      bookingId: newId('bkg'),
      riderId,
      driverId,
      status: 'active',
      from: aracaju,
      to: aracaju,
      departAt: startedAt,
      startedAt,
      endedAt: null,
      version: 3,
      pending: [],
      hasPending: false,
    });
    await broker.call('location.open', { tripId, driverId });
    const [driver, rider] = await Promise.all([
      sessions.create(driverId, 'driver', 1),
      sessions.create(riderId, 'rider', 1),
    ]);
    return { tripId, driverToken: driver.token, riderToken: rider.token };
  };
  const contender: Contender = {
    name: 'ours',
    urls: [gateway1.socketUrl, gateway2.socketUrl],
    pids: [gateway1, gateway2, location1, location2].map(({ child }) => child.pid ?? 0),
    redis: theRedis(redis),
    natsPid: nats.pid,
    isLocal: false,
    supersededWithinMs,
  };
  return { contender, ride };
}

async function startPlain(keep: (stop: () => Promise<unknown>) => void): Promise<Contender> {
  const redis = await startSingle();
  keep(() => redis.stop());
  const file = [...nodeOptions, 'test/support/bench/location-baseline.ts', redis.url];
  const servers = [await spawnAnnounced(file), await spawnAnnounced(file)] as const;
  for (const server of servers) keep(() => server.stop());
  return {
    name: 'baseline',
    urls: [servers[0].line, servers[1].line],
    pids: servers.map(({ child }) => child.pid ?? 0),
    redis: theRedis(redis),
    natsPid: null,
    isLocal: false,
    supersededWithinMs: 0,
  };
}

/** Servers that know nothing of each other, and no Redis. */
async function startLocal(
  name: 'bare' | 'relay',
  within: number,
  keep: (stop: () => Promise<unknown>) => void,
): Promise<Contender> {
  const program = { bare: 'bare-socket-io.ts', relay: 'raw-relay.ts' }[name];
  const file = [...nodeOptions, `test/support/bench/${program}`];
  const servers = [await spawnAnnounced(file), await spawnAnnounced(file)] as const;
  for (const server of servers) keep(() => server.stop());
  return {
    name,
    urls: [servers[0].line, servers[1].line],
    pids: servers.map(({ child }) => child.pid ?? 0),
    redis: null,
    natsPid: null,
    isLocal: true,
    supersededWithinMs: within,
  };
}

/** One watcher on each server, unless they know nothing of each other; a driver on either. */
function phonesOf({ name, urls, isLocal }: Contender, people: readonly People[]): TripOrder[] {
  return people.map(({ tripId, driverToken, riderToken }, n) => {
    const home = urls[n % 2] ?? '';
    const ours = name === 'ours';
    return {
      tripId,
      driver: { url: home, token: ours ? driverToken : `driver:${tripId}` },
      watchers: Array.from({ length: watchersEach }, (_, w) => ({
        url: isLocal ? home : (urls[w % 2] ?? ''),
        token: ours ? riderToken : `rider:${tripId}`,
      })),
    };
  });
}

/** Trips on alternating servers, so two by two to the generators: each has phones on both. */
async function connect(
  fleet: readonly Generator[],
  contender: Contender,
  people: readonly People[],
): Promise<void> {
  const orders = phonesOf(contender, people);
  await Promise.all(
    fleet.map((generator, g) =>
      generator.obey({
        do: 'connect',
        system: contender.name,
        trips: orders.filter((_, n) => Math.floor(n / 2) % generators === g),
      }),
    ),
  );
}

const disconnect = (fleet: readonly Generator[], system: string) =>
  Promise.all(fleet.map((generator) => generator.obey({ do: 'close', system })));

const cpuOf = async (pids: readonly number[]): Promise<number> =>
  (await Promise.all(pids.map(processCpuMs))).reduce((sum, ms) => sum + ms, 0);

type Load = Pick<RunOrder, 'trips' | 'perTripPerS' | 'forMs'>;

/** The phones of all generators do it; answers what came of it for each. */
function run(fleet: readonly Generator[], { name, supersededWithinMs: within }: Contender, load: Load) {
  const orders = fleet.map((_, g): RunOrder => {
    const trips = Math.floor((load.trips + generators - 1 - g) / generators);
    return { ...load, do: 'run', system: name, trips, supersededWithinMs: within };
  });
  return Promise.all(fleet.map((generator, g) => generator.obey(orders[g] as RunOrder)));
}

/**
 * One contender's turn at a rate: a load to get warm, one under which commands are counted, at Redis' expense, then one that
 * counts from its first update to its last delivery.
 */
async function takeTurn(
  fleet: readonly Generator[],
  contender: Contender,
  load: Load,
  cost: Cost,
): Promise<void> {
  const { pids, redis, natsPid } = contender;
  await run(fleet, contender, { ...load, forMs: warmMs });
  if (redis) {
    const watched = run(fleet, contender, { ...load, forMs: monitorMs + 2 * settleMs });
    await pause(settleMs);
    const { sent, inScripts } = await redisCommands(redis.port, monitorMs);
    cost.sentCommands += sent;
    cost.commandsInScripts += inScripts;
    cost.monitoredUpdates += (load.trips * load.perTripPerS * monitorMs) / 1000;
    await watched;
  }
  const used = async () => ({
    server: await cpuOf(pids),
    redis: redis ? await redisCpuMs(redis.client) : 0,
    nats: natsPid === null ? 0 : await processCpuMs(natsPid),
  });
  const before = await used();
  const outcomes = await run(fleet, contender, load);
  const after = await used();
  cost.serverMs += after.server - before.server;
  cost.redisMs += after.redis - before.redis;
  cost.natsMs += after.nats - before.nats;
  cost.tookMs += Math.max(...outcomes.map((outcome) => outcome?.tookMs ?? 0));
  for (const outcome of outcomes) {
    if (!outcome) continue;
    addDelivery(cost.delivery, outcome);
    cost.errors += outcome.errors;
    cost.lateP99Ms = Math.max(cost.lateP99Ms, outcome.lateP99Ms);
    cost.generatorMs += outcome.cpuMs;
  }
}

const perUpdateUs = (ms: number, { delivery }: Cost): number => (ms * 1000) / delivery.sent;

/** `1perS` before each name: how often a trip reports. */
function figuresOf(rate: number, cost: Cost): Figures {
  const { delivery } = cost;
  const { sent, deliveries, superseded, sentToReceivedMs, processedToReceivedMs } = delivery;
  const seconds = cost.tookMs / 1000;
  const named: Figures = {
    UpdatesPerS: sent / seconds,
    DeliveriesPerS: deliveries / seconds,
    SupersededPercent: (superseded / sent) * 100,
    CpuUsPerUpdate: perUpdateUs(cost.serverMs, cost),
    CpuUsPerDelivery: (cost.serverMs * 1000) / deliveries,
    RedisCpuUsPerUpdate: perUpdateUs(cost.redisMs, cost),
    NatsCpuUsPerUpdate: perUpdateUs(cost.natsMs, cost),
    RedisCommandsPerUpdate: cost.sentCommands / cost.monitoredUpdates,
    RedisCallsInScriptsPerUpdate: cost.commandsInScripts / cost.monitoredUpdates,
    ProcessedToReceivedP50Ms: quantile(processedToReceivedMs, 0.5),
    ProcessedToReceivedP95Ms: quantile(processedToReceivedMs, 0.95),
    ProcessedToReceivedP99Ms: quantile(processedToReceivedMs, 0.99),
    SentToReceivedP50Ms: quantile(sentToReceivedMs, 0.5),
    SentToReceivedP95Ms: quantile(sentToReceivedMs, 0.95),
    SentToReceivedP99Ms: quantile(sentToReceivedMs, 0.99),
    GeneratorCpuUsPerUpdate: perUpdateUs(cost.generatorMs, cost),
    GeneratorLateP99Ms: cost.lateP99Ms,
    Errors: cost.errors,
  };
  return Object.fromEntries(
    Object.entries(named).flatMap(([name, value]) =>
      Number.isFinite(value) ? [[`${rate}perS${name}`, value]] : [],
    ),
  );
}

/** 25,000 updates/s by arithmetic: what fits here is a matter of what else runs here. */
function coresFor(figures: Figures, flooded: Figures): string {
  const us = (name: string) => figures[`1perS${name}`] ?? Number.NaN;
  const cores = (each: number) => ((each * 25_000) / 1e6).toFixed(1);
  const most = flooded['flood25000UpdatesPerS'];
  const flood = most === undefined ? '' : ` Flooded with 25,000/s, ${Math.round(most)}/s were sent.`;
  return `25,000 updates/s at 1/s a trip take ${cores(us('CpuUsPerUpdate'))} cores of gateways and location, ${cores(us('RedisCpuUsPerUpdate'))} of Redis and ${cores(us('NatsCpuUsPerUpdate'))} of NATS (arithmetic, from the figures at 1/s).${flood}`;
}

/** Redis alone, at the size of the other figures and of the platform. */
async function redisFigures(quick: boolean, rounds: number): Promise<Figures> {
  const [few, many, ticks] = quick ? [500, 2500, 2] : [2000, 25_000, 6];
  const loads: Record<string, RedisLoad> = {
    [`redis${few}TripsCpuUsPerUpdate`]: { trips: few, ticks },
    [`redis${few}TripsBareCpuUsPerUpdate`]: { trips: few, ticks, bare: true },
    [`redis${many}TripsCpuUsPerUpdate`]: { trips: many, ticks },
    [`redis${many}TripsBareCpuUsPerUpdate`]: { trips: many, ticks, bare: true },
    [`redis${many}TripsWith512CpuUsPerUpdate`]: {
      trips: many,
      ticks,
      settings: { 'hash-max-listpack-entries': '512' },
    },
  };
  const measured = Object.entries(loads).map(([name, each]) => ({ name, each, us: [] as number[] }));
  for (let round = 0; round < rounds; round++)
    for (const { each, us } of measured) us.push(await redisCpuUsPerUpdate(each));
  return Object.fromEntries(measured.map(({ name, us }) => [name, quantile(us, 0.5)]));
}

const bench: Bench = async ({ quick }) => {
  /** The same number of updates a second at each rate: what one costs falls as they come faster. */
  const updatesPerS = quick ? 500 : 2000;
  const [forMs, rounds] = quick ? [3000, 1] : [10_000, 3];
  const stops: (() => Promise<unknown>)[] = [];
  const keep = (stop: () => Promise<unknown>) => void stops.push(stop);
  try {
    const redisAlone = await redisFigures(quick, rounds);
    const { contender: ours, ride } = await startOurs(keep);
    const baseline = await startPlain(keep);
    const bare = await startLocal('bare', supersededWithinMs, keep);
    const relay = await startLocal('relay', 0, keep);
    const fleet = Array.from({ length: generators }, startGenerator);
    for (const generator of fleet) keep(() => generator.stop());

    await pause(warmMs);
    const beforeIdle = await cpuOf(ours.pids);
    await pause(forMs);
    const idleMsPerS = ((await cpuOf(ours.pids)) - beforeIdle) / (forMs / 1000);

    const people: People[] = [];
    await forEach(updatesPerS, 20, async (n) => {
      people[n] = await ride();
    });
    const contenders = [ours, baseline, bare, relay];
    const costs = new Map<string, Cost>();
    const costOf = (rate: number, { name }: Contender): Cost => {
      const cost = costs.get(`${rate} ${name}`) ?? noCost();
      costs.set(`${rate} ${name}`, cost);
      return cost;
    };
    const load = (rate: number): Load => ({ trips: updatesPerS / rate, perTripPerS: rate, forMs });
    for (const rate of rates) {
      // Only who takes part: an idle phone costs its heartbeats
      for (const contender of contenders)
        await connect(fleet, contender, people.slice(0, updatesPerS / rate));
      // Everybody has run through all of it before anything counts
      for (const contender of contenders) await takeTurn(fleet, contender, load(rate), noCost());
      for (let round = 0; round < rounds; round++)
        for (const contender of contenders)
          await takeTurn(fleet, contender, load(rate), costOf(rate, contender));
      for (const { name } of contenders) await disconnect(fleet, name);
    }

    const flooded: Figures = {};
    if (!quick) {
      await connect(fleet, ours, people);
      for (const perS of floods) {
        const cost = noCost();
        const flood: Load = { trips: updatesPerS, perTripPerS: perS / updatesPerS, forMs };
        await takeTurn(fleet, ours, flood, cost);
        const { sent, lost, superseded, processedToReceivedMs } = cost.delivery;
        Object.assign(flooded, {
          [`flood${perS}UpdatesPerS`]: sent / (cost.tookMs / 1000),
          [`flood${perS}UpdatesPerCoreS`]: 1e6 / perUpdateUs(cost.serverMs, cost),
          [`flood${perS}SupersededPercent`]: (superseded / sent) * 100,
          [`flood${perS}Lost`]: lost,
          [`flood${perS}RedisCpuUsPerUpdate`]: perUpdateUs(cost.redisMs, cost),
          [`flood${perS}RedisCommandsPerUpdate`]: cost.sentCommands / cost.monitoredUpdates,
          [`flood${perS}ProcessedToReceivedP99Ms`]: quantile(processedToReceivedMs, 0.99),
          [`flood${perS}GeneratorCpuUsPerUpdate`]: perUpdateUs(cost.generatorMs, cost),
        });
      }
    }

    const figures: Figures = { idleCpuMsPerS: idleMsPerS, ...redisAlone };
    const theirs: Figures = {};
    const ratio: Figures = {};
    const targets: Target[] = [];
    let [lost, doubled, errors] = [0, 0, 0];
    for (const rate of rates) {
      const [our, plain] = [costOf(rate, ours), costOf(rate, baseline)];
      const [least, raw] = [costOf(rate, bare), costOf(rate, relay)];
      lost += our.delivery.lost;
      doubled += our.delivery.doubled;
      errors += our.errors;
      const [mine, its] = [figuresOf(rate, our), figuresOf(rate, plain)];
      Object.assign(figures, mine);
      Object.assign(theirs, its);
      figures[`${rate}perSBareCpuUsPerUpdate`] = perUpdateUs(least.serverMs, least);
      figures[`${rate}perSRelayCpuUsPerUpdate`] = perUpdateUs(raw.serverMs, raw);
      const of = (part: Figures, name: string) => part[`${rate}perS${name}`] ?? Number.NaN;
      const cpu = of(its, 'CpuUsPerUpdate') / of(mine, 'CpuUsPerUpdate');
      const commands = of(its, 'RedisCommandsPerUpdate') / of(mine, 'RedisCommandsPerUpdate');
      ratio[`${rate}perSCpuUsPerUpdate`] = cpu;
      ratio[`${rate}perSRedisCommandsPerUpdate`] = commands;
      const at = `at ${rate}/s a trip`;
      if (rate === 1) targets.push(atLeast('R2', `baseline's CPU an update by ours, ${at}`, cpu, 2));
      if (rate === 5) targets.push(atLeast('R2', `baseline's CPU an update by ours, ${at}`, cpu, 5));
      targets.push(
        atMost(
          'R2',
          `CPU an update by that of a raw relay, ${at}`,
          perUpdateUs(our.serverMs, our) / perUpdateUs(raw.serverMs, raw),
          1.5,
        ),
        atMost('R2.2', `CPU of Redis an update, ${at}, µs`, of(mine, 'RedisCpuUsPerUpdate'), 8),
        atLeast('R2.2', `baseline's Redis commands an update by ours, ${at}`, commands, 50),
        atMost('R1.3', `processed to received, p99, ${at}, ms`, of(mine, 'ProcessedToReceivedP99Ms'), 100),
      );
    }
    return {
      name: 'location',
      lost: lost + errors,
      doubled,
      figures: { ...figures, ...flooded },
      baseline: theirs,
      ratio,
      targets,
      notes: [
        `${updatesPerS} updates/s in all at each rate, ${watchersEach} watchers a trip, one on each server; ${rounds} turns of ${forMs / 1000} s each, contenders in turns. Server CPU is that of all processes that serve (gateways and location; NATS and Redis apart). By design the newest update of a trip and second is delivered: the others are superseded, and not lost. Lost counts refusals and broken connections too: ${errors}.`,
        `Without checks and Redis: RelayCpuUsPerUpdate is a relay of \`ws\` alone, BareCpuUsPerUpdate a Socket.IO server that gives the newest position to its watchers once a second; what that takes, ours cannot be below. idleCpuMsPerS is what our four processes take when nobody is connected. redis… is Redis alone, so many trips reporting once a second (the median of ${rounds}); With512: with hash-max-listpack-entries 512, its own, instead of the 16 that we recommend; Bare: the same commands without a script, nothing compared. ${coresFor(figures, flooded)}`,
      ],
    };
  } finally {
    for (const stop of stops.toReversed()) await stop();
  }
};

export default bench;
