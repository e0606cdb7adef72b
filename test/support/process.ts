import type { ChildProcess } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { errorCode } from '../../lib/error-code.ts';
import { eventually } from './eventually.ts';
import { spawnTied } from './spawn.ts';
import type { System } from './system.ts';

/** Below those that the system gives to outgoing connections: a process that is started again must find its own free. */
const firstPort = 10_000;
const portsEach = 2500;
/** One for each of Jest's workers, and one without it. */
const parts = 9;
const part = Number(process.env['JEST_WORKER_ID'] ?? 0) % parts;
/** Asked for and perhaps not listened on yet. */
const handedOut = new Set<number>();

/** A port that nobody listens on, and that is not handed out again in this process. */
export async function freePort(): Promise<number> {
  for (let attempt = 0; attempt < 100; attempt++) {
    const port = firstPort + part * portsEach + randomInt(portsEach);
    if (handedOut.has(port)) continue;
    const probe = createServer();
    try {
      await once(probe.listen(port, '127.0.0.1'), 'listening');
    } catch (error) {
      if (errorCode(error) !== 'EADDRINUSE') throw error;
      continue;
    }
    handedOut.add(port);
    probe.close();
    await once(probe, 'close');
    return port;
  }
  throw new Error('No port is free');
}

/** Kept from run to run; Node looks whether a file has changed. */
const compileCacheDir = join('node_modules', '.cache', 'node-compile');

/** A process of ours, as a user starts it, and where it listens. */
export interface Application extends Pick<System, 'apiUrl' | 'socketUrl' | 'metricsUrl'> {
  child: ChildProcess;
  /** Where a gateway answers the balancer. */
  checkPort: number;
  /** What it has written so far, the last of it. */
  output(): string;
  /** Its exit code, once it has ended. */
  exited: Promise<number | null>;
}

const outputKept = 100_000;

/** Starts everything in one process on ports of its own, the way `npm start` does; does not wait. */
export async function spawnApplication(
  dataDir: string,
  env: Record<string, string> = {},
): Promise<Application> {
  const [api, socket, metrics] = [await freePort(), await freePort(), await freePort()];
  const checks = await freePort();
  const runner = ['node_modules/moleculer/bin/moleculer-runner.mjs', '--config', 'moleculer.config.ts'];
  const child = spawnTied(
    process.execPath,
    [
      '--max-semi-space-size=64',
      '--disable-warning=ExperimentalWarning',
      '--disable-warning=DEP0174',
      ...runner,
      '--mask',
      '**/*.service.ts',
      'services',
    ],
    {
      env: {
        // Some fifty starts compile the same files
        NODE_COMPILE_CACHE: compileCacheDir,
        NODE_ENV: 'development',
        DATA_DIR: dataDir,
        API_PORT: String(api),
        SOCKET_PORT: String(socket),
        METRICS_PORT: String(metrics),
        GATEWAY_CHECK_PORT: String(checks),
        ...env,
      },
      stdio: ['ignore', 'pipe', 'pipe'],
    },
  );
  let output = '';
  for (const stream of [child.stdout, child.stderr])
    stream?.on('data', (chunk: Buffer) => (output = (output + chunk.toString()).slice(-outputKept)));
  return {
    child,
    apiUrl: `http://127.0.0.1:${env.API_PORT ?? api}`,
    socketUrl: `http://127.0.0.1:${socket}`,
    metricsUrl: `http://127.0.0.1:${metrics}`,
    checkPort: checks,
    output: () => output,
    exited: once(child, 'exit').then(([code]) => code as number | null),
  };
}

const ended = ({ child }: Application) => child.exitCode !== null || child.signalCode !== null;

/** Resolves when the process takes traffic; rejects when it does not, or has ended. */
export async function untilReady(application: Application, withinMs = 20_000): Promise<void> {
  await eventually(async () => {
    if (ended(application)) return;
    const status = await fetch(`${application.metricsUrl}/readyz`, {
      signal: AbortSignal.timeout(2000),
    }).then(
      (answer) => answer.status,
      () => 'nothing',
    );
    if (status !== 200) throw new Error(`/readyz says ${status}; ${application.output()}`);
  }, withinMs);
  if (ended(application)) throw new Error(`It ended before it was ready; ${application.output()}`);
}

/** Starting together, they share the cores, ms. */
const fleetReadyWithinMs = 45_000;

/** A process that runs one role, or several. */
export interface RoleProcess extends Application {
  /** SIGTERM; its exit code. One that has not ended after 10 s is killed, and that is an error. */
  stop(): Promise<number | null>;
  /** SIGKILL, as a crash would be. */
  kill(): Promise<void>;
}

/** Processes of one system, by name. */
export interface RoleProcesses<Name extends string> {
  of: Readonly<Record<Name, RoleProcess>>;
  /** Stops those that still run, and removes what they kept. */
  stop(): Promise<void>;
}

/** What a role needs that a test must give it: where the others are. Everything else has a default of its own. */
export type RoleEnvironment = { NATS_URL: string; REDIS_URL: string; PROVIDERS_SANDBOX_URL: string } & Record<
  string,
  string
>;

/** Starts a process that runs `services` (comma-separated), over NATS, on ports of its own. Does not wait. */
export async function startRole(
  services: string,
  dataDir: string,
  env: RoleEnvironment,
): Promise<RoleProcess> {
  const application = await spawnApplication(dataDir, { SERVICES: services, ...env });
  const { child, exited } = application;
  return {
    ...application,
    async stop() {
      if (ended(application)) return exited;
      let late = false;
      const cut = setTimeout(() => (late = child.kill('SIGKILL')), 10_000);
      child.kill('SIGTERM');
      const code = await exited;
      clearTimeout(cut);
      if (late) throw new Error(`${services} did not stop in 10 s; ${application.output()}`);
      return code;
    },
    async kill() {
      if (!ended(application)) child.kill('SIGKILL');
      await exited;
    },
  };
}

/**
 * Starts a system of several processes at once, `{ name: services }`, each with a directory of its own: two processes
 * cannot share a database file. Resolves when all take traffic.
 */
export async function startRoles<Name extends string>(
  roles: Record<Name, string>,
  env: RoleEnvironment,
): Promise<RoleProcesses<Name>> {
  const root = await mkdtemp(join(tmpdir(), 'ride-roles-'));
  const namespace = root.slice(-6);
  const started = new Map<Name, RoleProcess>();
  const stop = async () => {
    const stops = await Promise.allSettled([...started.values()].map((role) => role.stop()));
    await rm(root, { recursive: true, force: true });
    const failed = stops.find((outcome) => outcome.status === 'rejected');
    if (failed) throw failed.reason;
  };
  try {
    for (const [name, services] of Object.entries<string>(roles) as [Name, string][]) {
      const own = { NAMESPACE: namespace, NODE_ID: `${name}-${namespace}` };
      started.set(name, await startRole(services, join(root, name), { ...own, ...env }));
    }
    await Promise.all([...started.values()].map((role) => untilReady(role, fleetReadyWithinMs)));
  } catch (error) {
    await stop();
    throw error;
  }
  return { of: Object.fromEntries(started) as Record<Name, RoleProcess>, stop };
}

/** Processes of this machine whose command line mentions `text`. */
export async function processesMentioning(text: string): Promise<number[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name)).map(Number);
  const lines = await Promise.all(
    pids.map((pid) => readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')),
  );
  return pids.filter((_, index) => lines[index]?.includes(text));
}
