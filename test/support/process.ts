import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdir, readFile } from 'node:fs/promises';
import { type AddressInfo, createServer } from 'node:net';
import { eventually } from './eventually.ts';
import type { System } from './system.ts';

/** A port that nobody listens on at the moment. */
export async function freePort(): Promise<number> {
  const probe = createServer().listen(0, '127.0.0.1');
  await once(probe, 'listening');
  const { port } = probe.address() as AddressInfo;
  probe.close();
  await once(probe, 'close');
  return port;
}

/** A process of ours, as a user starts it, and where it listens. */
export interface Application extends Pick<System, 'apiUrl' | 'socketUrl' | 'metricsUrl'> {
  child: ChildProcess;
  /** What it has written so far. */
  output(): string;
  /** Its exit code, once it has ended. */
  exited: Promise<number | null>;
}

/** Starts everything in one process on ports of its own, the way `npm start` does; does not wait. */
export async function spawnApplication(
  dataDir: string,
  env: Record<string, string> = {},
): Promise<Application> {
  const [api, socket, metrics] = [await freePort(), await freePort(), await freePort()];
  const runner = ['node_modules/moleculer/bin/moleculer-runner.mjs', '--config', 'moleculer.config.ts'];
  const child = spawn(
    process.execPath,
    [
      '--disable-warning=ExperimentalWarning',
      '--disable-warning=DEP0174',
      ...runner,
      '--mask',
      '**/*.service.ts',
      'services',
    ],
    {
      env: {
        ...process.env,
        NODE_ENV: 'development',
        DATA_DIR: dataDir,
        API_PORT: String(api),
        SOCKET_PORT: String(socket),
        METRICS_PORT: String(metrics),
        ...env,
      },
      stdio: ['ignore', 'pipe', 'pipe'],
    },
  );
  let output = '';
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (chunk: Buffer) => (output += chunk.toString()));
  return {
    child,
    apiUrl: `http://127.0.0.1:${env.API_PORT ?? api}`,
    socketUrl: `http://127.0.0.1:${socket}`,
    metricsUrl: `http://127.0.0.1:${metrics}`,
    output: () => output,
    exited: once(child, 'exit').then(([code]) => code as number | null),
  };
}

/** Resolves when the process takes traffic. */
export const untilReady = (application: Application): Promise<void> =>
  eventually(async () => {
    const status = await fetch(`${application.apiUrl}/readyz`).then(
      (answer) => answer.status,
      () => 'nothing',
    );
    if (status !== 200) throw new Error(`/readyz says ${status}; ${application.output()}`);
  }, 20_000);

/** Processes of this machine whose command line mentions `text`. */
export async function processesMentioning(text: string): Promise<number[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name)).map(Number);
  const lines = await Promise.all(
    pids.map((pid) => readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')),
  );
  return pids.filter((_, index) => lines[index]?.includes(text));
}
