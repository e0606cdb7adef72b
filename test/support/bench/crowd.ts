/**
 * A process that is thousands of apps, each connected, back after a loss as Socket.IO's client comes back, elsewhere when
 * its gateway asks for that, and in its trip's room again. Takes a `CrowdOrder` as its first message, and tells a `CrowdState` whenever it is asked.
 */
import { setTimeout as pause } from 'node:timers/promises';
import { comeBackAfterMs, type LeanSocket, openLean } from './lean-socket.ts';

export interface CrowdOrder {
  url: string;
  /** Of a session each. */
  tokens: string[];
  /** The trips that they watch, by turns; none: they are only connected. */
  tripIds: string[];
  /** So many are on their way at once, until all are there. */
  atOnce: number;
}

/** Times are those of the machine's clock, ms. */
export interface CrowdState {
  /** Connected, and in the room if there is one. */
  there: number;
  /** When the first was asked to connect, and when the last came. */
  beganAt: number;
  lastCameAt: number;
  /** How often one was back after a loss. */
  comebacks: number;
  /** The longest that one was away, ms. */
  longestAwayMs: number;
  /** How many connections ended, or tries failed, by why. */
  ended: Record<string, number>;
}

/** An answer that does not come is a try that failed, ms: Socket.IO's `timeout`. */
const patienceMs = 20_000;

class Crowd {
  readonly #order: CrowdOrder;
  readonly #there = new Set<number>();
  readonly #ended = new Map<string, number>();
  readonly #waiting: number[];
  #beganAt = 0;
  #lastCameAt = 0;
  #comebacks = 0;
  #longestAwayMs = 0;
  /** Who has been there, and when they lost their place. */
  readonly #lostAt = new Map<number, number>();

  constructor(order: CrowdOrder) {
    this.#order = order;
    this.#waiting = order.tokens.map((_, n) => n);
  }

  get state(): CrowdState {
    return {
      there: this.#there.size,
      beganAt: this.#beganAt,
      lastCameAt: this.#lastCameAt,
      comebacks: this.#comebacks,
      longestAwayMs: this.#longestAwayMs,
      ended: Object.fromEntries(this.#ended),
    };
  }

  begin(): void {
    this.#beganAt = Date.now();
    for (let n = 0; n < this.#order.atOnce; n++) this.#next();
  }

  #next(): void {
    const n = this.#waiting.shift();
    if (n !== undefined) this.#open(n, 0, () => this.#next());
  }

  #open(n: number, tries: number, onFirst: () => void): void {
    const { url, tokens, tripIds } = this.#order;
    let socket: LeanSocket | undefined;
    const count = (why: string) => this.#ended.set(why, (this.#ended.get(why) ?? 0) + 1);
    const leave = () => {
      if (this.#there.delete(n)) this.#lostAt.set(n, Date.now());
    };
    const failed = (why: string) => {
      clearTimeout(late);
      count(why);
      const triesSince = this.#there.has(n) ? 0 : tries + 1;
      leave();
      void pause(comeBackAfterMs(triesSince, Math.random())).then(() => this.#open(n, triesSince, onFirst));
    };
    const late = setTimeout(() => {
      socket?.drop();
      failed('no answer');
    }, patienceMs);
    const came = () => {
      clearTimeout(late);
      this.#there.add(n);
      this.#lastCameAt = Date.now();
      const lostAt = this.#lostAt.get(n);
      if (lostAt === undefined) {
        this.#lostAt.set(n, this.#lastCameAt);
        return onFirst();
      }
      this.#comebacks++;
      this.#longestAwayMs = Math.max(this.#longestAwayMs, this.#lastCameAt - lostAt);
    };
    socket = openLean({
      url,
      auth: { token: tokens[n] },
      onEnd: failed,
      onEvent: (name, payload) => {
        // Every second one waits until it is cut off, as an app that does not know the event
        if (name !== 'server:drain' || n % 2 === 1) return;
        void pause((payload as { reconnectInMs: number }).reconnectInMs).then(() => {
          if (!this.#there.has(n)) return;
          socket?.drop();
          count('sent elsewhere');
          leave();
          this.#open(n, 0, onFirst);
        });
      },
      onConnect: () => {
        const tripId = tripIds[n % tripIds.length];
        if (tripId === undefined) return came();
        void socket?.ask('trip:join', { tripId, after: Date.now() }).then((ack) => {
          const { ok, error } = ack as { ok: boolean; error?: { code: string } };
          if (ok) return came();
          socket?.drop();
          failed(error?.code ?? 'refused');
        });
      },
    });
  }
}

let crowd: Crowd | undefined;
process.on('message', (message: CrowdOrder | 'state') => {
  if (message === 'state') process.send?.(crowd?.state);
  else {
    crowd = new Crowd(message);
    crowd.begin();
  }
});
// Nobody is left to tell
process.on('disconnect', () => process.exit(0));
