/**
 * Timers that end together and keep no process alive. (Timers of node:timers/promises that share a signal take longer
 * to set the more of them wait.)
 */
export class Timers {
  readonly #waiting = new Set<NodeJS.Timeout>();
  #stopped = false;

  /** Acts after a while, unless all of it was stopped. */
  after(ms: number, act: () => void): void {
    if (this.#stopped) return;
    const timer = setTimeout(() => {
      this.#waiting.delete(timer);
      act();
    }, ms);
    timer.unref();
    this.#waiting.add(timer);
  }

  /** Resolves after a while; never, once stopped. */
  wait(ms: number): Promise<void> {
    return new Promise((resolve) => this.after(ms, resolve));
  }

  stop(): void {
    this.#stopped = true;
    for (const timer of this.#waiting) clearTimeout(timer);
    this.#waiting.clear();
  }
}
