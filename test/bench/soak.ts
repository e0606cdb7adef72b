/**
 * R1.4: connections that stay. Riders and drivers through the balancer on two gateways, positions all the while, for ten
 * minutes: how many connections drop. Then R1.2: one gateway is killed, and how long until all are back.
 */
import { setTimeout as pause } from 'node:timers/promises';
import { io } from 'socket.io-client';
import { processCpuMs } from '../support/bench/machine.ts';
import { atMost, type Bench, type Figures } from '../support/bench/result.ts';
import { activeTrip, aracaju, type ClientSocket, signIn } from '../support/clients.ts';
import { type Cluster, startCluster } from '../support/cluster.ts';
import { eventually } from '../support/eventually.ts';
import { freePort } from '../support/process.ts';
import { Durations } from '../support/simulate/meter.ts';

const roles = {
  data: 'accounts,trips,notify,admin,sos,safety',
  location: 'location',
  'api-1': 'api',
  'gateway-1': 'gateway',
  'gateway-2': 'gateway',
};
const rides = 10;
/** As phones do while they move, ms. */
const reportEveryMs = 5000;
const connectsAtOnce = 50;

/** A rider's app: in its room, back in it after a loss, with what it missed. */
interface Rider {
  socket: ClientSocket;
  /** Of the updates that it has been sent, live or afterwards. */
  seen: Set<number>;
  cursor: number;
  joined: boolean;
  /** When it was in its room again, by performance.now(). */
  joinedAt: number;
}

function ride(
  cluster: Cluster,
  token: string,
  tripId: string,
  onDrop: () => void,
  latency: Durations,
): Rider {
  const socket: ClientSocket = io(cluster.socketUrl, {
    auth: { token },
    transports: ['websocket'],
    forceNew: true,
  });
  const rider: Rider = { socket, seen: new Set(), cursor: 0, joined: false, joinedAt: 0 };
  const see = ({ timestamp, at }: { timestamp: number; at: number }) => {
    rider.seen.add(timestamp);
    rider.cursor = Math.max(rider.cursor, at);
  };
  const join = async () => {
    const ack = await socket.timeout(10_000).emitWithAck('trip:join', { tripId, after: rider.cursor });
    if (!ack.ok) throw new Error(ack.error.code);
    for (const update of ack.missed) see(update);
    rider.joined = true;
    rider.joinedAt = performance.now();
  };
  socket.on('connect', () => void join().catch(() => socket.disconnect().connect()));
  socket.on('location', (update) => {
    latency.add(Date.now() - update.at);
    see(update);
  });
  socket.on('disconnect', (reason) => {
    rider.joined = false;
    if (reason !== 'io client disconnect') onDrop();
  });
  return rider;
}

const residentMb = async (cluster: Cluster, name: string): Promise<number> => {
  const text = await (await fetch(`${cluster.role(name).metricsUrl}/metrics`)).text();
  return Number(/^process_memory_rss\{[^}]*\} (\d+)/m.exec(text)?.[1] ?? Number.NaN) / 2 ** 20;
};

const bench: Bench = async ({ quick }) => {
  const [forMs, riderCount] = quick ? [30_000, 200] : [600_000, 2000];
  const ports = { api: await freePort(), socket: await freePort(), metrics: await freePort() };
  const cluster = await startCluster({
    roles,
    redis: 'single',
    ports,
    env: { RATE_LIMIT_PER_USER: '1000000' },
  });
  const sockets: ClientSocket[] = [];
  const over = new AbortController();
  try {
    const admin = await eventually(() => signIn(cluster, '+919800000000'), 20_000);
    const trips: Awaited<ReturnType<typeof activeTrip>>[] = [];
    for (let n = 0; n < rides; n++) trips.push(await activeTrip(cluster));
    let drops = 0;
    const latency = new Durations();
    const riders: Rider[][] = trips.map(() => []);
    for (let n = 0; n < riderCount; n += connectsAtOnce) {
      const batch = Array.from({ length: Math.min(connectsAtOnce, riderCount - n) }, (_, index) => {
        const trip = (n + index) % rides;
        const rider = ride(cluster, admin.token, trips[trip]?.tripId ?? '', () => drops++, latency);
        riders[trip]?.push(rider);
        sockets.push(rider.socket);
        return rider;
      });
      await eventually(() => {
        if (batch.some(({ joined }) => !joined)) throw new Error('Not all are in their rooms');
      }, 30_000);
    }
    const all = riders.flat();
    const acknowledged = trips.map((): number[] => []);
    const driving = trips.map(async ({ tripId, driver }, n) => {
      const socket: ClientSocket = io(cluster.socketUrl, {
        auth: { token: driver.token },
        transports: ['websocket'],
        forceNew: true,
      });
      sockets.push(socket);
      await pause((n / rides) * reportEveryMs);
      while (!over.signal.aborted) {
        const fix = { tripId, ...aracaju, accuracy: 8, speed: 9, heading: 120, timestamp: Date.now() };
        const ack = await socket
          .timeout(4000)
          .emitWithAck('location:update', fix)
          .catch(() => null);
        if (ack?.ok) acknowledged[n]?.push(fix.timestamp);
        await pause(reportEveryMs, undefined, { signal: over.signal }).catch(() => undefined);
      }
    });

    const memoryBefore = await residentMb(cluster, 'gateway-1');
    const pid = cluster.role('gateway-1').child.pid ?? 0;
    const cpuBefore = await processCpuMs(pid);
    const startedAt = performance.now();
    await pause(forMs);
    const hours = (performance.now() - startedAt) / 3_600_000;
    const soaked: Figures = {
      connections: sockets.length,
      minutes: hours * 60,
      drops,
      dropsPerHourPercent: (drops / sockets.length / hours) * 100,
      gatewayCpuPercent: ((await processCpuMs(pid)) - cpuBefore) / (hours * 36_000),
      gatewayRssMb: await residentMb(cluster, 'gateway-1'),
      gatewayRssGrownMb: (await residentMb(cluster, 'gateway-1')) - memoryBefore,
    };
    const { p50, p99, max } = latency.total();

    const killedAt = performance.now();
    const held = all.filter(({ socket }) => socket.connected).length;
    await cluster.role('gateway-2').kill();
    let moved = 0;
    await eventually(() => {
      if (all.some(({ joined }) => !joined)) throw new Error('Not all are back');
      moved = all.filter(({ joinedAt }) => joinedAt > killedAt).length;
      if (moved === 0) throw new Error('Nobody has noticed yet');
    }, 60_000);
    const backAfterMs = Math.max(...all.map(({ joinedAt }) => joinedAt)) - killedAt;
    // One more of each driver, so that what came before it has come
    const until = Date.now();
    await eventually(() => {
      for (const [n, sent] of acknowledged.entries()) {
        const next = sent.find((timestamp) => timestamp >= until);
        if (next === undefined || riders[n]?.some(({ seen }) => !seen.has(next)))
          throw new Error('Still on the way');
      }
    }, 30_000);
    over.abort();
    await Promise.all(driving);
    // Acknowledged by a gateway that died in the next moment, a live position may be lost to all (docs/decisions/0005)
    const lost = riders.flatMap((each, n) => {
      const any = new Set(each.flatMap(({ seen }) => [...seen]));
      const due = (acknowledged[n] ?? []).filter((timestamp) => any.has(timestamp) && timestamp < until);
      return each.map(({ seen }) => due.filter((timestamp) => !seen.has(timestamp)).length);
    });
    return {
      name: 'soak',
      lost: lost.reduce((sum, each) => sum + each, 0),
      doubled: 0,
      figures: {
        ...soaked,
        processedToScreenP50Ms: p50 ?? Number.NaN,
        processedToScreenP99Ms: p99 ?? Number.NaN,
        processedToScreenMaxMs: max ?? Number.NaN,
        heldBeforeKill: held,
        movedByKill: moved,
        backAfterKillMs: backAfterMs,
      },
      baseline: {},
      ratio: {},
      targets: [
        atMost('R1.4', 'connections dropped an hour, %', soaked['dropsPerHourPercent'] ?? Number.NaN, 0.1),
        atMost('R1.3', 'from processing to each subscriber, p99, ms', p99 ?? Number.NaN, 100),
        atMost('R1.2', 'until all are in their rooms again after a kill, ms', backAfterMs, 5000),
      ],
      notes: [
        `${riderCount} riders watch ${rides} trips whose drivers report every ${reportEveryMs / 1000} s; two gateways behind HAProxy, clients and all else on this machine. Lost: an update that some watcher of the trip got and another did not, live or with its next join.`,
      ],
    };
  } finally {
    over.abort();
    for (const socket of sockets) socket.close();
    await cluster.stop();
  }
};

export default bench;
