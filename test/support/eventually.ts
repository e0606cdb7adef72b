import { setTimeout as pause } from 'node:timers/promises';

/** Between two attempts a tenth of the time so far: who asks all the time takes the machine from what it waits for, ms. */
const pauseMs = (waitedMs: number): number => Math.min(100, Math.max(10, waitedMs / 10));

/** Tries until `attempt` does not throw; its last error after `withinMs`. */
export async function eventually<T>(attempt: () => T | Promise<T>, withinMs = 5000): Promise<T> {
  const started = performance.now();
  for (;;) {
    try {
      return await attempt();
    } catch (error) {
      const waitedMs = performance.now() - started;
      if (waitedMs > withinMs) throw error;
      await pause(pauseMs(waitedMs));
    }
  }
}
