/**
 * Where a balancer asks how this gateway is, answered by a thread of its own: a process that has no time, as when thousands
 * come at once, looks dead to whoever asks the process itself; and to cut all its clients then sends them to the next one,
 * which has no time either.
 */
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';

/** Where a balancer asks whether new connections are taken: 204, or 503 like a handshake. */
export const vacancyPath = '/vacancy';

/** How often the process shows that it turns, ms. */
const showEveryMs = 250;
/** Without a sign for so long it gets nothing new, ms. */
export const busyAfterMs = 1000;
/** And for so long it hangs: what it has is better off elsewhere, ms. */
export const hangsAfterMs = 10_000;

/** What the thread is given: where it listens, and what the process shows it (two numbers that both have in memory). */
export interface ChecksData {
  port: number;
  host: string;
  /** `process.hrtime.bigint()` of the last sign, and 1 when no new connections are taken. */
  shown: BigInt64Array;
}

/**
 * What a check is answered: 204 takes new connections; 503 takes none, and keeps what it has; nothing at all, it hangs.
 * `silentMs`: since the last sign of the process.
 */
export function answerTo(silentMs: number, refuses: boolean): 204 | 503 | 'nothing' {
  if (silentMs >= hangsAfterMs) return 'nothing';
  return refuses || silentMs >= busyAfterMs ? 503 : 204;
}

/**
 * Answers checks at `/vacancy` on a port of their own, until the function that it resolves to is called. Rejects when the port
 * cannot be had. `refuses`: no new connections are taken.
 */
export async function answerChecks(
  { port, host }: { port: number; host: string },
  refuses: () => boolean,
): Promise<() => Promise<void>> {
  const shown = new BigInt64Array(new SharedArrayBuffer(16));
  const show = () => {
    Atomics.store(shown, 1, refuses() ? 1n : 0n);
    Atomics.store(shown, 0, process.hrtime.bigint());
  };
  show();
  const workerData: ChecksData = { port, host, shown };
  const thread = new Worker(new URL('./balancer-checks-thread.ts', import.meta.url), { workerData });
  await once(thread, 'message');
  const timer = setInterval(show, showEveryMs);
  // A thread that fails later ends the process, as nobody listens to its errors: it would be taken for dead anyway
  return async () => {
    clearInterval(timer);
    await thread.terminate();
  };
}
