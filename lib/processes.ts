import { readdir, readFile } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';

/** A process that can be told from a later one with the same pid. Linux only: it is read from /proc. */
export interface ProcessIdentity {
  pid: number;
  /** Clock ticks after boot: field 22 of /proc/PID/stat, proc(5). */
  startTime: string;
}

const POLL_MS = 10;

/** Who runs under a pid; undefined when nobody does. A zombie is dead: nobody may ever reap it. */
export async function identify(pid: number): Promise<ProcessIdentity | undefined> {
  const stat = await readProc(pid, 'stat');
  // The command's name, in parentheses, may hold spaces and parentheses itself.
  const [state, ...fields] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const startTime = fields[18];
  if (!state || state === 'Z' || state === 'X' || !startTime) return undefined;
  return { pid, startTime };
}

/** Whether this very process still runs. */
export async function isRunning({ pid, startTime }: ProcessIdentity): Promise<boolean> {
  return (await identify(pid))?.startTime === startTime;
}

/** All running processes whose command line fits. */
export async function findProcesses(fits: (argv: readonly string[]) => boolean): Promise<ProcessIdentity[]> {
  const pids = (await readdir('/proc')).map(Number).filter((pid) => Number.isInteger(pid));
  const found = await Promise.all(
    pids.map(async (pid) => (fits((await readProc(pid, 'cmdline')).split('\0')) ? identify(pid) : undefined)),
  );
  return found.filter((process) => process !== undefined);
}

/** Waits until the process is gone; false when it still runs after `timeoutMs`. */
export async function waitForEnd(process: ProcessIdentity, timeoutMs: number): Promise<boolean> {
  const deadline = performance.now() + timeoutMs;
  while (await isRunning(process)) {
    if (performance.now() > deadline) return false;
    await delay(POLL_MS);
  }
  return true;
}

/** Kills the process, if it is still that one, and waits until it is gone. */
export async function killProcess(target: ProcessIdentity, timeoutMs: number): Promise<void> {
  if (!(await isRunning(target))) return;
  try {
    process.kill(target.pid, 'SIGKILL');
  } catch (error) {
    // It may have ended by itself in between; if it is not ours to kill, that must be said.
    if (await isRunning(target)) throw error;
  }
  if (!(await waitForEnd(target, timeoutMs))) throw new Error(`Process ${target.pid} does not end`);
}

async function readProc(pid: number, file: 'stat' | 'cmdline'): Promise<string> {
  try {
    return await readFile(`/proc/${pid}/${file}`, 'utf8');
  } catch {
    return '';
  }
}
