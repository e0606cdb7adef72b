import { randomUUID } from 'node:crypto';
import { link, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { errorCode } from './error-code.ts';
import type { ProcessIdentity } from './processes.ts';
import { identify, isRunning } from './processes.ts';

const ATTEMPTS = 5;

/**
 * Takes a directory or file for this process by a lock file that names it (pid and start time), and returns the
 * function that gives it back. A lock whose owner is dead is taken over, also when its pid runs something else
 * by now. Rejects when a running process, or this one already, holds it.
 */
export async function takeProcessLock(path: string): Promise<() => Promise<void>> {
  const self = await identify(process.pid);
  if (!self) throw new Error('This process is not in /proc: Linux is needed');
  const content = `${self.pid} ${self.startTime}\n`;

  for (let attempt = 0; attempt < ATTEMPTS; attempt += 1) {
    if (await createWhole(path, content)) {
      return async () => {
        if ((await readIfThere(path)) === content) await rm(path, { force: true });
      };
    }
    const held = await readIfThere(path);
    const owner = parseOwner(held);
    if (owner && (await isRunning(owner))) {
      throw new Error(`${path}: already in use by process ${owner.pid}; stop it, or use another directory`);
    }
    await removeStale(path, held);
  }
  throw new Error(`${path}: other processes keep taking it`);
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
 * Removes the lock if it is still the one judged stale. Two starts can judge the same file at once, and the
 * slower one must not remove what the faster has put there since: it is moved aside, looked at, and put back.
 */
async function removeStale(path: string, stale: string): Promise<void> {
  const aside = `${path}.${randomUUID()}`;
  try {
    await rename(path, aside);
    if ((await readIfThere(aside)) !== stale) await link(aside, path);
  } catch (error) {
    if (errorCode(error) !== 'ENOENT' && errorCode(error) !== 'EEXIST') throw error;
  } finally {
    await rm(aside, { force: true });
  }
}

function parseOwner(content: string): ProcessIdentity | undefined {
  const [, pid, startTime] = /^(\d+) (\d+)\n$/.exec(content) ?? [];
  return pid && startTime ? { pid: Number(pid), startTime } : undefined;
}

async function readIfThere(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return '';
    throw error;
  }
}
