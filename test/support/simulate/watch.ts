/** A rider's screen: joins one trip, books what arrives, and catches up after a reconnect. */
import type { TripLedger } from './accounting.ts';
import type { Clock } from './clock.ts';
import type { Meter } from './meter.ts';
import type { Location, WatcherLine } from './sockets.ts';

/** A refused re-join is tried again after so many ms. */
const REJOIN_MS = 1000;

export interface WatchOptions {
  tripId: string;
  /** Which of the trip's watchers this is, from 0. */
  watcher: number;
  line: WatcherLine;
  ledger: TripLedger;
  meter: Meter;
  clock: Clock;
}

export interface Watch {
  /** Resolves with the first join; rejects when that is refused. */
  readonly joined: Promise<void>;
  close(): void;
}

/** Watches on a line that has not connected yet. */
export function watch({ tripId, watcher, line, ledger, meter, clock }: WatchOptions): Watch {
  const { promise: joined, resolve, reject } = Promise.withResolvers<void>();
  let hasJoined = false;
  /** The newest `at` seen. 0 asks for all there is: what was missed before the first update is missed too. */
  let cursor = 0;
  let cancelRejoin = () => {};

  function book({ timestamp, at, tripId: of }: Location, how: 'live' | 'missed'): void {
    cursor = Math.max(cursor, at);
    const screenMs = ledger.received({ watcher, tripId: of, timestamp, receivedAt: clock.now(), how });
    if (screenMs === null) return;
    meter.screen.add(screenMs);
    meter.processed.add(clock.epochNow() - at);
  }

  function join(): void {
    cancelRejoin();
    line.join(hasJoined ? { tripId, after: cursor } : { tripId }, (ack) => {
      if (ack.ok) {
        hasJoined = true;
        for (const location of ack.missed) book(location, 'missed');
        if (ack.last) book(ack.last, 'missed');
        resolve();
      } else if (hasJoined) {
        meter.refusedJoins[ack.error.code] = (meter.refusedJoins[ack.error.code] ?? 0) + 1;
        cancelRejoin = clock.after(REJOIN_MS, join);
      } else {
        reject(new Error(`The rider may not join the trip: ${ack.error.code}`));
      }
    });
  }

  line.onConnect(join);
  line.onLocation((location) => book(location, 'live'));

  return {
    joined,
    close() {
      cancelRejoin();
      line.close();
    },
  };
}
