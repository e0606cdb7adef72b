/** A driver's phone: replays one track into one trip, with one timer at a time. */
import type { SentUpdate, TripLedger } from './accounting.ts';
import type { Clock } from './clock.ts';
import type { DriverLine, Report } from './sockets.ts';
import { ACCURACY_M, type TracePoint } from './traces.ts';

/** How often a drive that is over looks whether its last update has arrived, ms. */
const SETTLE_POLL_MS = 50;
/** A gateway that dies takes what it has acknowledged for so long before with it, ms, and somewhat more. */
const AT_RISK_MS = 2000;

export interface DriveOptions {
  tripId: string;
  points: readonly TracePoint[];
  /** Indexes of the points that the server must refuse. */
  expectedJumps: ReadonlySet<number>;
  /** Ms from the recording's time to the timestamps that are sent. */
  timeShiftMs: number;
  /** How much faster than recorded the points are sent; their timestamps keep the recording's spacing. */
  speedup: number;
  /** ms; spreads the first points of all drives. */
  startDelayMs: number;
  /** How long the last update may take to arrive, ms. */
  settleMs: number;
  line: DriverLine;
  ledger: TripLedger;
  clock: Clock;
}

export interface Drive {
  /** Resolves when all is sent and settled, or the time for settling is over; never rejects. */
  readonly done: Promise<void>;
  /** Sends nothing more, and waits no longer than so many ms for what was sent. */
  stop(settleMs: number): void;
}

/**
 * Starts a drive on a connected line. While the line is down updates wait; what was sent and not answered, or
 * shortly before the last answer, goes again after a reconnect, as a phone's queue does (the server drops what it
 * already has).
 */
export function drive(options: DriveOptions): Drive {
  const { tripId, points, expectedJumps, timeShiftMs, speedup, line, ledger, clock } = options;
  const firstAt = clock.now() + options.startDelayMs;
  const recordedStart = points[0]?.timeMs ?? 0;
  /** In the order of their timestamps: what is not answered, and what was answered last. */
  const kept = new Map<SentUpdate, Report>();
  const { promise: done, resolve: finish } = Promise.withResolvers<void>();
  let next = 0;
  let settleBy = Number.POSITIVE_INFINITY;
  let cancelTimer = () => {};

  function transmit(update: SentUpdate, report: Report): void {
    if (!line.connected) return;
    update.sentAt = clock.now();
    line.report(report, (ack) => {
      ledger.answered(update, ack.ok ? null : ack.error.code);
      forgetBefore(update.sentAt - AT_RISK_MS);
    });
  }

  function forgetBefore(sentAt: number): void {
    for (const update of kept.keys()) {
      if (update.sentAt >= sentAt) return;
      if (update.answer !== 'none') kept.delete(update);
    }
  }

  function send(index: number, { timeMs, lat, lng, speed, heading }: TracePoint): void {
    const timestamp = timeMs + timeShiftMs;
    const update = ledger.sent(timestamp, clock.now(), expectedJumps.has(index));
    const report = { tripId, lat, lng, accuracy: ACCURACY_M, speed, heading, timestamp };
    kept.set(update, report);
    transmit(update, report);
  }

  const dueAt = (point: TracePoint) => firstAt + (point.timeMs - recordedStart) / speedup;

  function sendDue(): void {
    let point = points[next];
    while (point && dueAt(point) <= clock.now()) {
      send(next, point);
      next += 1;
      point = points[next];
    }
    if (point) cancelTimer = clock.after(Math.max(dueAt(point) - clock.now(), 0), sendDue);
    else settleWithin(options.settleMs);
  }

  function settleWithin(ms: number): void {
    settleBy = Math.min(settleBy, clock.now() + ms);
    settle();
  }

  function settle(): void {
    if (ledger.settled || clock.now() >= settleBy) finish();
    else cancelTimer = clock.after(SETTLE_POLL_MS, settle);
  }

  line.onConnect(() => {
    // What was refused is not said again: three jumps in a row would be believed
    for (const [update, report] of kept) if (typeof update.answer === 'string') transmit(update, report);
  });
  line.onRefused((timestamp, code) => ledger.refused(timestamp, code));
  cancelTimer = clock.after(options.startDelayMs, sendDue);

  return {
    done,
    stop(settleMs) {
      cancelTimer();
      settleWithin(settleMs);
    },
  };
}
