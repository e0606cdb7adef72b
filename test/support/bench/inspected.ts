/**
 * A look into a running process of ours through Node's inspector, which is opened by SIGUSR1: the process is the one that
 * serves, nothing is put into it. https://chromedevtools.github.io/devtools-protocol/v8/
 */
import { readFile } from 'node:fs/promises';
import { eventually } from '../eventually.ts';

/** What a process has in memory, bytes. */
export interface Memory {
  /** Objects of JavaScript that are in use, and what buffers hold beside them. */
  heap: number;
  /** All that the process has in the machine's memory. */
  resident: number;
}

export interface Inspected {
  /** After all garbage was collected. */
  memory(): Promise<Memory>;
  /** Its event loop does nothing else for so long, ms. Does not wait for it. */
  occupy(ms: number): void;
  close(): void;
}

/** A field of /proc/PID/status that is in kB (proc(5)), bytes: `VmRSS`, or `VmHWM`, the most that VmRSS ever was. */
export async function statusBytes(pid: number, field: 'VmRSS' | 'VmHWM'): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  return Number(new RegExp(`^${field}:\\s+(\\d+) kB`, 'm').exec(status)?.[1]) * 1024;
}

/** `port`: where its inspector is to listen, by `--inspect-port` at its start. */
export async function inspect(pid: number, port: number): Promise<Inspected> {
  process.kill(pid, 'SIGUSR1');
  const url = await eventually(async () => {
    const [target] = (await (await fetch(`http://127.0.0.1:${port}/json/list`)).json()) as {
      webSocketDebuggerUrl: string;
    }[];
    if (!target) throw new Error('The inspector has nothing to show');
    return target.webSocketDebuggerUrl;
  });
  const socket = new WebSocket(url);
  await new Promise((resolve, reject) => {
    socket.addEventListener('open', resolve, { once: true });
    socket.addEventListener('error', () => reject(new Error('The inspector does not answer')), {
      once: true,
    });
  });
  const answers = new Map<number, (result: Record<string, number>) => void>();
  socket.addEventListener('message', ({ data }: { data: unknown }) => {
    const { id, result } = JSON.parse(String(data)) as { id: number; result: Record<string, number> };
    answers.get(id)?.(result);
    answers.delete(id);
  });
  let next = 0;
  const send = (method: string, params: object = {}) =>
    socket.send(JSON.stringify({ id: ++next, method, params }));
  const ask = (method: string) =>
    new Promise<Record<string, number>>((resolve) => {
      send(method);
      answers.set(next, resolve);
    });
  return {
    async memory() {
      // The second collects what finalizers of the first have let go of
      for (let n = 0; n < 2; n++) await ask('HeapProfiler.collectGarbage');
      const { usedSize = Number.NaN, backingStorageSize = 0 } = await ask('Runtime.getHeapUsage');
      return { heap: usedSize + backingStorageSize, resident: await statusBytes(pid, 'VmRSS') };
    },
    occupy: (ms) =>
      send('Runtime.evaluate', {
        expression: `for (const until = performance.now() + ${ms}; performance.now() < until; );`,
      }),
    close: () => socket.close(),
  };
}
