/**
 * R8.6: how a message reaches a room's members on every node, and what a fail-over does to it. Ours: an event of the broker
 * that every node hears, and local rooms. Baseline: Socket.IO's Redis adapter, classic and sharded, on Sentinel and on a
 * Cluster, whose primary is killed; docs/decisions/0007 has what follows from it.
 */
import { createServer, type Server as HttpServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as pause } from 'node:timers/promises';
import { createAdapter, createShardedAdapter } from '@socket.io/redis-adapter';
import { Cluster, type Redis } from 'ioredis';
import { Server } from 'socket.io';
import { io } from 'socket.io-client';
import { commandConnection, subscriberConnection } from '../../lib/redis-client.ts';
import { parseRedisUrl } from '../../lib/redis-url.ts';
import type { Bench, Figures } from '../support/bench/result.ts';
import { makeBroker } from '../support/broker.ts';
import { eventually } from '../support/eventually.ts';
import { startNats } from '../support/nats.ts';
import { freePort } from '../support/process.ts';
import { type RedisTopology, startCluster, startSentinel } from '../support/redis-topology.ts';

const everyMs = 20;
const room = 'user:usr_1';
const trip = { tripId: 'trp_1', riderId: 'usr_1', driverId: 'usr_2', status: 'ended' };

interface Way {
  /** Sends message `n` from one node to the room, whose member is on the other. */
  send(n: number): void;
  /** The port of the server that the member's node listens to, where that may be any. */
  listensTo?(): number;
  /** What the member gets. */
  onMessage(listener: (n: number) => void): void;
  stop(): Promise<void>;
}

async function listen(server: HttpServer): Promise<string> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

/** A node with a socket in the room, and a client that is it. */
async function memberOf(server: Server, http: HttpServer) {
  server.on('connection', (socket) => void socket.join(room));
  const client = io(await listen(http), { transports: ['websocket'], forceNew: true });
  await eventually(() => {
    if (!server.sockets.adapter.rooms.has(room)) throw new Error('Nobody is in the room');
  });
  return client;
}

async function throughBroker(natsUrl: string): Promise<Way> {
  const http = createServer();
  const server = new Server(http);
  const env = { NATS_URL: natsUrl, NAMESPACE: `rooms-${process.pid}` };
  const [from, to] = [makeBroker('from', env), makeBroker('to', env)];
  to.createService({
    name: 'gateway',
    events: {
      'trip.ended': ({ params }: { params: { at: number } }) =>
        void server.local.to(room).emit('message', params.at),
    },
  });
  await Promise.all([from.start(), to.start()]);
  await from.waitForServices('gateway');
  const client = await memberOf(server, http);
  return {
    send: (n) => void from.broadcast('trip.ended', { ...trip, at: n }).catch(() => undefined),
    onMessage: (listener) => void client.on('message', listener),
    async stop() {
      client.close();
      await server.close();
      await Promise.all([from.stop(), to.stop()]);
    },
  };
}

/** ioredis as the adapter's own guide sets it up; `ours` are the connections that our services have. */
async function throughAdapter(topology: RedisTopology, kind: 'classic' | 'sharded'): Promise<Way> {
  const parsed = parseRedisUrl(topology.url);
  if ('problem' in parsed) throw new Error(parsed.problem);
  const { target } = parsed;
  const connections: (Redis | Cluster)[] = [];
  const keep = <C extends Redis | Cluster>(connection: C): C => {
    // Killing servers is what it is about; lost messages are counted
    connection.on('error', () => undefined);
    connections.push(connection);
    return connection;
  };
  let listening: Redis | undefined;
  const adapter = () => {
    const publisher = keep(commandConnection(target));
    if (kind === 'classic') {
      const subscriber = keep(subscriberConnection(target));
      subscriber.options.autoResubscribe = true;
      listening = subscriber;
      return createAdapter(publisher, subscriber);
    }
    const subscriber = keep(
      target.topology === 'cluster'
        ? new Cluster(target.nodes, { shardedSubscribers: true, slotsRefreshInterval: 2000 })
        : subscriberConnection(target),
    );
    if (!(subscriber instanceof Cluster)) subscriber.options.autoResubscribe = true;
    return createShardedAdapter(publisher, subscriber);
  };
  const [http, otherHttp] = [createServer(), createServer()];
  const [from, to] = [
    new Server(otherHttp, { adapter: adapter() }),
    new Server(http, { adapter: adapter() }),
  ];
  await listen(otherHttp);
  const client = await memberOf(to, http);
  return {
    ...(kind === 'classic' && target.topology === 'cluster'
      ? { listensTo: () => listening?.options.port ?? 0 }
      : {}),
    send: (n) => void from.to(room).emit('message', n),
    onMessage: (listener) => void client.on('message', listener),
    async stop() {
      client.close();
      await Promise.all([from.close(), to.close()]);
      for (const connection of connections) connection.disconnect();
    },
  };
}

/** The adapter does not handle that a command fails: what it leaves is counted here, and not the end of this process. */
let unhandledCount = 0;
const onUnhandled = (): void => void unhandledCount++;

interface Outcome {
  sent: number;
  lost: number;
  doubled: number;
  /** The longest time without a message, ms. */
  silentMs: number;
  /** Rejections that nobody handles: without a handler of its own the process would have ended. */
  unhandled: number;
  /** Before the failure, from sending to having, ms. */
  p50Ms: number;
}

/** Sends for `forMs`, and lets something fail after a quarter of it. */
async function measure(way: Way, forMs: number, fail: () => Promise<void>): Promise<Outcome> {
  const sentAt: number[] = [];
  const got = new Map<number, number>();
  let doubled = 0;
  way.onMessage((n) => {
    if (got.has(n)) doubled++;
    else got.set(n, performance.now());
  });
  // It takes a moment until each node knows of the other
  await eventually(() => {
    way.send(-1);
    if (!got.has(-1)) throw new Error('Nothing arrives');
  }, 10_000);
  doubled = 0;
  got.clear();
  const unhandledBefore = unhandledCount;
  const begin = performance.now();
  let failing: Promise<void> | undefined;
  for (let n = 0; performance.now() - begin < forMs; n++) {
    if (!failing && performance.now() - begin > forMs / 4) failing = fail();
    sentAt.push(performance.now());
    way.send(n);
    await pause(everyMs);
  }
  await failing;
  // What has not come after 2 s is lost
  const allHere = () => {
    if (got.size < sentAt.length) throw new Error('Some are on their way');
  };
  await eventually(allHere, 2000).catch(() => undefined);
  const arrivals = [begin, ...[...got.values()].toSorted((a, b) => a - b), begin + forMs];
  const gaps = arrivals.slice(1).map((at, n) => at - (arrivals[n] ?? at));
  const early = sentAt.slice(0, Math.floor(sentAt.length / 5)).flatMap((at, n) => (got.get(n) ?? at) - at);
  return {
    sent: sentAt.length,
    lost: sentAt.length - [...got.keys()].filter((n) => n >= 0).length,
    doubled,
    unhandled: unhandledCount - unhandledBefore,
    silentMs: Math.max(...gaps),
    p50Ms: early.toSorted((a, b) => a - b)[Math.floor(early.length / 2)] ?? Number.NaN,
  };
}

const figuresOf = (name: string, { sent, lost, doubled, unhandled, silentMs, p50Ms }: Outcome): Figures => ({
  [`${name}Sent`]: sent,
  [`${name}Lost`]: lost,
  [`${name}Doubled`]: doubled,
  [`${name}Unhandled`]: unhandled,
  [`${name}SilentMs`]: silentMs,
  [`${name}P50Ms`]: p50Ms,
});

/** What both adapters publish to for that room: on a Cluster its slot says which primary carries it. */
const channel = `socket.io#/#${room}#`;

async function adapterOn(
  start: () => Promise<RedisTopology>,
  kind: 'classic' | 'sharded',
  forMs: number,
): Promise<Outcome> {
  const topology = await start();
  try {
    const way = await throughAdapter(topology, kind);
    try {
      return await measure(way, forMs, async () =>
        topology.kill(way.listensTo?.() ?? (await topology.primaryOf(channel))),
      );
    } finally {
      await way.stop();
    }
  } finally {
    await topology.stop();
  }
}

const bench: Bench = async ({ quick }) => {
  const forMs = quick ? 12_000 : 30_000;
  process.on('unhandledRejection', onUnhandled);
  const port = await freePort();
  let nats = await startNats(port);
  let calm: Outcome;
  let natsGone: Outcome;
  try {
    const way = await throughBroker(nats.url);
    calm = await measure(way, forMs / 4, async () => undefined);
    await way.stop();
    const shaken = await throughBroker(nats.url);
    natsGone = await measure(shaken, forMs, async () => {
      await nats.stop();
      nats = await startNats(port);
    });
    await shaken.stop();
  } finally {
    await nats.stop();
  }
  const baseline: Figures = {};
  for (const kind of ['classic', 'sharded'] as const) {
    Object.assign(baseline, figuresOf(`${kind}Sentinel`, await adapterOn(startSentinel, kind, forMs)));
    Object.assign(baseline, figuresOf(`${kind}Cluster`, await adapterOn(startCluster, kind, forMs)));
  }
  process.off('unhandledRejection', onUnhandled);
  return {
    name: 'rooms',
    lost: calm.lost,
    doubled: calm.doubled + natsGone.doubled,
    figures: { ...figuresOf('calm', calm), ...figuresOf('natsRestarted', natsGone) },
    baseline,
    ratio: {},
    targets: [],
    notes: [
      `A message each ${everyMs} ms from one node to a socket on another. Baseline: the Redis adapter while the server that its channel comes from is killed, and a replica takes over (Sentinel and Cluster with 1.5 s). Ours does not use Redis; instead NATS is killed and started again.`,
    ],
  };
};

export default bench;
