import { setTimeout as sleep } from 'node:timers/promises';

/** How long to wait after a failed try (the first is 0), ms: doubled each time, half of it by chance. */
export const backoffMs = (tries: number, { firstMs, maxMs }: { firstMs: number; maxMs: number }): number =>
  Math.min(maxMs, firstMs * 2 ** Math.min(tries, 30)) * (0.5 + Math.random() / 2);

/** Waits, or less when `signal` is aborted meanwhile; never rejects. */
export async function pause(ms: number, signal: AbortSignal): Promise<void> {
  try {
    await sleep(ms, undefined, { signal });
  } catch (error) {
    if (!signal.aborted) throw error;
  }
}

/** Waits for some work, or no longer than so many ms; rejects when it does by then. Leaves no timer. */
export async function soonest(work: Promise<unknown>, withinMs: number): Promise<void> {
  const end = new AbortController();
  await Promise.race([work, pause(withinMs, end.signal)]).finally(() => end.abort());
}
