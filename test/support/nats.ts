import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { spawnTied } from './spawn.ts';

/** A NATS of a test's own, on a free port of this machine. */
export interface TestNats {
  url: string;
  pid: number;
  stop(): Promise<void>;
}

/**
 * `port`: a certain one, for a NATS that comes back. Rejects, leaving no process behind, when nats-server is missing
 * or ends before it listens.
 */
export async function startNats(port = -1): Promise<TestNats> {
  const child = spawnTied('nats-server', ['-a', '127.0.0.1', '-p', String(port)], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  await once(child, 'spawn');
  const { pid = 0, stderr } = child;
  const ended = once(child, 'exit');
  const stop = async () => {
    child.kill('SIGKILL');
    await ended;
  };
  for await (const line of stderr ? createInterface(stderr) : []) {
    const [, listening] = /Listening for client connections on \S+:(\d+)/.exec(line) ?? [];
    if (!listening) continue;
    // Whatever else it says must not fill the pipe
    stderr?.resume();
    return { url: `nats://127.0.0.1:${listening}`, pid, stop };
  }
  await stop();
  throw new Error('nats-server ended before it listened');
}
