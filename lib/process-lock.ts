import { randomUUID } from 'node:crypto';
import { link, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { errorCode } from './error-code.ts';
import type { ProcessIdentity } from './processes.ts';
import { identify, isRunning } from './processes.ts';

/** A takeover takes some ms; so often it is looked whether it is over, and about so long in between, ms. */
const attempts = 50;
const pauseMs = 20;

type Release = () => Promise<void>;

/**
 * Takes a directory or file for this process by a lock file that names it (pid and start time), and returns the
 * function that gives it back. A lock whose owner is dead is taken over, also when its pid runs something else
 * by now. Rejects when a running process, or this one already, holds it.
 */
export async function takeProcessLock(path: string): Promise<Release> {
  const self = await identify(process.pid);
  if (!self) throw new Error('This process is not in /proc: Linux is needed');
  for (let attempt = 0; attempt < attempts; attempt += 1) {
    const taken = await tryLock(path, `${self.pid} ${self.startTime}\n`);
    if (typeof taken === 'function') return taken;
    if (taken) {
      throw new Error(`${path}: already in use by process ${taken.pid}; stop it, or use another directory`);
    }
    await delay(pauseMs * (0.5 + Math.random()));
  }
  throw new Error(`${path}: other processes keep taking it`);
}

/** One try: the function that gives it back, or who has it; null when it is in between. */
async function tryLock(path: string, content: string): Promise<Release | ProcessIdentity | null> {
  const isTaken = (await createWhole(path, content)) || (await replaceStale(path, content));
  if (!isTaken) return runningOwner(await readIfThere(path));
  return async () => {
    if ((await readIfThere(path)) === content) await rm(path, { force: true });
  };
}

/** Creates the file with its content in one step, so that nobody sees it half written; false if it is there. */
async function createWhole(path: string, content: string): Promise<boolean> {
  const draft = `${path}.${randomUUID()}`;
  await writeFile(draft, content);
  try {
    await link(draft, path);
    return true;
  } catch (error) {
    if (errorCode(error) === 'EEXIST') return false;
    throw error;
  } finally {
    await rm(draft, { force: true });
  }
}

/**
 * Puts ours in the place of a lock whose owner is dead; false if it is not there, not stale, or somebody else is at it. Many can
 * find the same stale lock at once, and none must replace what another has put there since: so only who holds a lock
 * of its own for that may, and looks once more. (Who dies with that one leaves it stale, and it is taken over in the same way.)
 */
async function replaceStale(path: string, content: string): Promise<boolean> {
  const isStale = async () => {
    const held = await readIfThere(path);
    return held !== null && (await runningOwner(held)) === null;
  };
  if (!(await isStale())) return false;
  const release = await tryLock(`${path}.takeover`, content);
  if (typeof release !== 'function') return false;
  const draft = `${path}.${randomUUID()}`;
  try {
    if (!(await isStale())) return false;
    await writeFile(draft, content);
    await rename(draft, path);
    return true;
  } finally {
    await rm(draft, { force: true });
    await release();
  }
}

/** Who has the lock with this content, if that process runs. */
async function runningOwner(content: string | null): Promise<ProcessIdentity | null> {
  const [, pid, startTime] = /^(\d+) (\d+)\n$/.exec(content ?? '') ?? [];
  if (!pid || !startTime) return null;
  const owner = { pid: Number(pid), startTime };
  return (await isRunning(owner)) ? owner : null;
}

async function readIfThere(path: string): Promise<string | null> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return null;
    throw error;
  }
}
