/** A whole system of many processes behind a balancer, each part of which can be killed. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Doors } from './clients.ts';
import { startHaproxy } from './haproxy.ts';
import { startNats } from './nats.ts';
import { type RoleEnvironment, type RoleProcess, startRole, untilReady } from './process.ts';
import {
  type RedisTopology,
  startCluster as startRedisCluster,
  startSentinel,
  startSingle,
} from './redis-topology.ts';
import { spawnAnnounced } from './spawn.ts';

export const redisKinds = ['single', 'sentinel', 'cluster'] as const;

export interface ClusterOptions {
  /** Name of a process → the services that it runs, comma-separated. */
  roles: Record<string, string>;
  redis: (typeof redisKinds)[number];
  /** Where the balancer listens. */
  ports: { api: number; socket: number; metrics: number };
  /** A database to use; without one a simulator of its wire protocol is started. */
  mongoUri?: string | undefined;
  /** For every role, over what the cluster sets itself. */
  env?: Record<string, string>;
  /** A line that a role has written. */
  onLine?: (name: string, line: string) => void;
  /** A role has ended by itself. */
  onEnd?: (name: string, how: string) => void;
  /** Gives up the start. */
  abort?: AbortSignal;
  /** What is being started. */
  onStep?: (what: string) => void;
  /** Every ten seconds: the roles that are not ready yet. */
  onSlow?: (names: string[]) => void;
}

/** One process, as it is shown to people. */
export interface Member {
  name: string;
  pid: number;
  /** Port and what for: `3101 REST`. */
  ports: string[];
}

export interface Cluster extends Doors {
  members(): Member[];
  role(name: string): RoleProcess;
  /** Of any member; the operating system's word for it, nothing is prepared. */
  signal(name: string, signal: NodeJS.Signals): void;
  /** Roles first, each finishing what it has; then what they lean on. */
  stop(): Promise<void>;
}

const runs = (services: string, service: string): boolean => services.split(',').includes(service);
const portOf = (url: string): number => Number(new URL(url).port);
/** All at once on a machine with few cores, ms. */
const readyWithinMs = 90_000;

/** How a role shows its ports: only a door has more than its metrics. */
function portsOf(services: string, { apiUrl, socketUrl, metricsUrl }: RoleProcess): string[] {
  return [
    ...(runs(services, 'api') ? [`${portOf(apiUrl)} REST`] : []),
    ...(runs(services, 'gateway') ? [`${portOf(socketUrl)} sockets`] : []),
    `${portOf(metricsUrl)} metrics`,
  ];
}

/** Redis for everything, and the one that SOS has to itself, which is never a Cluster; as production has them. */
async function startRedises(kind: ClusterOptions['redis'], keep: (one: RedisTopology) => void) {
  const ofSos = { appendfsync: 'always' };
  const start = { single: startSingle, sentinel: startSentinel, cluster: startRedisCluster }[kind];
  const main = await start();
  keep(main);
  const sos = kind === 'single' ? await startSingle(ofSos) : await startSentinel(ofSos);
  keep(sos);
  return { main, sos };
}

const redisMembers = (name: string, redis: RedisTopology): Member[] =>
  redis.processes().map(({ pid, port }, n) => ({
    name: `${name}-${n + 1}`,
    pid,
    ports: [`${port} ${redis.ports.includes(port) ? 'Redis' : 'Sentinel'}`],
  }));

/** Starts everything; resolves when all take traffic. Rejects, leaving nothing behind, when something does not start. */
export async function startCluster(options: ClusterOptions): Promise<Cluster> {
  const { ports, abort } = options;
  const onStep = (what: string) => {
    abort?.throwIfAborted();
    options.onStep?.(what);
  };
  const stops: (() => Promise<unknown>)[] = [];
  let stopping: Promise<void> | undefined;
  const stopAll = async () => {
    const failures: unknown[] = [];
    for (const stop of stops.toReversed()) await stop().catch((error: unknown) => failures.push(error));
    if (failures.length > 0) throw failures[0];
  };
  const stop = () => (stopping ??= stopAll());
  try {
    const root = await mkdtemp(join(tmpdir(), 'ride-cluster-'));
    stops.push(() => rm(root, { recursive: true, force: true }));
    onStep('NATS, Redis, database, providers');
    const nats = await startNats();
    stops.push(() => nats.stop());
    const redis = await startRedises(options.redis, (one) => void stops.push(() => one.stop()));
    const mongo = options.mongoUri ? null : await spawnAnnounced(['test/support/mongo-simulator/main.ts']);
    if (mongo) stops.push(() => mongo.stop());
    const providers = await spawnAnnounced(['bin/providers.ts']);
    stops.push(() => providers.stop());

    const env: RoleEnvironment = {
      NAMESPACE: root.slice(-6),
      NATS_URL: nats.url,
      REDIS_URL: redis.main.url,
      SOS_REDIS_URL: redis.sos.url,
      MONGO_URI: options.mongoUri ?? mongo?.line ?? '',
      PROVIDERS_SANDBOX_URL: providers.line,
      PUBLIC_URL: `http://localhost:${ports.api}`,
      TRUSTED_PROXIES: '1',
      LOG_FORMAT: 'pretty',
      ...options.env,
    };
    onStep(Object.keys(options.roles).join(', '));
    const roles = new Map<string, RoleProcess>();
    stops.push(async () => {
      const stopped = await Promise.allSettled([...roles.values()].map((role) => role.stop()));
      const failed = stopped.find((outcome) => outcome.status === 'rejected');
      if (failed) throw failed.reason;
    });
    for (const [name, services] of Object.entries(options.roles)) {
      const role = await startRole(services, join(root, name), { ...env, NODE_ID: name });
      roles.set(name, role);
      watch(name, role, { ...options, isStopping: () => stopping !== undefined });
    }
    const starting = new Set(roles.keys());
    const slow = setInterval(() => options.onSlow?.([...starting]), 10_000);
    const ready = [...roles].map(async ([name, role]) => {
      await untilReady(role, readyWithinMs);
      starting.delete(name);
    });
    await untilAborted(Promise.all(ready), abort).finally(() => clearInterval(slow));

    const running = (service: string) =>
      [...roles].filter(([name]) => runs(options.roles[name] ?? '', service));
    const haproxy = await startHaproxy({
      apiPort: ports.api,
      socketPort: ports.socket,
      metricsPort: ports.metrics,
      apis: running('api').map(([name, { apiUrl }]) => ({ name, port: portOf(apiUrl) })),
      gateways: running('gateway').map(([name, { socketUrl, checkPort }]) => ({
        name,
        port: portOf(socketUrl),
        checkPort,
      })),
    });
    // Clients hear of the end from their gateways, through it
    stops.splice(-1, 0, () => haproxy.stop());

    const members = (): Member[] => [
      {
        name: 'haproxy',
        pid: haproxy.pid,
        ports: [`${ports.api} REST`, `${ports.socket} sockets`, `${ports.metrics} metrics`],
      },
      ...[...roles].map(([name, role]) => ({
        name,
        pid: role.child.pid ?? 0,
        ports: portsOf(options.roles[name] ?? '', role),
      })),
      { name: 'nats', pid: nats.pid, ports: [`${portOf(nats.url)} NATS`] },
      ...redisMembers('redis', redis.main),
      ...redisMembers('sos-redis', redis.sos),
      ...(mongo
        ? [
            {
              name: 'mongo',
              pid: mongo.child.pid ?? 0,
              ports: [`${mongoPort(mongo.line)} MongoDB, simulated`],
            },
          ]
        : []),
      {
        name: 'providers',
        pid: providers.child.pid ?? 0,
        ports: [`${portOf(providers.line)} providers, simulated`],
      },
    ];
    return {
      apiUrl: `http://127.0.0.1:${ports.api}`,
      socketUrl: `http://127.0.0.1:${ports.socket}`,
      members,
      role(name) {
        const role = roles.get(name);
        if (!role) throw new Error(`There is no ${name}`);
        return role;
      },
      signal(name, signal) {
        const member = members().find((each) => each.name === name);
        if (!member) throw new Error(`There is no ${name}`);
        process.kill(member.pid, signal);
      },
      stop,
    };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** Waits for something, or until the start is given up: then that is what it rejects with. */
async function untilAborted(something: Promise<unknown>, abort: AbortSignal | undefined): Promise<void> {
  const aborted = new Promise<void>((resolve) => {
    abort?.addEventListener('abort', () => resolve(), { once: true });
  });
  await Promise.race([something, aborted]);
  abort?.throwIfAborted();
}

/** The URI of a replica set names several servers, which URL does not read. */
const mongoPort = (uri: string): string => /:(\d+)/.exec(uri.slice('mongodb:'.length))?.[1] ?? '';

function watch(
  name: string,
  { child, exited }: RoleProcess,
  { onLine, onEnd, isStopping }: Pick<ClusterOptions, 'onLine' | 'onEnd'> & { isStopping: () => boolean },
): void {
  if (onLine)
    for (const stream of [child.stdout, child.stderr]) {
      let rest = '';
      stream?.on('data', (chunk: Buffer) => {
        const lines = (rest + chunk.toString()).split('\n');
        rest = lines.pop() ?? '';
        for (const line of lines) onLine(name, line);
      });
    }
  void exited.then((code) => {
    if (!isStopping()) onEnd?.(name, code === null ? String(child.signalCode) : `code ${code}`);
  });
}
