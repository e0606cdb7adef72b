import { describe, expect, test } from '@jest/globals';
import * as fc from 'fast-check';
import { loadConfig } from '../../lib/config.ts';
import { distanceM, type Point } from '../../lib/geo.ts';
import type { Fix } from '../../lib/jump-rule.ts';
import { notStopped, seeStop } from '../../services/safety/long-stop.ts';
import { overdueFrom } from '../../services/safety/overdue.ts';
import { corridorOf, onTheWay, seeDeviation } from '../../services/safety/route-deviation.ts';
import { longestWindowMs, safetyRules } from '../../services/safety/rules.ts';
import { heardFirst, isDeaf, judgeSignal, seeSignal } from '../../services/safety/signal-lost.ts';
import { judge, see, type TripWatch, watchTrip } from '../../services/safety/trip-watch.ts';

const rules = safetyRules(loadConfig({ NODE_ENV: 'test' }));
const began = 1_700_000_000_000;
const metresPerDegree = 111_195;

/** So many metres east and north of a place. */
const moved = ({ lat, lng }: Point, east: number, north: number): Point => ({
  lat: lat + north / metresPerDegree,
  lng: lng + east / (metresPerDegree * Math.cos((lat * Math.PI) / 180)),
});
const fixAt = (place: Point, timestamp: number, accuracy = 5): Fix => ({ ...place, accuracy, timestamp });

const place = fc.record({
  lat: fc.double({ min: -70, max: 70, noNaN: true }),
  lng: fc.double({ min: -170, max: 170, noNaN: true }),
});
const metres = (most: number) => fc.double({ min: -most, max: most, noNaN: true });
const plan = (from: Point, to: Point, route: Point[] | null = null) => ({
  tripId: 'trp_1',
  riderId: 'usr_r',
  driverId: 'usr_d',
  from,
  to,
  startedAt: began,
  route,
  durationS: null,
});

/** Any movement: a step each, in metres and ms. */
const steps = fc.array(
  fc.record({ east: metres(400), north: metres(400), ms: fc.integer({ min: 1000, max: 120_000 }) }),
  { maxLength: 120 },
);
/** The fixes of a movement, one after the other. */
function fixesOf(from: Point, walk: { east: number; north: number; ms: number }[]): Fix[] {
  let [at, timestamp] = [from, began];
  return [
    fixAt(at, timestamp),
    ...walk.map(({ east, north, ms }) => fixAt((at = moved(at, east, north)), (timestamp += ms))),
  ];
}

/** When a state that `next` moves on became suspected, each time. */
function triggers<S extends { suspected: boolean }>(
  fixes: Fix[],
  start: S,
  next: (state: S, fix: Fix) => S,
): number[] {
  const at: number[] = [];
  let state = start;
  for (const fix of fixes) {
    const after = next(state, fix);
    if (after.suspected && !state.suspected) at.push(fix.timestamp);
    state = after;
  }
  return at;
}
const apart = (at: number[]) => at.slice(1).map((time, index) => time - (at[index] ?? 0));

describe('+ a long stop', () => {
  // Far from everywhere
  const to = { lat: 85, lng: 0 };

  test('whatever the movement, it is not suspected twice within the time that it takes', () => {
    fc.assert(
      fc.property(place, steps, (from, walk) => {
        const at = triggers(fixesOf(from, walk), notStopped, (state, fix) =>
          seeStop(state, fix, to, rules.stop),
        );
        for (const ms of apart(at)) expect(ms).toBeGreaterThanOrEqual(rules.stop.afterMs);
      }),
    );
  });

  test('is suspected exactly from the time on, and stays so between the two thresholds', () => {
    const between = fc.double({ min: rules.stop.radiusM, max: rules.stop.clearM - 1, noNaN: true });
    fc.assert(
      fc.property(place, fc.array(between, { minLength: 1 }), (from, distances) => {
        let state = notStopped;
        for (let ms = 0; ms <= rules.stop.afterMs; ms += 30_000) {
          expect(state.suspected).toBe(false);
          state = seeStop(state, fixAt(moved(from, 1, 1), began + ms), to, rules.stop);
        }
        expect(state.suspected).toBe(true);
        for (const [n, distance] of distances.entries()) {
          const there = moved(from, 0, n % 2 ? distance : -distance);
          state = seeStop(state, fixAt(there, began + rules.stop.afterMs + n * 1000), to, rules.stop);
          expect(state.suspected).toBe(true);
        }
        const away = fixAt(moved(from, 0, rules.stop.clearM + 20), began + 3_600_000);
        expect(seeStop(state, away, to, rules.stop).suspected).toBe(false);
      }),
    );
  });

  test('is none at the destination', () => {
    fc.assert(
      fc.property(place, metres(100), metres(100), (there, east, north) => {
        let state = notStopped;
        for (let ms = 0; ms < 7_200_000; ms += 30_000)
          state = seeStop(state, fixAt(moved(there, east, north), began + ms), there, rules.stop);
        expect(state.suspected).toBe(false);
      }),
    );
  });
});

describe('+ a deviation', () => {
  const from = { lat: -10.9, lng: -37.06 };
  const to = moved(from, 6000, 0);
  const corridor = corridorOf({ from, to, route: null }, rules.deviation);

  test('whatever the movement, it is not suspected twice within the time that it takes', () => {
    fc.assert(
      fc.property(metres(9000), metres(9000), steps, (east, north, walk) => {
        const at = triggers(fixesOf(moved(from, east, north), walk), onTheWay, (state, fix) =>
          seeDeviation(state, fix, corridor, rules.deviation),
        );
        for (const ms of apart(at)) expect(ms).toBeGreaterThanOrEqual(rules.deviation.afterMs);
      }),
    );
  });

  test('whoever comes nearer to the destination does not deviate, however far off the way', () => {
    fc.assert(
      fc.property(
        fc.double({ min: 0, max: 2 * Math.PI, noNaN: true }),
        fc.integer({ min: 20_000, max: 60_000 }),
        fc.double({ min: -0.01, max: 0.01, noNaN: true }),
        (angle, farM, turn) => {
          let state = onTheWay;
          // 5 m/s nearer, while it may circle as fast as it likes
          for (let n = 0; farM - n * 25 > 0; n++) {
            const radius = farM - n * 25;
            const there = moved(to, radius * Math.cos(angle + n * turn), radius * Math.sin(angle + n * turn));
            state = seeDeviation(state, fixAt(there, began + n * 5000), corridor, rules.deviation);
            expect(state.suspected).toBe(false);
          }
        },
      ),
      { numRuns: 30 },
    );
  });

  test('inside the corridor nothing is one; the corridor holds every way that is not longer than the detour', () => {
    fc.assert(
      fc.property(
        place,
        fc.integer({ min: 2000, max: 40_000 }),
        fc.double({ min: 0, max: 2 * Math.PI, noNaN: true }),
        fc.double({ min: 0, max: 1, noNaN: true }),
        (start, farM, angle, share) => {
          const end = moved(start, farM, 0);
          const way = corridorOf({ from: start, to: end, route: null }, rules.deviation);
          // A place whose distances to both ends add up to less than the detour
          const k = rules.deviation.detourFactor * 0.99;
          const [a, b] = [(k * farM) / 2, (farM / 2) * Math.sqrt(k * k - 1)];
          const there = moved(start, farM / 2 + share * a * Math.cos(angle), share * b * Math.sin(angle));
          // Beyond its ends the ellipse is narrower than the corridor
          const state = seeDeviation(onTheWay, fixAt(there, began), way, rules.deviation);
          expect(state).toEqual(onTheWay);
        },
      ),
    );
  });

  test('off a planned way it is, where the straight line would allow it', () => {
    const route = [from, moved(from, 3000, 1500), to];
    const planned = corridorOf({ from, to, route }, rules.deviation);
    const drive = (way: typeof corridor) => {
      let state = onTheWay;
      for (let n = 0; n <= 30; n++) {
        const there = moved(from, 1500 - n * 50, -700);
        state = seeDeviation(state, fixAt(there, began + n * 5000), way, rules.deviation);
      }
      return state.suspected;
    };
    expect([drive(planned), drive(corridor)]).toEqual([true, false]);
  });
});

describe('+ a lost signal', () => {
  const { lostAfterMs, clearAfterMs, pauseMs } = rules.signal;

  test('is suspected if and only if nothing came for longer than the threshold', () => {
    const gaps = fc.array(fc.integer({ min: 1, max: lostAfterMs * 2 }), { minLength: 1, maxLength: 40 });
    fc.assert(
      fc.property(gaps, (all) => {
        let [state, at] = [heardFirst(began), began];
        for (const gap of all) {
          const before = state;
          const judged = judgeSignal(state, at + gap, rules.signal, 0);
          if (!before.suspected) expect(judged.suspected).toBe(gap > lostAfterMs);
          else expect(judged.suspected).toBe(true);
          at += gap;
          state = seeSignal(judged, at, rules.signal);
          // Back only after a while without a pause, so that a single blip neither clears nor asks again
          if (judged.suspected && gap > pauseMs) expect(state.suspected).toBe(true);
        }
        for (let n = 0; n * 5000 <= clearAfterMs; n++) state = seeSignal(state, (at += 5000), rules.signal);
        expect(state.suspected).toBe(false);
      }),
    );
  });

  test('is none as long as it is we who do not hear: nearly everybody is silent at once', () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 0, max: 600_000 }), { minLength: 1, maxLength: 60 }),
        (silences) => {
          const now = began + 10_000_000;
          const silent = silences.filter((ms) => ms > 60_000).length;
          const expected = silences.length >= 20 && silent * 2 > silences.length;
          expect(
            isDeaf(
              silences.map((ms) => now - ms),
              now,
            ),
          ).toBe(expected);
        },
      ),
    );
    const state = heardFirst(began);
    const hearingSince = began + 600_000;
    const judgedAt = (ms: number) =>
      judgeSignal(state, hearingSince + ms, rules.signal, hearingSince).suspected;
    expect([judgedAt(0), judgedAt(lostAfterMs), judgedAt(lostAfterMs + 1)]).toEqual([false, false, true]);
  });
});

describe('+ a trip as a whole', () => {
  test('a clean straight drive is never suspected of anything, wherever and however far', () => {
    fc.assert(
      fc.property(
        place,
        metres(15_000),
        metres(15_000),
        fc.double({ min: 6, max: 30, noNaN: true }),
        fc.array(metres(10), { minLength: 50, maxLength: 50 }),
        (from, east, north, speedMs, noise) => {
          const to = moved(from, east, north);
          const seconds = distanceM(from, to) / speedMs;
          let watch = watchTrip(plan(from, to), rules);
          for (let s = 0; s <= seconds; s += 5) {
            const share = s / Math.max(seconds, 1);
            const [off, along] = [noise[s % 50] ?? 0, noise[(s * 7) % 50] ?? 0];
            const there = moved(from, east * share + off, north * share + along);
            const timestamp = began + s * 1000;
            const update = { ...fixAt(there, timestamp, 10), tripId: 'trp_1', userId: 'usr_d' };
            watch = see(watch, { ...update, speed: speedMs, heading: null, at: timestamp + 300 }, rules);
            const judged = judge(watch, timestamp + 1000, rules);
            watch = judged.watch;
            expect(judged.suspected).toEqual([]);
          }
        },
      ),
      { numRuns: 50 },
    );
  });

  test('late and repeated updates change nothing', () => {
    const updates = (from: Point, walk: Parameters<typeof fixesOf>[1]) =>
      fixesOf(from, walk).map((fix) => ({
        ...fix,
        tripId: 'trp_1',
        userId: 'usr_d',
        speed: null,
        heading: null,
        at: fix.timestamp,
      }));
    fc.assert(
      fc.property(place, steps, fc.infiniteStream(fc.nat()), (from, walk, picks) => {
        const all = updates(from, walk);
        const start = watchTrip(plan(from, moved(from, 5000, 5000)), rules);
        let [once, disturbed]: [TripWatch, TripWatch] = [start, start];
        for (const [index, update] of all.entries()) {
          once = see(once, update, rules);
          disturbed = see(disturbed, update, rules);
          const old = all[(picks.next().value ?? 0) % (index + 1)];
          if (old) disturbed = see(disturbed, old, rules);
        }
        expect(disturbed).toEqual(once);
      }),
    );
  });

  test('positions too vague to say anything hide nothing: a trip with no others has lost its signal', () => {
    fc.assert(
      fc.property(place, steps, fc.integer({ min: 501, max: 100_000 }), (from, walk, accuracy) => {
        const start = watchTrip(plan(from, moved(from, 5000, 5000)), rules);
        let watch = start;
        for (const fix of fixesOf(from, walk)) {
          const at = fix.timestamp;
          const update = {
            ...fix,
            accuracy,
            tripId: 'trp_1',
            userId: 'usr_d',
            speed: null,
            heading: null,
            at,
          };
          watch = see(watch, update, rules);
        }
        expect(watch).toEqual(start);
        const { suspected } = judge(watch, began + rules.signal.lostAfterMs + 1, rules);
        expect(suspected).toEqual(['signal-lost']);
      }),
    );
  });

  test('overdue never before the expected duration, later with a longer way, and by the booking where it says', () => {
    fc.assert(
      fc.property(
        place,
        fc.integer({ min: 500, max: 100_000 }),
        fc.integer({ min: 1, max: 5000 }),
        (from, farM, more) => {
          const schedule = (m: number) => plan(from, moved(from, m, 0));
          const at = overdueFrom(schedule(farM), rules);
          expect(at - began).toBeGreaterThan(rules.overdue.slackMs);
          expect(overdueFrom(schedule(farM + more), rules)).toBeGreaterThan(at);
          const booked = overdueFrom({ ...schedule(farM), durationS: 600 }, rules);
          expect(booked - began).toBe(rules.overdue.factor * 600_000 + rules.overdue.slackMs);
        },
      ),
    );
  });

  test('the stream is read back as far as each matter takes', () => {
    const longest = Math.max(rules.stop.afterMs, rules.deviation.afterMs, rules.signal.lostAfterMs);
    expect(longestWindowMs(rules)).toBeGreaterThan(longest);
  });
});
