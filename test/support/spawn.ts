import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';

/**
 * Starts a program that ends with this process, however that ends (PR_SET_PDEATHSIG of prctl(2), by setpriv of util-linux,
 * which becomes the program: the pid is its own). It has a process group of its own, so that Ctrl-C in a terminal reaches
 * only us, who know what has to stop first. One that is not there ends with 127.
 */
export function spawnTied(command: string, args: readonly string[], options: SpawnOptions): ChildProcess {
  const env = { ...process.env, ...options.env };
  return spawn('setpriv', ['--pdeathsig', 'KILL', '--', command, ...args], {
    ...options,
    // Debian puts servers where users other than root often do not look
    env: { ...env, PATH: `${env['PATH'] ?? ''}:/usr/sbin` },
    detached: true,
  });
}

/** A program that says where it is with the first line that it writes. */
export interface Announced {
  line: string;
  child: ChildProcess;
  stop(): Promise<void>;
}

/** Starts a file of ours with node, and waits for its first line. Rejects, leaving nothing, when it ends before. */
export async function spawnAnnounced(args: readonly string[]): Promise<Announced> {
  const child = spawnTied(process.execPath, ['--disable-warning=ExperimentalWarning', ...args], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const exited = once(child, 'exit');
  const stop = async () => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    child.kill('SIGTERM');
    await exited;
  };
  if (child.stdout)
    for await (const line of createInterface(child.stdout)) {
      // Whatever else it says must not fill the pipe
      child.stdout.resume();
      return { line, child, stop };
    }
  await stop();
  throw new Error(`${args[0]} ended before it said where it is`);
}
