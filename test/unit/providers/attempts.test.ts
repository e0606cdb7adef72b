import { describe, expect, test } from '@jest/globals';
import * as fc from 'fast-check';
import type { FailedAttempt, NextAttempt } from '../../../lib/providers/attempts.ts';
import { nextAttempt, SOS_ATTEMPTS } from '../../../lib/providers/attempts.ts';

const channels = fc.uniqueArray(fc.constantFrom<string>('twilio', 'msg91', 'third', 'fourth'), {
  maxLength: 4,
});
const random = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true });

/** Every attempt made when the one with index i fails as `outcomes` says (its end: transient). */
function play(
  names: readonly string[],
  outcomes: readonly boolean[],
  roll: () => number,
  limits = SOS_ATTEMPTS,
) {
  const failures: FailedAttempt[] = [];
  const made: NextAttempt[] = [];
  for (;;) {
    const next = nextAttempt(names, failures, roll, limits);
    if (!next) return made;
    if (made.length > names.length * limits.perChannel) throw new Error('It does not end');
    failures.push({ channel: next.channel, permanent: outcomes[made.length] ?? false });
    made.push(next);
  }
}

describe('nextAttempt', () => {
  test('R3.6 tries each channel three times, then the next, then none', () => {
    const twice = play(['twilio', 'msg91'], [], () => 0.5);
    expect(twice).toEqual([
      { channel: 'twilio', attempt: 1, delayMs: 0 },
      { channel: 'twilio', attempt: 2, delayMs: 750 },
      { channel: 'twilio', attempt: 3, delayMs: 1500 },
      { channel: 'msg91', attempt: 1, delayMs: 0 },
      { channel: 'msg91', attempt: 2, delayMs: 750 },
      { channel: 'msg91', attempt: 3, delayMs: 1500 },
    ]);
  });

  test('R3.6 goes to the next channel at once when this one would fail again', () => {
    expect(nextAttempt(['twilio', 'msg91'], [{ channel: 'twilio', permanent: true }])).toEqual({
      channel: 'msg91',
      attempt: 1,
      delayMs: 0,
    });
  });

  test('without a channel there is nothing to try', () => {
    expect(nextAttempt([], [{ channel: 'twilio', permanent: false }])).toBeNull();
  });

  test('R3.6 ends, keeps the order, and never tries a channel more than three times or after a permanent failure', () => {
    fc.assert(
      fc.property(channels, fc.array(fc.boolean(), { maxLength: 12 }), random, (names, outcomes, roll) => {
        const made = play(names, outcomes, () => roll);
        const order = made.map(({ channel }) => names.indexOf(channel));
        expect(order).toEqual(order.toSorted((a, b) => a - b));
        for (const name of names) {
          const own = made.flatMap((each, index) => (each.channel === name ? [{ ...each, index }] : []));
          expect(own.map(({ attempt }) => attempt)).toEqual(own.map((_, index) => index + 1));
          expect(own.length).toBeLessThanOrEqual(3);
          const failedForGood = own.findIndex(({ index }) => outcomes[index]);
          // All three, or up to the permanent failure: no channel is left out or given up early
          expect(own).toHaveLength(failedForGood === -1 ? 3 : failedForGood + 1);
        }
      }),
    );
  });

  test('R3.6 waits between half of the doubled base and all of it, at most the cap', () => {
    const limits = fc.record({
      perChannel: fc.integer({ min: 1, max: 12 }),
      baseMs: fc.integer({ min: 1, max: 5000 }),
      capMs: fc.integer({ min: 1, max: 60_000 }),
    });
    fc.assert(
      fc.property(limits, random, (limit, roll) => {
        for (const { attempt, delayMs } of play(['one', 'two'], [], () => roll, limit)) {
          const full = attempt === 1 ? 0 : Math.min(limit.capMs, limit.baseMs * 2 ** (attempt - 2));
          expect(delayMs).toBeGreaterThanOrEqual(full / 2);
          expect(delayMs).toBeLessThanOrEqual(full);
        }
      }),
    );
  });

  test('never goes back to an earlier channel, whatever the history says, and leaves unknown ones out', () => {
    const history = fc.array(
      fc.record({
        channel: fc.constantFrom<string>('twilio', 'msg91', 'third', 'fourth', 'gone'),
        permanent: fc.boolean(),
      }),
      { maxLength: 12 },
    );
    fc.assert(
      fc.property(channels, history, (names, failures) => {
        const next = nextAttempt(names, failures);
        const furthest = Math.max(-1, ...failures.map(({ channel }) => names.indexOf(channel)));
        if (next) expect(names.indexOf(next.channel)).toBeGreaterThanOrEqual(Math.max(0, furthest));
        const known = failures.filter(({ channel }) => names.includes(channel));
        expect(nextAttempt(names, known, () => 0)).toEqual(nextAttempt(names, failures, () => 0));
      }),
    );
  });
});
