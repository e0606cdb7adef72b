import type { Server } from 'node:http';
import type { UpgradeListener } from './refuse-handshakes.ts';

/** For those who wait, in a turn of the event loop: 5 ms, or a fifth of the time when the rest takes long. */
const leastMs = 5;
const partOfRest = 1 / 4;

/**
 * Work that comes by the thousand and can wait a moment, in the order in which it came: some of it in each turn of the event loop.
 * One answer of Redis or NATS can be that of hundreds, and hundreds can connect at once; an SOS is looked at in between.
 */
export class Turns {
  readonly #waiting: (() => void)[] = [];
  readonly #now: () => number;

  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
  }

  /** Resolves when it is this one's turn: what follows at once belongs to it. */
  next(): Promise<void> {
    return new Promise((resolve) => {
      if (this.#waiting.push(resolve) === 1) this.#soon(this.#now());
    });
  }

  /** After what else there is to do, which has gone on since then, ms. */
  #soon(since: number): void {
    setImmediate(() => {
      const now = this.#now();
      this.#take(0, now + Math.max(leastMs, (now - since) * partOfRest));
    });
  }

  #take(taken: number, until: number): void {
    if (taken === this.#waiting.length || (taken > 0 && this.#now() >= until)) {
      this.#waiting.splice(0, taken);
      if (this.#waiting.length > 0) this.#soon(this.#now());
      return;
    }
    this.#waiting[taken]?.();
    // When all that follows from it at once is done: a tick comes after every microtask. A connection is counted by then
    queueMicrotask(() => process.nextTick(() => this.#take(taken + 1, until)));
  }
}

/** Handshakes of web sockets wait for their turn. Puts itself before the server's own handlers, which must be there already. */
export function takeHandshakesInTurn(server: Server, turns: Turns): void {
  const handlers = server.listeners('upgrade') as UpgradeListener[];
  server.removeAllListeners('upgrade');
  server.on('upgrade', (request, socket, head) => {
    const gone = () => socket.destroy();
    socket.on('error', gone);
    void turns.next().then(() => {
      socket.off('error', gone);
      if (!socket.destroyed) for (const handle of handlers) handle(request, socket, head);
    });
  });
}
