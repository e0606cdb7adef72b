/**
 * R1.1, R1.2, R1.4, R3.3: what a connection costs a gateway, how fast they come, how soon all are back, in their rooms, when a
 * gateway is killed or stops, and what that does to others and to an SOS. Real role processes; the clients are lean ones in processes
 * of their own. Baseline: Socket.IO as it comes.
 */
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { setTimeout as pause } from 'node:timers/promises';
import type { ServiceSchema } from 'moleculer';
import { newId } from '../../lib/ids.ts';
import { type Sessions, sessions } from '../../mixins/sessions.ts';
import { connectionsFor } from '../../services/gateway/refuse-handshakes.ts';
import type { CrowdOrder, CrowdState } from '../support/bench/crowd.ts';
import { inspect, statusBytes } from '../support/bench/inspected.ts';
import { processCpuMs } from '../support/bench/machine.ts';
import { atMost, type Bench, type Figures } from '../support/bench/result.ts';
import { quantile } from '../support/bench/sos-load.ts';
import { makeBroker } from '../support/broker.ts';
import { activeTrip, aracaju, connectSocket, type Doors, request, type User } from '../support/clients.ts';
import { eventually } from '../support/eventually.ts';
import { startHaproxy } from '../support/haproxy.ts';
import { startNats } from '../support/nats.ts';
import { freePort, type RoleProcess, startRoles } from '../support/process.ts';
import { startTestRedis } from '../support/redis.ts';
import { spawnAnnounced, spawnTied } from '../support/spawn.ts';

/** What one gateway takes (GATEWAY_MAX_CONNECTIONS). */
const fullNode = 15_000;
const kb = 1024;
const mb = 1024 * 1024;
/** They come and go before anything is measured: code is compiled, pools are filled. */
const warmUp = 500;
const atOnce = 100;
/** Trips that are watched when a gateway is killed. */
const rides = 10;

interface Crowd {
  state(): Promise<CrowdState>;
  /** Resolves when all are there, and so many have come back after a loss. */
  untilThere(withinMs: number, comebacks?: number): Promise<CrowdState>;
  leave(): Promise<void>;
}

function startCrowd(order: CrowdOrder): Crowd {
  const child = spawnTied(
    process.execPath,
    ['--disable-warning=ExperimentalWarning', 'test/support/bench/crowd.ts'],
    { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] },
  );
  const exited = once(child, 'exit');
  child.send(order);
  const state = async () => {
    child.send('state');
    const [answer] = (await Promise.race([
      once(child, 'message'),
      exited.then(() => Promise.reject(new Error('The clients have ended'))),
    ])) as [CrowdState];
    return answer;
  };
  return {
    state,
    untilThere: (withinMs, comebacks = 0) =>
      eventually(async () => {
        const now = await state();
        if (now.there < order.tokens.length || now.comebacks < comebacks)
          throw new Error(`${now.there} of ${order.tokens.length} are there: ${JSON.stringify(now.ended)}`);
        return now;
      }, withinMs),
    async leave() {
      child.kill('SIGKILL');
      await exited;
    },
  };
}

/** Makes a session for each of so many users, as a sign-in would; they are ours, so that they may watch any trip. */
async function signInAll(redisUrl: string, howMany: number): Promise<string[]> {
  const broker = makeBroker('signs-in', { REDIS_URL: redisUrl });
  const service = broker.createService({
    name: 'signs-in',
    mixins: [sessions()],
  } as unknown as ServiceSchema);
  await broker.start();
  try {
    const made = (service as unknown as { sessions: Sessions }).sessions;
    const tokens: string[] = [];
    while (tokens.length < howMany) {
      const some = Array.from({ length: Math.min(500, howMany - tokens.length) }, () =>
        made.create(newId('usr'), 'viewer', 1),
      );
      for (const { token } of await Promise.all(some)) tokens.push(token);
    }
    return tokens;
  } finally {
    await broker.stop();
  }
}

interface Load {
  tokens: string[];
  /** How long they are only there before they are measured, ms. */
  idleMs: number;
}

/** What so many connections cost a process, and how fast it lets them in. */
async function measure(
  server: { pid: number; inspectPort: number; url: string },
  { tokens, idleMs }: Load,
): Promise<Figures> {
  const inspected = await inspect(server.pid, server.inspectPort);
  const order = { url: server.url, tripIds: [], atOnce };
  const early = startCrowd({ ...order, tokens: tokens.slice(0, warmUp) });
  await early.untilThere(30_000);
  await early.leave();
  await pause(1000);
  const before = await inspected.memory();
  const cpuBefore = await processCpuMs(server.pid);
  const all = startCrowd({ ...order, tokens });
  try {
    const { beganAt, lastCameAt } = await all.untilThere(300_000);
    const cpuMs = (await processCpuMs(server.pid)) - cpuBefore;
    const peak = await statusBytes(server.pid, 'VmHWM');
    await pause(idleMs);
    const after = await inspected.memory();
    const { there, ended } = await all.state();
    return {
      connections: there,
      failed: Object.values(ended).reduce((sum, each) => sum + each, 0),
      eachKb: (after.resident - before.resident) / there / kb,
      heapEachKb: (after.heap - before.heap) / there / kb,
      emptyMb: before.resident / mb,
      idleMb: after.resident / mb,
      peakMb: peak / mb,
      connectsPerS: (there / (lastCameAt - beganAt)) * 1000,
      connectCpuMs: cpuMs / there,
    };
  } finally {
    await all.leave();
    inspected.close();
  }
}

async function measurePlain(load: Load): Promise<Figures> {
  const inspectPort = await freePort();
  const plain = await spawnAnnounced([
    '--max-semi-space-size=64',
    `--inspect-port=127.0.0.1:${inspectPort}`,
    'test/support/bench/plain-socket-io.ts',
  ]);
  try {
    return await measure({ pid: plain.child.pid ?? 0, inspectPort, url: plain.line }, load);
  } finally {
    await plain.stop();
  }
}

const connectionsOf = async ({ metricsUrl }: RoleProcess): Promise<number> => {
  const text = await (await fetch(`${metricsUrl}/metrics`)).text();
  return Number(/^gateway_connections\{[^}]*\} (\d+)/m.exec(text)?.[1] ?? Number.NaN);
};

const portOf = (url: string): number => Number(new URL(url).port);

type Fleet = Record<'data' | `gateway-${1 | 2 | 3 | 4}`, RoleProcess>;

interface Return {
  watchers: number;
  /** That were on the one that went. */
  moved: number;
  /** From the signal until the last was there. */
  backAfterMs: number;
  longestAwayMs: number;
  /** That lost their connection though their gateway stayed, and tries that failed. */
  cut: number;
  /** That did not come back. */
  lost: number;
  /** SOS meanwhile, at the gateway that is left and at the api. */
  presses: Presses;
}

/** How long presses took until they were accepted, ms, and how many were not. */
interface Presses {
  socketMs: number[];
  restMs: number[];
  failed: number;
}

/** Riders who press SOS, fifty times a second together, half on their sockets to `gateway` and half by REST, until `over`. */
async function press(gateway: Doors, riders: readonly User[], over: AbortSignal): Promise<Presses> {
  const sockets = await Promise.all(riders.map(({ token }) => connectSocket(gateway, token)));
  const presses: Presses = { socketMs: [], restMs: [], failed: 0 };
  const location = { ...aracaju, accuracy: 8 };
  const underWay: Promise<void>[] = [];
  const timed = async (times: number[], pressed: Promise<boolean>) => {
    const began = performance.now();
    if (await pressed.catch(() => false)) times.push(performance.now() - began);
    else presses.failed++;
  };
  for (let n = 0; !over.aborted; n++) {
    const [socket, rider] = [sockets[n % sockets.length], riders[n % riders.length]];
    if (!socket || !rider) throw new Error('Nobody is there to press');
    const onSocket = async () =>
      (await socket.timeout(30_000).emitWithAck('sos:trigger', { key: randomUUID(), location })).ok;
    const byRest = async () =>
      (await request(gateway, 'POST', '/api/v1/sos', { token: rider.token, body: { location } })).status ===
      202;
    underWay.push(timed(presses.socketMs, onSocket()), timed(presses.restMs, byRest()));
    await pause(40, undefined, { signal: over }).catch(() => undefined);
  }
  await Promise.all(underWay);
  for (const socket of sockets) socket.close();
  return presses;
}

/** Watchers through a balancer on two gateways, one of which goes: how soon all of them are in their rooms again. */
async function lose(
  how: 'SIGKILL' | 'SIGTERM',
  { data, 'gateway-1': stays, ...others }: Fleet,
  name: 'gateway-2' | 'gateway-3' | 'gateway-4',
  tokens: string[],
): Promise<Return> {
  const goes = others[name];
  const trips: Awaited<ReturnType<typeof activeTrip>>[] = [];
  for (let n = 0; n < rides; n++) trips.push(await activeTrip(data));
  const tripIds = trips.map(({ tripId }) => tripId);
  const ports = { apiPort: await freePort(), socketPort: await freePort(), metricsPort: await freePort() };
  const haproxy = await startHaproxy({
    ...ports,
    apis: [{ name: 'data', port: portOf(data.apiUrl) }],
    gateways: Object.entries({ stays, goes }).map(([each, { socketUrl, checkPort }]) => ({
      name: each,
      port: portOf(socketUrl),
      checkPort,
    })),
  });
  const watchers = startCrowd({ url: `http://127.0.0.1:${ports.socketPort}`, tokens, tripIds, atOnce });
  try {
    await watchers.untilThere(120_000);
    const moved = await connectionsOf(goes);
    const over = new AbortController();
    const lostAt = Date.now();
    goes.child.kill(how);
    const pressing = press(
      { apiUrl: data.apiUrl, socketUrl: stays.socketUrl },
      trips.map(({ rider }) => rider),
      over.signal,
    );
    const returning = watchers.untilThere(60_000, moved).catch(() => watchers.state());
    const [back, presses] = await Promise.all([returning.finally(() => over.abort()), pressing]);
    const lost = tokens.length - back.there;
    const ended = Object.values(back.ended).reduce((sum, each) => sum + each, 0);
    const backAfterMs = lost === 0 ? back.lastCameAt - lostAt : Number.NaN;
    const { longestAwayMs } = back;
    await goes.exited;
    return { watchers: tokens.length, moved, backAfterMs, longestAwayMs, cut: ended - moved, lost, presses };
  } finally {
    await watchers.leave();
    await haproxy.stop();
  }
}

const sosP99 = ({ presses: { socketMs, restMs } }: Return): number =>
  quantile([...socketMs, ...restMs], 0.99);

const pressFigures = (name: string, { socketMs, restMs }: Presses): Figures => ({
  [`${name}Presses`]: socketMs.length + restMs.length,
  [`${name}SocketP50Ms`]: quantile(socketMs, 0.5),
  [`${name}SocketP99Ms`]: quantile(socketMs, 0.99),
  [`${name}RestP50Ms`]: quantile(restMs, 0.5),
  [`${name}RestP99Ms`]: quantile(restMs, 0.99),
});

/** A connection through the balancer takes two of its files, and it needs some for itself. */
const balancedAtMost = (openFiles: number): number => Math.floor((openFiles - 1000) / 2);

const bench: Bench = async ({ quick }) => {
  const limits = await readFile('/proc/self/limits', 'utf8').catch(() => '');
  const most = connectionsFor(fullNode, limits);
  const count = quick ? Math.min(2000, most) : most;
  // The server asks each client within 25 s whether it is there: only then is it idle as connections are for hours
  const idleMs = quick ? 2000 : 30_000;
  const watchers = quick ? 400 : 2000;
  const crowd = quick ? 2000 : Math.min(9000, balancedAtMost(connectionsFor(Infinity, limits)));
  const closers: (() => Promise<unknown>)[] = [];
  try {
    const nats = await startNats();
    closers.push(() => nats.stop());
    const redis = await startTestRedis();
    closers.push(() => redis.stop());
    const providers = await spawnAnnounced(['bin/providers.ts']);
    closers.push(() => providers.stop());
    const inspectPort = await freePort();
    const roles = await startRoles(
      {
        data: 'api,accounts,trips,notify,location,safety,sos',
        'gateway-1': 'gateway',
        'gateway-2': 'gateway',
        'gateway-3': 'gateway',
        'gateway-4': 'gateway',
      },
      {
        NATS_URL: nats.url,
        REDIS_URL: redis.url,
        PROVIDERS_SANDBOX_URL: providers.line,
        RATE_LIMIT_PER_USER: '1000000',
        GATEWAY_DRAIN_MS: '15000',
        // Opened in one of them alone
        NODE_OPTIONS: `--inspect-port=127.0.0.1:${inspectPort}`,
      },
    );
    closers.push(() => roles.stop());
    const tokens = await signInAll(redis.url, Math.max(count, watchers, crowd));
    const load = { tokens: tokens.slice(0, count), idleMs };
    const { child, socketUrl } = roles.of['gateway-1'];
    const ours = await measure({ pid: child.pid ?? 0, inspectPort, url: socketUrl }, load);
    const plain = await measurePlain(load);
    const few = await lose('SIGKILL', roles.of, 'gateway-2', tokens.slice(0, watchers));
    const many = await lose('SIGKILL', roles.of, 'gateway-3', tokens.slice(0, crowd));
    const drained = await lose('SIGTERM', roles.of, 'gateway-4', tokens.slice(0, crowd));
    const returns = [few, many, drained];

    const { eachKb = Number.NaN, emptyMb = Number.NaN, peakMb = Number.NaN, connections = 0 } = ours;
    const isFull = connections === fullNode;
    const fullMb = isFull ? peakMb : emptyMb + (fullNode * eachKb) / kb;
    return {
      name: 'sockets',
      lost: count - connections + returns.reduce((sum, each) => sum + each.lost + each.presses.failed, 0),
      doubled: 0,
      figures: {
        ...ours,
        fullNodeMb: fullMb,
        watchers: few.watchers,
        movedByKill: few.moved,
        backAfterKillMs: few.backAfterMs,
        crowdWatchers: many.watchers,
        crowdMovedByKill: many.moved,
        crowdBackAfterKillMs: many.backAfterMs,
        crowdCut: many.cut,
        ...pressFigures('crowdSos', many.presses),
        drainMoved: drained.moved,
        drainTookMs: drained.backAfterMs,
        drainLongestAwayMs: drained.longestAwayMs,
        drainCut: drained.cut,
        ...pressFigures('drainSos', drained.presses),
      },
      baseline: plain,
      ratio: { eachKb: (plain['eachKb'] ?? Number.NaN) / eachKb },
      targets: [
        atMost('R1.1', 'memory of an idle connection, KB', eachKb, 25),
        atMost('R1.1', `memory of a gateway with ${fullNode} connections, MB`, fullMb, 600),
        atMost('R1.2', 'until all are in their rooms again after a kill, ms', few.backAfterMs, 5000),
        atMost('R1.2', 'that anybody is away while a gateway stops, ms', drained.longestAwayMs, 5000),
        atMost('R3.3', 'an SOS while they come back after a kill, p99, ms', sosP99(many), 500),
        atMost('R3.3', 'an SOS while a gateway stops, p99, ms', sosP99(drained), 500),
        atMost('R1.4', 'connections that the return of so many cut, and tries that failed', many.cut, 0),
        atMost('R1.4', 'the same while a gateway stops', drained.cut, 0),
      ],
      notes: [
        'Memory is what the process has of the machine (VmRSS) after a garbage collection, with connections less without; each has a session of its own. peakMb is the most that it ever had, garbage and all.',
        isFull
          ? `fullNodeMb is peakMb: the ${fullNode} were there.`
          : `fullNodeMb is arithmetic: emptyMb + ${fullNode} × eachKb; ${count} were there.`,
        `After the kill the one gateway that is left takes all ${few.moved}, at the same time as the clients' own pauses of 0.5 to 1.5 s (Socket.IO's); servers, balancer and clients share this machine. crowd…: the same with as many as the balancer has files for, where what counts is that their return does not bring down the gateway that is left. crowdSos…: until an SOS is accepted meanwhile, 25 a second on sockets of the gateway that is left and 25 by REST. drain…: the same crowd when one of two gateways stops (SIGTERM); half of its clients go when they are asked to, half wait until they are cut off.`,
      ],
    };
  } finally {
    // Late or not, the figures stand; and what has failed before is what should be told
    for (const close of closers.toReversed())
      await close().catch((error: unknown) => process.stderr.write(`${String(error)}\n`));
  }
};

export default bench;
