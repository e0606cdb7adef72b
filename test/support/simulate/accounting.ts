/**
 * What became of every update: pure bookkeeping, told what was sent, answered and received, and when.
 *
 * Updates are counted by `sent`, `acknowledged`, `repeated` and `refused`; what the watchers should have
 * got by copies, one per accepted update and watcher, each in exactly one of:
 * - `delivered`: the watcher got it, live or among the `missed` of a re-join.
 * - `superseded`: acknowledged, and no watcher of the trip got it, and this watcher *got* an update with a
 *   newer timestamp that was sent no later than the batch window after it, and was on screen no later than
 *   the window and 200 ms after it was sent. The server publishes the newest of a batch, so the two may have
 *   shared one. There are no chains: an update is never excused by one that did not arrive either, so that a
 *   batch lost in the middle of a drive counts as lost.
 * - `unanswered`: not delivered, and never acknowledged nor refused.
 * - `lost`: the rest. The last accepted update of a trip can only be delivered or lost.
 * - `inFlight`: would be lost or unanswered, but is too young to tell. None are left in a final count.
 *
 * With batches of 1 s and the window of 1.2 s any batch lost is noticed where points are sent at most 0.5 s
 * apart (at speedup 10 and more), and any update lost where they are more than 1.2 s apart (at speedup 4 and
 * less). In between the next batch may excuse a lost one. A server that takes longer than window and 200 ms
 * from taking to showing looks as if it lost what it only delayed.
 */

/** From processing to every screen within 100 ms is promised; as much again for our own lag. */
const TO_SCREEN_MS = 200;

interface Copy {
  how: 'live' | 'missed';
  /** By the monotonic clock, ms, less its way here; not before it was sent. */
  readonly publishedBy: number;
}

/** One update as its sender holds it. */
export interface SentUpdate {
  /** The phone's time, ms: with the trip, the update's identity. */
  readonly timestamp: number;
  /** By the monotonic clock, ms; of the last sending, when it was sent again after a reconnect. */
  sentAt: number;
  readonly firstSentAt: number;
  /** An earlier update of the trip has the same timestamp, so the server drops this one by design. */
  readonly repeated: boolean;
  /** The jump rule wants it refused. */
  readonly jumpExpected: boolean;
  answer: 'none' | 'taken' | { refused: string };
  /** What each watcher got; null where it has not arrived. */
  readonly copies: (Copy | null)[];
}

export interface Counts {
  sent: number;
  acknowledged: number;
  repeated: number;
  /** By error code. */
  refused: Record<string, number>;
  refusedExpected: number;
  refusedUnexpected: number;
  /** Acknowledged although the jump rule wants them refused. */
  jumpsTaken: number;
  delivered: number;
  superseded: number;
  unanswered: number;
  lost: number;
  inFlight: number;
  /** The same update live to the same watcher again. */
  doubled: number;
  /** Received of another trip, or never sent, or sent and refused. */
  misdelivered: number;
}

/** Nothing counted yet. */
export function noCounts(): Counts {
  return {
    sent: 0,
    acknowledged: 0,
    repeated: 0,
    refused: {},
    refusedExpected: 0,
    refusedUnexpected: 0,
    jumpsTaken: 0,
    delivered: 0,
    superseded: 0,
    unanswered: 0,
    lost: 0,
    inFlight: 0,
    doubled: 0,
    misdelivered: 0,
  };
}

/** The sum of both, field by field. */
export function addCounts(a: Counts, b: Counts): Counts {
  const refused = { ...a.refused };
  for (const [code, count] of Object.entries(b.refused)) refused[code] = (refused[code] ?? 0) + count;
  return {
    sent: a.sent + b.sent,
    acknowledged: a.acknowledged + b.acknowledged,
    repeated: a.repeated + b.repeated,
    refused,
    refusedExpected: a.refusedExpected + b.refusedExpected,
    refusedUnexpected: a.refusedUnexpected + b.refusedUnexpected,
    jumpsTaken: a.jumpsTaken + b.jumpsTaken,
    delivered: a.delivered + b.delivered,
    superseded: a.superseded + b.superseded,
    unanswered: a.unanswered + b.unanswered,
    lost: a.lost + b.lost,
    inFlight: a.inFlight + b.inFlight,
    doubled: a.doubled + b.doubled,
    misdelivered: a.misdelivered + b.misdelivered,
  };
}

export interface LedgerOptions {
  tripId: string;
  /** How many sockets watch the trip. */
  watchers: number;
  /** The longest that two updates of one batch can be apart, ms. */
  batchWindowMs: number;
}

/** One copy of an update as a watcher got it. */
export interface Receipt {
  /** 0 to watchers − 1. */
  watcher: number;
  tripId: string;
  timestamp: number;
  /** By the monotonic clock, ms. */
  receivedAt: number;
  how: 'live' | 'missed';
}

/** The book of one trip. */
export class TripLedger {
  readonly #options: LedgerOptions;
  readonly #updates: SentUpdate[] = [];
  readonly #byTimestamp = new Map<number, SentUpdate>();
  readonly #strayRefusals: string[] = [];
  #doubled = 0;
  #misdelivered = 0;

  constructor(options: LedgerOptions) {
    this.#options = options;
  }

  /** Books an update that is about to be sent. Throws when its timestamp is older than the last one's. */
  sent(timestamp: number, sentAt: number, jumpExpected: boolean): SentUpdate {
    const last = this.#updates.at(-1);
    if (last && timestamp < last.timestamp)
      throw new Error('Updates are booked in order of their timestamps');
    const repeated = this.#byTimestamp.has(timestamp);
    const copies = Array.from({ length: this.#options.watchers }, () => null);
    const update: SentUpdate = {
      timestamp,
      sentAt,
      firstSentAt: sentAt,
      repeated,
      jumpExpected,
      answer: 'none',
      copies,
    };
    this.#updates.push(update);
    if (!repeated) this.#byTimestamp.set(timestamp, update);
    return update;
  }

  /** Books the server's answer; null is a plain acknowledgement, else the code of the refusal. */
  answered(update: SentUpdate, refusal: string | null): void {
    update.answer = refusal === null ? 'taken' : { refused: refusal };
  }

  /** Books a refusal that came as an event of its own; null when the server did not say of what. */
  refused(timestamp: number | null, code: string): void {
    const update = timestamp === null ? undefined : this.#byTimestamp.get(timestamp);
    if (update) this.answered(update, code);
    else this.#strayRefusals.push(code);
  }

  /** Books a copy. Answers with the ms from sending to receiving; null unless it is a live and first one. */
  received({ watcher, tripId, timestamp, receivedAt, how }: Receipt): number | null {
    const update = tripId === this.#options.tripId ? this.#byTimestamp.get(timestamp) : undefined;
    const copy = update?.copies[watcher];
    if (!update || copy === undefined) {
      this.#misdelivered += 1;
      return null;
    }
    // What a re-join brings again is no fault: clients drop what they have.
    if (how === 'live' && copy?.how === 'live') this.#doubled += 1;
    if (copy === null) {
      // When the others saw what was missed here is not known: it may have been at once.
      const publishedBy =
        how === 'live' ? Math.max(update.sentAt, receivedAt - TO_SCREEN_MS) : update.firstSentAt;
      update.copies[watcher] = { how, publishedBy };
    } else if (how === 'live') {
      copy.how = 'live';
    }
    return how === 'live' && copy === null ? receivedAt - update.sentAt : null;
  }

  /** Everything is answered, and the newest accepted update has reached every watcher. */
  get settled(): boolean {
    if (this.#updates.some(({ answer }) => answer === 'none')) return false;
    const newest = this.#updates.findLast(({ answer, repeated }) => answer === 'taken' && !repeated);
    return !newest || newest.copies.every((copy) => copy !== null);
  }

  /** What has become of everything; what was sent after `settledBefore` (monotonic ms) may be in flight. */
  counts(settledBefore = Number.POSITIVE_INFINITY): Counts {
    const counts = noCounts();
    counts.doubled = this.#doubled;
    counts.misdelivered = this.#misdelivered;
    for (const code of this.#strayRefusals) countRefusal(counts, code, false);
    /** Per watcher, the earliest time by which a newer update was sent, and published but for its way here. */
    const newerBy = Array.from({ length: this.#options.watchers }, () => Number.POSITIVE_INFINITY);
    for (const update of this.#updates.toReversed()) {
      countAnswer(counts, update);
      if (update.repeated) continue;
      if (typeof update.answer === 'object') {
        counts.misdelivered += update.copies.filter((copy) => copy !== null).length;
        continue;
      }
      for (const [watcher, newer] of newerBy.entries()) {
        const inBatch = newer - update.sentAt <= this.#options.batchWindowMs;
        counts[fate(update, watcher, inBatch, settledBefore)] += 1;
        newerBy[watcher] = Math.min(newer, update.copies[watcher]?.publishedBy ?? Number.POSITIVE_INFINITY);
      }
    }
    return counts;
  }
}

type Fate = 'delivered' | 'superseded' | 'unanswered' | 'lost' | 'inFlight';

function fate(update: SentUpdate, watcher: number, newerInBatch: boolean, settledBefore: number): Fate {
  if (update.copies[watcher]) return 'delivered';
  const published = update.copies.some((copy) => copy !== null);
  if (update.answer === 'taken' && !published && newerInBatch) return 'superseded';
  if (update.sentAt > settledBefore) return 'inFlight';
  return update.answer === 'taken' || published ? 'lost' : 'unanswered';
}

function countAnswer(counts: Counts, update: SentUpdate): void {
  counts.sent += 1;
  if (typeof update.answer === 'object') {
    const { refused: code } = update.answer;
    countRefusal(counts, code, code === 'LOCATION_JUMP' && update.jumpExpected);
    return;
  }
  if (update.repeated) counts.repeated += 1;
  if (update.answer === 'taken') {
    counts.acknowledged += 1;
    if (update.jumpExpected) counts.jumpsTaken += 1;
  }
}

function countRefusal(counts: Counts, code: string, expected: boolean): void {
  counts.refused[code] = (counts.refused[code] ?? 0) + 1;
  if (expected) counts.refusedExpected += 1;
  else counts.refusedUnexpected += 1;
}

/** What of the counts makes a run fail, each as a sentence; empty when nothing does. */
export function faults(counts: Counts): string[] {
  const found: [number, string][] = [
    [counts.lost, 'acknowledged but lost'],
    [counts.unanswered, 'never answered'],
    [counts.doubled, 'delivered twice'],
    [counts.misdelivered, 'delivered where they should not be'],
    [counts.refusedUnexpected, 'refused that should not be'],
  ];
  return found.filter(([count]) => count > 0).map(([count, what]) => `${count} ${what}`);
}
