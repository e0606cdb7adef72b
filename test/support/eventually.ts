import { setTimeout as pause } from 'node:timers/promises';

/** Tries until `attempt` does not throw; its last error after `withinMs`. */
export async function eventually<T>(attempt: () => T | Promise<T>, withinMs = 5000): Promise<T> {
  const deadline = performance.now() + withinMs;
  for (;;) {
    try {
      return await attempt();
    } catch (error) {
      if (performance.now() > deadline) throw error;
      await pause(10);
    }
  }
}
