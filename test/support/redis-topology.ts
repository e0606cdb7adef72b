import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Redis } from 'ioredis';
import { eventually } from './eventually.ts';
import { freePort } from './process.ts';
import { spawnTied } from './spawn.ts';

/** Real Redis servers of a test's own, on free ports of this machine. */
export interface RedisTopology {
  /** For REDIS_URL. */
  url: string;
  /** The Redis servers, primaries first. */
  ports: number[];
  /** Every process of it that runs, Sentinels too. */
  processes(): { pid: number; port: number }[];
  /** The port of the primary that a key is written to. */
  primaryOf(key: string): Promise<number>;
  /** kill -9. Resolves when the process has ended. */
  kill(port: number): Promise<void>;
  /** SIGSTOP: it keeps its connections and answers nothing, until `wake`. */
  hang(port: number): void;
  wake(port: number): void;
  /** A killed server comes back with its data, on its port. */
  revive(port: number): Promise<void>;
  /** A plain connection to one server; closed by `stop`. */
  connect(port: number): Redis;
  /** Ends everything and removes its data. */
  stop(): Promise<void>;
}

/** Servers that end with the test, however it ends. */
class Servers {
  readonly #running = new Map<number, ChildProcess>();
  readonly #commands = new Map<number, string[]>();
  readonly #clients: Redis[] = [];
  readonly dir: string;
  readonly #killAll = () => {
    for (const child of this.#running.values()) child.kill('SIGKILL');
  };

  constructor(dir: string) {
    this.dir = dir;
    process.once('exit', this.#killAll);
  }

  static async create(): Promise<Servers> {
    return new Servers(await mkdtemp(join(tmpdir(), 'ride-topology-')));
  }

  async start(port: number, command: string[]): Promise<void> {
    this.#commands.set(port, command);
    const child = spawnTied('redis-server', command, { stdio: 'ignore' });
    await once(child, 'spawn');
    this.#running.set(port, child);
    const client = this.connect(port);
    await eventually(() => client.ping(), 10_000);
  }

  connect(port: number): Redis {
    const client = new Redis({
      host: '127.0.0.1',
      port,
      disconnectTimeout: 50,
      maxRetriesPerRequest: 0,
      retryStrategy: () => 50,
    });
    // Killing servers is part of tests; commands that fail say so themselves
    client.on('error', () => undefined);
    this.#clients.push(client);
    return client;
  }

  async kill(port: number): Promise<void> {
    const child = this.#running.get(port);
    if (!child) throw new Error(`Nothing runs on port ${port}`);
    this.#running.delete(port);
    // Somebody else may have killed it
    if (child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, 'exit');
    child.kill('SIGKILL');
    await ended;
  }

  processes = () => [...this.#running].map(([port, { pid = 0 }]) => ({ pid, port }));

  signal(port: number, signal: 'SIGSTOP' | 'SIGCONT'): void {
    this.#running.get(port)?.kill(signal);
  }

  revive = (port: number): Promise<void> => this.start(port, this.#commands.get(port) ?? []);

  async stop(): Promise<void> {
    for (const client of this.#clients) client.disconnect();
    await Promise.all([...this.#running.keys()].map((port) => this.kill(port)));
    process.off('exit', this.#killAll);
    await rm(this.dir, { recursive: true });
  }
}

/** What docs/running-in-production.md recommends, with shorter times. */
const serverOptions = async (servers: Servers, port: number, more: Record<string, string>) => {
  const dir = join(servers.dir, String(port));
  await mkdir(dir);
  const options = {
    port: String(port),
    bind: '127.0.0.1',
    dir,
    logfile: join(dir, 'redis.log'),
    save: '',
    appendonly: 'yes',
    'repl-diskless-sync-delay': '0',
    // A replica that hangs counts as gone after 5 s; pings must come oftener
    'repl-timeout': '5',
    'repl-ping-replica-period': '1',
    'maxmemory-policy': 'noeviction',
    'hash-max-listpack-entries': '16',
    ...more,
  };
  return Object.entries(options).flatMap(([name, value]) => [`--${name}`, value]);
};

/** One server alone. */
export async function startSingle(more: Record<string, string> = {}): Promise<RedisTopology> {
  const servers = await Servers.create();
  try {
    const port = await freePort();
    await servers.start(port, await serverOptions(servers, port, more));
    return {
      url: `redis://127.0.0.1:${port}`,
      ports: [port],
      processes: servers.processes,
      primaryOf: async () => port,
      kill: (killed) => servers.kill(killed),
      hang: (hung) => servers.signal(hung, 'SIGSTOP'),
      wake: (woken) => servers.signal(woken, 'SIGCONT'),
      revive: servers.revive,
      connect: (to) => servers.connect(to),
      stop: () => servers.stop(),
    };
  } catch (error) {
    await servers.stop();
    throw error;
  }
}

/** A primary with a replica, and three Sentinels that watch them. */
export async function startSentinel(more: Record<string, string> = {}): Promise<RedisTopology> {
  const servers = await Servers.create();
  try {
    const [primary, replica] = [await freePort(), await freePort()];
    await servers.start(primary, await serverOptions(servers, primary, more));
    await servers.start(
      replica,
      await serverOptions(servers, replica, { replicaof: `127.0.0.1 ${primary}`, ...more }),
    );
    const sentinels: number[] = [];
    for (let n = 0; n < 3; n++) {
      const port = await freePort();
      const file = join(servers.dir, `sentinel-${port}.conf`);
      const lines = [
        `port ${port}`,
        'bind 127.0.0.1',
        `dir ${servers.dir}`,
        `logfile ${join(servers.dir, `sentinel-${port}.log`)}`,
        `sentinel monitor rides 127.0.0.1 ${primary} 2`,
        'sentinel down-after-milliseconds rides 1000',
        'sentinel failover-timeout rides 2000',
      ];
      await writeFile(file, `${lines.join('\n')}\n`);
      await servers.start(port, [file, '--sentinel']);
      sentinels.push(port);
    }
    const watchers = sentinels.map((port) => servers.connect(port));
    // Failover works from the moment at which they know each other and the replica
    await eventually(async () => {
      for (const watcher of watchers) {
        const flat = (await watcher.call('SENTINEL', 'MASTER', 'rides')) as string[];
        const fact = (name: string) => flat[flat.indexOf(name) + 1];
        if (fact('num-slaves') !== '1' || fact('num-other-sentinels') !== '2')
          throw new Error('The Sentinels do not know each other yet');
      }
      await isFollowed(servers.connect(primary));
    }, 15_000);
    return {
      url: `redis-sentinel://${sentinels.map((port) => `127.0.0.1:${port}`).join(',')}/rides`,
      ports: [primary, replica],
      processes: servers.processes,
      async primaryOf() {
        const address = await watchers[0]?.call('SENTINEL', 'GET-MASTER-ADDR-BY-NAME', 'rides');
        return Number(Array.isArray(address) ? address[1] : 0);
      },
      kill: (port) => servers.kill(port),
      hang: (port) => servers.signal(port, 'SIGSTOP'),
      wake: (port) => servers.signal(port, 'SIGCONT'),
      revive: servers.revive,
      connect: (port) => servers.connect(port),
      stop: () => servers.stop(),
    };
  } catch (error) {
    await servers.stop();
    throw error;
  }
}

/** Three primaries with a replica each. */
export async function startCluster(): Promise<RedisTopology> {
  const servers = await Servers.create();
  try {
    const ports: number[] = [];
    const clients: Redis[] = [];
    for (let n = 0; n < 6; n++) {
      const [port, busPort] = [await freePort(), await freePort()];
      const cluster = {
        'cluster-enabled': 'yes',
        'cluster-port': String(busPort),
        // An election that fails is held again after four times this, at least 4 s
        'cluster-node-timeout': '1000',
        'cluster-require-full-coverage': 'no',
        'cluster-replica-validity-factor': '0',
      };
      await servers.start(port, await serverOptions(servers, port, cluster));
      const client = servers.connect(port);
      if (n < 3) {
        const [from, to] = [Math.ceil((n * 16_384) / 3), Math.ceil(((n + 1) * 16_384) / 3) - 1];
        await client.call('CLUSTER', 'ADDSLOTSRANGE', from, to);
      }
      await client.call('CLUSTER', 'SET-CONFIG-EPOCH', n + 1);
      // Each is told of all others: gossip alone takes seconds
      for (const other of clients) await other.call('CLUSTER', 'MEET', '127.0.0.1', port, busPort);
      ports.push(port);
      clients.push(client);
    }
    const ids = await Promise.all(clients.map((client) => client.call('CLUSTER', 'MYID')));
    for (let n = 3; n < 6; n++)
      await eventually(() => clients[n]?.call('CLUSTER', 'REPLICATE', String(ids[n - 3])), 10_000);
    await eventually(async () => {
      for (const [n, client] of clients.entries()) {
        const info = await client.cluster('INFO');
        if (!/cluster_state:ok[^]*cluster_slots_ok:16384[^]*cluster_known_nodes:6/.test(info))
          throw new Error('The Cluster is not complete yet');
        if (n < 3) await isFollowed(client);
        // Each knows all replicas: a client may ask any of them
        const ranges = await client.cluster('SLOTS');
        if (ranges.length !== 3 || ranges.some((range) => range.length !== 4))
          throw new Error('Not every node knows every replica yet');
      }
    }, 20_000);
    return {
      url: `redis-cluster://${ports.map((port) => `127.0.0.1:${port}`).join(',')}`,
      ports,
      processes: servers.processes,
      async primaryOf(key) {
        const slot = Number(await clients[0]?.cluster('KEYSLOT', key));
        for (const [from, to, primary] of (await clients[0]?.cluster('SLOTS')) ?? [])
          if (primary && from <= slot && slot <= to) return primary[1];
        throw new Error('Nobody has the slot');
      },
      kill: (port) => servers.kill(port),
      hang: (port) => servers.signal(port, 'SIGSTOP'),
      wake: (port) => servers.signal(port, 'SIGCONT'),
      revive: servers.revive,
      connect: (port) => servers.connect(port),
      stop: () => servers.stop(),
    };
  } catch (error) {
    await servers.stop();
    throw error;
  }
}

/** Rejects unless the server is a primary whose replica is in step. */
async function isFollowed(primary: Redis): Promise<void> {
  const [role, , replicas] = await primary.role();
  if (role !== 'master' || !Array.isArray(replicas) || replicas.length !== 1)
    throw new Error('The replica does not follow yet');
}
