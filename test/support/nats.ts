import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';

/** A NATS of a test's own, on a free port of this machine. */
export interface TestNats {
  url: string;
  stop(): Promise<void>;
}

/** Rejects, leaving no process behind, when nats-server is missing or ends before it listens. */
export async function startNats(): Promise<TestNats> {
  const child = spawn('nats-server', ['-a', '127.0.0.1', '-p', '-1'], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  await once(child, 'spawn');
  const ended = once(child, 'exit');
  const stop = async () => {
    child.kill('SIGKILL');
    await ended;
  };
  for await (const line of createInterface(child.stderr)) {
    const [, port] = /Listening for client connections on \S+:(\d+)/.exec(line) ?? [];
    if (!port) continue;
    // Whatever else it says must not fill the pipe
    child.stderr.resume();
    return { url: `nats://127.0.0.1:${port}`, stop };
  }
  await stop();
  throw new Error('nats-server ended before it listened');
}
