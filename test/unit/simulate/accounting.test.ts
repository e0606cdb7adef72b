import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { addCounts, faults, noCounts, TripLedger } from '../../support/simulate/accounting.ts';

const tripId = 'trip';
const WINDOW_MS = 1200;

const ledgerFor = (watchers = 1) => new TripLedger({ tripId, watchers, batchWindowMs: WINDOW_MS });

/** Books acknowledged updates sent at these times; the timestamp is the index + 1. */
function sendAt(ledger: TripLedger, times: number[]) {
  return times.map((sentAt, index) => {
    const update = ledger.sent(index + 1, sentAt, false);
    ledger.answered(update, null);
    return update;
  });
}

/** By default at once, as far as the excusing of older updates goes. */
function receive(
  ledger: TripLedger,
  timestamp: number,
  how: 'live' | 'missed' = 'live',
  watcher = 0,
  receivedAt = 0,
) {
  return ledger.received({ watcher, tripId, timestamp, receivedAt, how });
}

describe('what became of an update', () => {
  test('delivered, with the time it took', () => {
    const ledger = ledgerFor();
    sendAt(ledger, [9_400]);
    expect(ledger.received({ watcher: 0, tripId, timestamp: 1, receivedAt: 10_000, how: 'live' })).toBe(600);
    expect(ledger.counts()).toMatchObject({ sent: 1, acknowledged: 1, delivered: 1 });
  });

  test('superseded when a newer one arrived that was sent within the window', () => {
    const ledger = ledgerFor();
    sendAt(ledger, [0, WINDOW_MS]);
    receive(ledger, 2);
    expect(ledger.counts()).toMatchObject({ delivered: 1, superseded: 1, lost: 0 });
  });

  test('lost when the newer one was sent later than that', () => {
    const ledger = ledgerFor();
    sendAt(ledger, [0, WINDOW_MS + 1]);
    receive(ledger, 2);
    expect(ledger.counts()).toMatchObject({ delivered: 1, superseded: 0, lost: 1 });
  });

  test('lost when the newer one was sent in time but came too late to have shared the batch', () => {
    const ledger = ledgerFor();
    sendAt(ledger, [0, 1, 600]);
    receive(ledger, 3, 'live', 0, WINDOW_MS + 201);
    expect(ledger.counts()).toMatchObject({ delivered: 1, superseded: 1, lost: 1 });
  });

  test('an update that did not arrive excuses no other: there are no chains', () => {
    const ledger = ledgerFor();
    sendAt(ledger, [0, 600, 1200, 1800, 2400]);
    receive(ledger, 5);
    expect(ledger.counts()).toMatchObject({ delivered: 1, superseded: 2, lost: 2 });
  });

  test('the last one is lost when it does not arrive', () => {
    const ledger = ledgerFor();
    sendAt(ledger, [0, 600]);
    receive(ledger, 1);
    expect(ledger.counts()).toMatchObject({ delivered: 1, lost: 1 });
  });

  test('lost, and never superseded, for a watcher when another one got it', () => {
    const ledger = ledgerFor(2);
    sendAt(ledger, [0, 600]);
    receive(ledger, 1, 'live', 0);
    receive(ledger, 2, 'live', 0);
    receive(ledger, 2, 'live', 1);
    expect(ledger.counts()).toMatchObject({ delivered: 3, superseded: 0, lost: 1 });
  });

  test('unanswered when neither acknowledged nor delivered; delivered counts without an answer', () => {
    const ledger = ledgerFor();
    ledger.sent(1, 0, false);
    ledger.sent(2, 600, false);
    receive(ledger, 2);
    expect(ledger.counts()).toMatchObject({ delivered: 1, unanswered: 1, acknowledged: 0 });
  });

  test('in flight while it is too young to be called lost', () => {
    const ledger = ledgerFor();
    sendAt(ledger, [0, 5000]);
    expect(ledger.counts(3000)).toMatchObject({ lost: 1, inFlight: 1 });
  });

  test('the second of equal timestamps is repeated, and neither lost nor doubled', () => {
    const ledger = ledgerFor();
    for (const sentAt of [0, 100]) ledger.answered(ledger.sent(7, sentAt, false), null);
    receive(ledger, 7);
    expect(ledger.counts()).toMatchObject({
      sent: 2,
      acknowledged: 2,
      repeated: 1,
      delivered: 1,
      doubled: 0,
    });
  });

  test('a jump is refused as expected; another code, or a jump nobody expects, is a fault', () => {
    const ledger = ledgerFor();
    ledger.answered(ledger.sent(1, 0, true), 'LOCATION_JUMP');
    ledger.answered(ledger.sent(2, 0, false), 'LOCATION_JUMP');
    ledger.answered(ledger.sent(3, 0, true), 'LOCATION_INVALID');
    ledger.answered(ledger.sent(4, 0, true), null);
    ledger.refused(null, 'RATE_LIMITED');
    expect(ledger.counts()).toMatchObject({
      refused: { LOCATION_JUMP: 2, LOCATION_INVALID: 1, RATE_LIMITED: 1 },
      refusedExpected: 1,
      refusedUnexpected: 3,
      jumpsTaken: 1,
    });
  });

  test('a refusal that comes as an event counts for its update', () => {
    const ledger = ledgerFor();
    ledger.sent(1, 0, true);
    ledger.refused(1, 'LOCATION_JUMP');
    expect(ledger.counts()).toMatchObject({ refusedExpected: 1, unanswered: 0 });
  });

  test('misdelivered: of another trip, never sent, or refused', () => {
    const ledger = ledgerFor();
    sendAt(ledger, [0]);
    ledger.answered(ledger.sent(2, 0, true), 'LOCATION_JUMP');
    ledger.received({ watcher: 0, tripId: 'another', timestamp: 1, receivedAt: 1, how: 'live' });
    receive(ledger, 99);
    receive(ledger, 2);
    expect(ledger.counts().misdelivered).toBe(3);
  });

  test('doubled: live twice; what a re-join brings again is not', () => {
    const ledger = ledgerFor();
    sendAt(ledger, [0, 600]);
    receive(ledger, 1, 'missed');
    receive(ledger, 1, 'live');
    receive(ledger, 1, 'missed');
    expect(ledger.counts().doubled).toBe(0);
    receive(ledger, 1, 'live');
    expect(ledger.counts()).toMatchObject({ doubled: 1, delivered: 1 });
  });

  test('what was sent again counts from then: its newer ones were published meanwhile', () => {
    const ledger = ledgerFor();
    const [late] = sendAt(ledger, [0, 600]);
    if (late) late.sentAt = 9000;
    receive(ledger, 2);
    expect(ledger.counts()).toMatchObject({ superseded: 1, lost: 0 });
  });

  test.each(['live', 'missed'] as const)(
    'one that had come already (%s) before it was sent again excuses those from around its first sending',
    (how) => {
      const ledger = ledgerFor();
      const [, newer] = sendAt(ledger, [0, 600]);
      receive(ledger, 2, how, 0, 700);
      if (newer) newer.sentAt = 9000;
      receive(ledger, 2, 'missed', 0, 9100);
      expect(ledger.counts()).toMatchObject({ delivered: 1, superseded: 1, lost: 0 });
    },
  );

  test('one that came only when it was sent again excuses none from around its first sending', () => {
    const ledger = ledgerFor();
    const [, newer] = sendAt(ledger, [0, 600]);
    if (newer) newer.sentAt = 9000;
    receive(ledger, 2, 'live', 0, 9100);
    expect(ledger.counts()).toMatchObject({ delivered: 1, superseded: 0, lost: 1 });
  });

  test('settled once all is answered and the newest accepted one is with every watcher', () => {
    const ledger = ledgerFor(2);
    sendAt(ledger, [0, 600]);
    const jump = ledger.sent(3, 1200, true);
    receive(ledger, 2, 'live', 0);
    receive(ledger, 2, 'live', 1);
    expect(ledger.settled).toBe(false);
    ledger.answered(jump, 'LOCATION_JUMP');
    expect(ledger.settled).toBe(true);
  });

  test('timestamps that run backwards are a mistake of the caller', () => {
    const ledger = ledgerFor();
    ledger.sent(2, 0, false);
    expect(() => ledger.sent(1, 0, false)).toThrow(/order/);
  });
});

/** Gaps between sends, ms. */
const gaps = fc.array(fc.integer({ min: 1, max: 4000 }), { minLength: 1, maxLength: 60 });
const timesOf = (spaces: number[]) => {
  let now = 0;
  return spaces.map((gap) => (now += gap));
};

interface Batch {
  timestamps: number[];
  /** ms */
  publishedAt: number;
}

/** What each tick of 1 s takes; an update reaches the server up to 100 ms late. */
function batches(times: number[], delays: number[]): Batch[] {
  const ticks = new Map<number, Batch>();
  let arrived = 0;
  for (const [index, time] of times.entries()) {
    // One socket, one order: nothing overtakes.
    arrived = Math.max(arrived, time + (delays[index] ?? 0));
    const tick = Math.floor(arrived / 1000);
    const batch = ticks.get(tick) ?? { timestamps: [], publishedAt: (tick + 1) * 1000 };
    batch.timestamps.push(index + 1);
    ticks.set(tick, batch);
  }
  return [...ticks.values()];
}

function publish(ledger: TripLedger, { timestamps, publishedAt }: Batch, delay: number): void {
  receive(ledger, timestamps.at(-1) ?? 0, 'live', 0, publishedAt + delay);
}

const delays = fc.array(fc.nat(99), { minLength: 60, maxLength: 60 });

describe('properties', () => {
  test('a server that publishes the newest of every batch loses nothing', () => {
    fc.assert(
      fc.property(gaps, delays, (spaces, late) => {
        const ledger = ledgerFor();
        const times = timesOf(spaces);
        sendAt(ledger, times);
        const ticks = batches(times, late);
        for (const [index, tick] of ticks.entries()) publish(ledger, tick, late[index] ?? 0);
        const counts = ledger.counts();
        expect(faults(counts)).toEqual([]);
        expect(counts.delivered).toBe(ticks.length);
        expect(counts.superseded).toBe(times.length - ticks.length);
        expect(ledger.settled).toBe(true);
      }),
    );
  });

  test('any lost batch is noticed where points are at most 0.5 s apart', () => {
    const dense = fc.array(fc.integer({ min: 1, max: 500 }), { minLength: 1, maxLength: 60 });
    fc.assert(
      fc.property(dense, delays, fc.nat(59), (spaces, late, choice) => {
        const ledger = ledgerFor();
        const times = timesOf(spaces);
        sendAt(ledger, times);
        const ticks = batches(times, late);
        const lost = choice % ticks.length;
        for (const [index, tick] of ticks.entries()) if (index !== lost) publish(ledger, tick, 0);
        expect(ledger.counts().lost).toBeGreaterThan(0);
      }),
    );
  });

  test('any lost update is noticed where points are more than 1.2 s apart', () => {
    const sparse = fc.array(fc.integer({ min: 1201, max: 6000 }), { minLength: 1, maxLength: 40 });
    fc.assert(
      fc.property(sparse, fc.array(fc.boolean(), { minLength: 40, maxLength: 40 }), (spaces, arrives) => {
        const ledger = ledgerFor();
        const times = timesOf(spaces);
        sendAt(ledger, times);
        const heard = times.flatMap((_, index) => (arrives[index] ? [index + 1] : []));
        for (const timestamp of heard) receive(ledger, timestamp);
        expect(ledger.counts()).toMatchObject({
          delivered: heard.length,
          superseded: 0,
          lost: times.length - heard.length,
        });
      }),
    );
  });

  test('every copy is counted exactly once, and every answer', () => {
    const update = fc.record({
      gap: fc.nat(2000),
      stamp: fc.integer({ min: 0, max: 2 }),
      answer: fc.constantFrom('none', 'taken', 'LOCATION_JUMP', 'RATE_LIMITED'),
      jumpExpected: fc.boolean(),
      copies: fc.array(fc.constantFrom('none', 'live', 'missed'), { minLength: 2, maxLength: 2 }),
    });
    fc.assert(
      fc.property(fc.array(update), fc.nat(40_000), (updates, settledBefore) => {
        const ledger = ledgerFor(2);
        let sentAt = 0;
        let timestamp = 0;
        for (const { gap, stamp, answer, jumpExpected, copies } of updates) {
          sentAt += gap;
          timestamp += stamp;
          const sent = ledger.sent(timestamp, sentAt, jumpExpected);
          if (answer !== 'none') ledger.answered(sent, answer === 'taken' ? null : answer);
          if (sent.repeated) continue;
          for (const [watcher, how] of copies.entries()) {
            if (how !== 'none') receive(ledger, timestamp, how, watcher);
          }
        }
        const counts = ledger.counts(settledBefore);
        const refused = Object.values(counts.refused).reduce((sum, count) => sum + count, 0);
        expect(counts.refusedExpected + counts.refusedUnexpected).toBe(refused);
        const fates =
          counts.delivered + counts.superseded + counts.lost + counts.unanswered + counts.inFlight;
        expect(fates).toBe(2 * (counts.sent - counts.repeated - refused));
        expect(ledger.counts().inFlight).toBe(0);
      }),
    );
  });

  test('sums add up field by field', () => {
    const ledger = ledgerFor();
    sendAt(ledger, [0]);
    ledger.refused(null, 'RATE_LIMITED');
    const once = ledger.counts();
    const twice = addCounts(once, addCounts(once, noCounts()));
    expect(twice).toMatchObject({ sent: 2, lost: 2, refused: { RATE_LIMITED: 2 }, refusedUnexpected: 2 });
    expect(faults(twice)).toEqual(['2 acknowledged but lost', '2 refused that should not be']);
  });
});
