/**
 * Development's Redis: a `redis-server` in a process group of its own (Ctrl-C in the terminal does not reach
 * it, so that the application can flush first), on a unix socket, every write fsynced to an append-only file.
 * It outlives an application that is killed, and the next start adopts it. Linux only.
 *
 * In the data directory: `app.pid` (which application has it), `redis.pid`, `redis.sock`, `redis.log`, `redis/`.
 *
 * Options used: https://redis.io/docs/latest/operate/oss_and_stack/management/config-file/ (7.0); `INFO`,
 * `LOADING` and `SHUTDOWN`: https://redis.io/docs/latest/commands/.
 */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { mkdir, open, readFile, realpath, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { Redis } from 'ioredis';
import { errorCode } from '../error-code.ts';
import { takeProcessLock } from '../process-lock.ts';
import type { ProcessIdentity } from '../processes.ts';
import { findProcesses, identify, isRunning, killProcess, waitForEnd } from '../processes.ts';

/** `dataDir` is created if need be. */
export interface DevelopmentRedisOptions {
  dataDir: string;
  logger?: { info(message: string): void; warn(message: string): void };
}

/** A Redis that answers. */
export interface DevelopmentRedis {
  pid: number;
  socketPath: string;
  /** True when an earlier application had left it running. */
  adopted: boolean;
  /** Ends it after it has written everything, and gives the data directory back. */
  stop(): Promise<void>;
}

interface Paths {
  socket: string;
  pidFile: string;
  log: string;
  /** Where the data is; what tells our servers from all others. */
  dir: string;
}

/** What a server says of itself: INFO is answered while it loads, where PING is an error. */
interface ServerState {
  pid: number;
  loading: boolean;
}

/** sun_path holds 108 bytes on Linux (unix(7)); room is left for the final zero and for temporary names. */
const MAX_SOCKET_PATH_BYTES = 100;

const PROBE_MS = 1000;
const POLL_MS = 20;
/** A server that says nothing for so long, not even that it loads, hangs; a new one gets time to come up. */
const ORPHAN_SILENCE_MS = 3000;
const LAUNCH_SILENCE_MS = 10_000;
/** Loading a development data set takes seconds; this only bounds the wait. */
const LOADING_MS = 60_000;
const SHUTDOWN_MS = 3000;
const KILL_MS = 2000;

/**
 * Starts or adopts the Redis of a data directory. Rejects, leaving no process behind, when another running
 * application has the directory, when `redis-server` is missing, or when it does not come up.
 */
export async function startRedis({ dataDir, logger }: DevelopmentRedisOptions): Promise<DevelopmentRedis> {
  await mkdir(dataDir, { recursive: true });
  const home = await realpath(dataDir);
  const release = await takeProcessLock(join(home, 'app.pid'));
  const paths = pathsIn(home);
  try {
    await mkdir(paths.dir, { recursive: true });
    const orphan = await findOrphan(paths, logger);
    const server = orphan ?? (await launch(paths));
    logger?.info(`Redis ${orphan ? 'adopted' : 'started'}: process ${server.pid}, ${paths.socket}`);
    const stopServer = async () => {
      try {
        await shutDown(server, paths, logger);
      } finally {
        await release();
      }
    };
    let stopped: Promise<void> | undefined;
    return {
      pid: server.pid,
      socketPath: paths.socket,
      adopted: orphan !== undefined,
      stop() {
        stopped ??= stopServer();
        return stopped;
      },
    };
  } catch (error) {
    await release();
    throw error;
  }
}

function pathsIn(home: string): Paths {
  const inHome = join(home, 'redis.sock');
  const hash = createHash('sha256').update(home).digest('hex').slice(0, 16);
  return {
    socket:
      Buffer.byteLength(inHome) <= MAX_SOCKET_PATH_BYTES
        ? inHome
        : join(tmpdir(), `ride-safety-${hash}.sock`),
    pidFile: join(home, 'redis.pid'),
    log: join(home, 'redis.log'),
    dir: join(home, 'redis'),
  };
}

/**
 * The server that an earlier application left on this data, once it answers. One that hangs, or cannot be
 * reached by our socket, is killed (nothing is lost: every answered write is fsynced), since two servers on the
 * same files would ruin them. All processes are looked through, because an application killed at the wrong
 * moment leaves a server without a pid file.
 */
async function findOrphan(
  paths: Paths,
  logger: DevelopmentRedisOptions['logger'],
): Promise<ProcessIdentity | undefined> {
  let adopted: ProcessIdentity | undefined;
  for (const candidate of await findServers(paths)) {
    if (!adopted && (await untilReady(candidate, paths, ORPHAN_SILENCE_MS)) === 'ready') {
      adopted = candidate;
    } else {
      logger?.warn(`Redis process ${candidate.pid} was left behind and does not answer: it is killed`);
      await killProcess(candidate, KILL_MS);
    }
  }
  if (adopted) return adopted;
  if (await probe(paths)) {
    throw new Error(
      `${paths.socket}: a Redis answers that is not among this machine's processes; stop it first`,
    );
  }
  await removeFiles(paths);
  return undefined;
}

function findServers({ dir }: Paths): Promise<ProcessIdentity[]> {
  return findProcesses((argv) => basename(argv[0] ?? '') === 'redis-server' && argv.includes(dir));
}

async function launch(paths: Paths): Promise<ProcessIdentity> {
  const server = await spawnServer(paths);
  const outcome = server ? await untilReady(server, paths, LAUNCH_SILENCE_MS) : 'ended';
  if (server && outcome === 'ready') return server;

  if (server) await killProcess(server, KILL_MS);
  await removeFiles(paths);
  throw new Error(
    `redis-server did not come up (${outcome}); ${paths.log} ends:\n${await lastLines(paths.log)}`,
  );
}

/** Runs the binary; undefined when it has ended already. Its output goes to the log from the first line on. */
async function spawnServer(paths: Paths): Promise<ProcessIdentity | undefined> {
  const log = await open(paths.log, 'a');
  try {
    const child = spawn('redis-server', serverOptions(paths), {
      detached: true,
      stdio: ['ignore', log.fd, log.fd],
    });
    await once(child, 'spawn');
    child.unref();
    return child.pid === undefined ? undefined : await identify(child.pid);
  } catch (error) {
    if (errorCode(error) === 'ENOENT') {
      throw new Error('redis-server is missing: `npm start` installs it (Debian package redis-server)', {
        cause: error,
      });
    }
    throw error;
  } finally {
    await log.close();
  }
}

function serverOptions({ socket, pidFile, dir }: Paths): string[] {
  const options = {
    port: '0',
    unixsocket: socket,
    unixsocketperm: '700',
    pidfile: pidFile,
    logfile: '',
    dir,
    appendonly: 'yes',
    appendfsync: 'always',
    // Rewriting it beside a burst holds up every write
    'auto-aof-rewrite-min-size': '256mb',
    save: '',
    'maxmemory-policy': 'noeviction',
    // Keeps the command line as given, for findServers.
    'set-proc-title': 'no',
  };
  return Object.entries(options).flatMap(([name, value]) => [`--${name}`, value]);
}

/** Waits until the server answers on our socket and has loaded its data. */
async function untilReady(
  server: ProcessIdentity,
  paths: Paths,
  silenceMs: number,
): Promise<'ready' | 'silent' | 'loading' | 'ended'> {
  const started = performance.now();
  let heard = started;
  while (performance.now() - started < LOADING_MS) {
    if (!(await isRunning(server))) return 'ended';
    const state = await probe(paths);
    if (state?.pid === server.pid) {
      if (!state.loading) return 'ready';
      heard = performance.now();
    }
    if (performance.now() - heard > silenceMs) return 'silent';
    await delay(POLL_MS);
  }
  return 'loading';
}

/** What the server on our socket says of itself; undefined when none answers in time. */
async function probe({ socket }: Paths): Promise<ServerState | undefined> {
  try {
    const info = await withClient(socket, (client) => client.info());
    return {
      pid: Number(/^process_id:(\d+)/m.exec(info)?.[1]),
      loading: /^loading:1/m.test(info),
    };
  } catch {
    return undefined;
  }
}

async function shutDown(
  server: ProcessIdentity,
  paths: Paths,
  logger: DevelopmentRedisOptions['logger'],
): Promise<void> {
  // The answer to SHUTDOWN is a closed connection, which the client reports as an error.
  await withClient(paths.socket, (client) => client.shutdown()).catch(() => undefined);
  if (!(await waitForEnd(server, SHUTDOWN_MS))) {
    logger?.warn(`Redis process ${server.pid} does not shut down: it is killed`);
    await killProcess(server, KILL_MS);
  }
  await removeFiles(paths);
}

async function withClient<T>(socketPath: string, use: (client: Redis) => Promise<T>): Promise<T> {
  const client = new Redis({
    path: socketPath,
    lazyConnect: true,
    enableReadyCheck: false,
    connectTimeout: PROBE_MS,
    commandTimeout: PROBE_MS,
    // ioredis keeps this timer running after the connection is gone; by default it holds the process for 2 s.
    disconnectTimeout: 50,
    maxRetriesPerRequest: 0,
    retryStrategy: () => null,
  });
  // The calls reject as well; without a listener the client would print each failure.
  client.on('error', () => undefined);
  try {
    await client.connect();
    return await use(client);
  } finally {
    client.disconnect();
  }
}

async function removeFiles({ socket, pidFile }: Paths): Promise<void> {
  await Promise.all([socket, pidFile].map((path) => rm(path, { force: true })));
}

async function lastLines(path: string): Promise<string> {
  return (await readFile(path, 'utf8')).trimEnd().split('\n').slice(-5).join('\n');
}
