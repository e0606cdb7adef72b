/**
 * Connections to Redis, whatever its topology: one server, the primary of a Sentinel group, or a Cluster. Bounded
 * where somebody waits for an answer, patient where nobody does; all come back by themselves.
 */
import { Cluster, Command, Redis, type RedisOptions } from 'ioredis';
import type { RedisTarget } from './redis-url.ts';
import { followSwitches } from './sentinel-switches.ts';

/** All commands and pipelines; on a Cluster a pipeline takes keys of one node only (lib/redis-pipelines.ts). */
export type RedisConnection = Redis | Cluster;

/** 50, 100 … ms up to 2 s, half of it by chance. */
const backoff = (attempt: number) =>
  Math.min(2000, 50 * 2 ** Math.min(attempt, 6)) * (0.5 + Math.random() / 2);

/** An answer takes no longer than this, ms. */
const commandTimeoutMs = 2000;

const common = {
  lazyConnect: true,
  connectTimeout: 2000,
  // ioredis lets this timer run after a disconnect; its 2 s would hold a process that has stopped
  disconnectTimeout: 50,
  // A peer that vanished without a word is noticed after some 15 s also where nothing is sent
  keepAlive: 5000,
} satisfies RedisOptions;

/** Fails a command after 2 s rather than hold it for ever; a server that hangs is left after 3 s. */
const forCommands = {
  ...common,
  commandTimeout: commandTimeoutMs,
  maxRetriesPerRequest: 2,
  socketTimeout: 3000,
  // A primary that has become a replica: ask again who the primary is
  reconnectOnError: (error: Error) => (error.message.startsWith('READONLY') ? 1 : false),
} satisfies RedisOptions;

/** Whoever listens subscribes again by itself when the connection is ready, and then looks what it missed. */
const forSubscriber = {
  ...common,
  commandTimeout: undefined,
  maxRetriesPerRequest: null,
  autoResubscribe: false,
} satisfies RedisOptions;

/** Holds commands until they can be answered, and sends again what a demoted primary refused: for workers only. */
const forWorker = {
  ...common,
  // Bull waits for `ready` before it says anything
  lazyConnect: false,
  maxRetriesPerRequest: null,
  enableReadyCheck: false,
  reconnectOnError: (error: Error) => (error.message.startsWith('READONLY') ? 2 : false),
} satisfies RedisOptions;

/** How many replicas must have what is acknowledged, by connection. */
const replicaCounts = new WeakMap<RedisConnection, number>();

/** What the address of a connection asks for (`?replicas=`, or what its topology implies). */
export const replicasOf = (connection: RedisConnection): number => replicaCounts.get(connection) ?? 0;

/**
 * A connection for commands, not connected yet. Listen to its errors.
 * `hold`: commands wait for the connection (2 s) where they are refused at once without it.
 */
export function commandConnection(target: RedisTarget, { hold = true } = {}): RedisConnection {
  const connection = connectionTo(target, { ...forCommands, enableOfflineQueue: hold }, false);
  replicaCounts.set(connection, target.replicas);
  return connection;
}

/**
 * A connection of a queue's worker: commands have no deadline. One whose server has been silent for `silentMs` with a
 * command under way is made anew, so blocking commands must block for less.
 */
export function workerConnection(target: RedisTarget, silentMs: number): RedisConnection {
  const connection = connectionTo(target, { ...forWorker, socketTimeout: silentMs }, true);
  if (connection instanceof Redis) holdSubscriptions(connection);
  return connection;
}

/**
 * ioredis (5.11) subscribes again by itself when a connection is back, and holds no promise of it: closed just then it would end
 * the process.
 */
function holdSubscriptions(connection: Redis): void {
  for (const name of ['subscribe', 'psubscribe'] as const) {
    const subscribe = connection[name].bind(connection) as (...args: unknown[]) => Promise<unknown>;
    connection[name] = (...args: unknown[]) => {
      const subscribed = subscribe(...args);
      // Whoever asked hears of it all the same
      subscribed.catch(() => undefined);
      return subscribed;
    };
  }
}

/**
 * A connection for classic pub/sub. It does not subscribe again by itself. On a Cluster it is one to any node, since
 * every node hears every message; each attempt takes the next.
 */
export function subscriberConnection(target: RedisTarget): Redis {
  if (target.topology !== 'cluster')
    return tended(new Redis({ ...forSubscriber, ...addressOf(target), retryStrategy: backoff }), target);
  let nodes = target.nodes;
  let next = Math.floor(Math.random() * nodes.length);
  const connection: Redis = new Redis({
    ...forSubscriber,
    ...accessOf(target),
    ...nodes[next],
    retryStrategy(attempt) {
      Object.assign(connection.options, nodes[++next % nodes.length]);
      return backoff(attempt);
    },
  });
  // Before anything is subscribed: who else is there to go to
  connection.on('ready', () => {
    connection.cluster('SLOTS').then(
      (ranges) => {
        const found = ranges.flatMap(([, , ...members]) => members.map(([host, port]) => ({ host, port })));
        nodes = [...found.filter(({ host }) => host), ...target.nodes];
      },
      (error: Error) => connection.emit('error', error),
    );
  });
  return connection;
}

const accessOf = ({ username, password, tls }: RedisTarget): RedisOptions => ({
  ...(username === undefined ? {} : { username }),
  ...(password === undefined ? {} : { password }),
  ...(tls ? { tls: {} } : {}),
});

function addressOf(target: RedisTarget): RedisOptions {
  const { topology, nodes, socketPath, db } = target;
  if (socketPath !== undefined) return { path: socketPath };
  if (topology === 'single') return { ...accessOf(target), ...nodes[0], db };
  const { group, tls, sentinelUsername, sentinelPassword } = target;
  return {
    ...accessOf(target),
    db,
    sentinels: nodes,
    ...(group === undefined ? {} : { name: group }),
    ...(sentinelUsername === undefined ? {} : { sentinelUsername }),
    ...(sentinelPassword === undefined ? {} : { sentinelPassword }),
    ...(tls ? { enableTLSForSentinelMode: true, sentinelTLS: {} } : {}),
    sentinelCommandTimeout: 1000,
    // Without a number ioredis gives the connection up for good when no Sentinel answers
    sentinelRetryStrategy: (attempt) => Math.min(1000, backoff(attempt)),
  };
}

function connectionTo(target: RedisTarget, options: RedisOptions, patient: boolean): RedisConnection {
  if (target.topology !== 'cluster')
    return tended(new Redis({ ...options, ...addressOf(target), retryStrategy: backoff }), target);
  const { enableOfflineQueue: _, retryStrategy: __, ...redisOptions } = options;
  const cluster = new Cluster(target.nodes, {
    lazyConnect: !patient,
    // The Cluster's own queue has no deadline
    enableOfflineQueue: patient,
    clusterRetryStrategy: backoff,
    // A killed node is asked for again some 0.4 s; then the caller hears of it
    maxRedirections: patient ? 64 : 8,
    retryDelayOnFailover: 100,
    retryDelayOnClusterDown: 100,
    // Who hangs answers no MOVED: only the table says that another has taken over
    slotsRefreshInterval: 2000,
    slotsRefreshTimeout: 1000,
    // The certificate is for the name, not for its address
    ...(target.tls ? { dnsLookup: (host, done) => done(null, host) } : {}),
    redisOptions: { ...redisOptions, ...accessOf(target) },
  });
  return tendedCluster(cluster, target);
}

/** A Cluster, and the copies that are made of it, whose connections are tended. */
function tendedCluster(cluster: Cluster, target: RedisTarget): Cluster {
  const duplicate = cluster.duplicate.bind(cluster);
  cluster.duplicate = (...overrides) => tendedCluster(duplicate(...overrides), target);
  return cluster.on('+node', (node: Redis) => tended(node, target));
}

/** A connection, and the copies that are made of it, with what ioredis lacks. */
function tended(connection: Redis, target: RedisTarget): Redis {
  const duplicate = connection.duplicate.bind(connection);
  // A Cluster asks for its slots on a copy each time, and leaves one that does not answer after a second
  connection.duplicate = (override) => tended(duplicate(override), target);
  tidyTimer(connection);
  if (target.topology === 'sentinel') followSwitches(target, connection);
  return connection;
}

/**
 * ioredis (5.11) leaves the timer of `socketTimeout` running when a connection closes with commands under way: it would
 * end the next connection, or hold a process that has stopped.
 */
function tidyTimer(connection: Redis): void {
  connection.on('close', () => {
    clearTimeout(Reflect.get(connection, 'socketTimeoutTimer') as NodeJS.Timeout | undefined);
    Reflect.set(connection, 'socketTimeoutTimer', undefined);
  });
}

/** Begins to connect, unless that has begun already, and waits for it, at most so long (ms). Is it ready? */
export async function isReady(connection: RedisConnection, withinMs = commandTimeoutMs): Promise<boolean> {
  if (connection.status === 'ready') return true;
  // A first failure is told by the `error` event; it goes on trying by itself
  if (connection.status === 'wait') connection.connect().catch(() => undefined);
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      connection.off('ready', done);
      resolve(connection.status === 'ready');
    };
    const timer = setTimeout(done, Math.max(0, withinMs));
    connection.once('ready', done);
  });
}

/** The hash slot of a key, as the client itself routes it. */
const slotOf = (key: string): number => new Command('exists', [key]).getSlot();

/** Which node a Cluster client sends a key to: equal texts may share a pipeline. */
export const ownersOf = (cluster: Cluster, key: string): string =>
  cluster.slots[slotOf(key)]?.join(';') ?? '';

/** The connection to the primary that has the key; undefined while nobody is known to have it. */
export function primaryOf(connection: RedisConnection, key: string): Redis | undefined {
  if (connection instanceof Redis) return connection;
  const [owner] = connection.slots[slotOf(key)] ?? [];
  return owner === undefined ? undefined : nodeAt(connection, owner);
}

/** A Cluster's connection to the node at `host:port`, if it has one. */
export const nodeAt = (cluster: Cluster, address: string): Redis | undefined =>
  cluster.nodes().find(({ options }) => `${options.host}:${options.port}` === address);

/** Asks the Cluster again who has which slots. */
export const refreshSlots = (cluster: Cluster): Promise<void> =>
  new Promise((resolve) => {
    // Who fails to refresh meets the old table, and its errors say so
    cluster.refreshSlotsCache(() => resolve());
  });

const siblings = new WeakMap<RedisConnection, RedisConnection>();
const closed = new WeakSet<RedisConnection>();

/** A second connection like this one, made when first asked for; closed with it by `closeConnection`. */
export function siblingOf(connection: RedisConnection): RedisConnection {
  const known = siblings.get(connection);
  if (known) return known;
  const sibling = connection.duplicate();
  sibling.on('error', (error: Error) => connection.emit('error', error));
  siblings.set(connection, sibling);
  if (closed.has(connection)) closeConnection(sibling);
  return sibling;
}

/** Ends a connection and its sibling. */
export function closeConnection(connection: RedisConnection): void {
  closed.add(connection);
  for (const one of [siblings.get(connection), connection]) {
    const isBetween = one?.status === 'reconnecting';
    one?.disconnect();
    if (one && isBetween) refuseWaiting(one);
    // Closed while it asks for the slots, ioredis (5.11) would go on asking for ever, and hold the process
    if (one instanceof Cluster) one.refreshSlotsCache(() => stopRefreshing(one));
  }
}

/** Closed between two attempts to connect, ioredis (5.11) leaves what waits for the next one waiting for ever. */
function refuseWaiting(connection: RedisConnection): void {
  const flush: unknown = Reflect.get(connection, 'flushQueue');
  if (typeof flush === 'function') Reflect.apply(flush, connection, [new Error('Connection is closed.')]);
}

function stopRefreshing(cluster: Cluster): void {
  const stop: unknown = Reflect.get(cluster, 'clearNodesRefreshInterval');
  if (typeof stop === 'function') Reflect.apply(stop, cluster, []);
}
