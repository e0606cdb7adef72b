import { readFileSync } from 'node:fs';
import { describe, expect, test } from '@jest/globals';
import * as fc from 'fast-check';
import { distanceM } from '../../../lib/geo.ts';
import { type Fix, isJump, judgeJump, noHistory } from '../../../lib/jump-rule.ts';

/** Metres of a degree along a meridian of lib/geo's sphere. */
const meridianM = (6_371_008.8 * Math.PI) / 180;
/** A fix so many metres north of the equator, so many seconds after noon. */
const fix = (northM: number, atS: number, accuracy = 0): Fix => ({
  lat: northM / meridianM,
  lng: 10,
  accuracy,
  timestamp: 1_700_000_000_000 + atS * 1000,
});

/** `y` for each accepted fix, `n` for each refused one. */
const judge = (fixes: readonly Fix[]): string => {
  let state = noHistory;
  return fixes
    .map((next) => {
      const judged = judgeJump(state, next);
      ({ state } = judged);
      return judged.accepted ? 'y' : 'n';
    })
    .join('');
};

describe('isJump', () => {
  // 300 km/h are 83.333 m/s
  test.each([
    [833, 10, false],
    [834, 10, true],
    [83, 1, false],
    [84, 1, true],
    [4999, 60, false],
    [5001, 60, true],
  ])('R2 %d m in %d s: %p', (metres, seconds, expected) => {
    expect(isJump(fix(0, 0), fix(metres, seconds))).toBe(expected);
  });

  test('R2 both accuracies are taken off the distance', () => {
    expect(isJump(fix(0, 0, 40), fix(923, 10, 50))).toBe(false);
    expect(isJump(fix(0, 0, 40), fix(924, 10, 50))).toBe(true);
    expect(isJump(fix(0, 0, 90), fix(924, 10, 0))).toBe(true);
    expect(isJump(fix(0, 0, 600), fix(1000, 1, 400))).toBe(false);
  });

  test.each([0, 0.1, 0.999])('R2 %d s count as one second', (seconds) => {
    expect(isJump(fix(0, 0), fix(83, seconds))).toBe(false);
    expect(isJump(fix(0, 0), fix(84, seconds))).toBe(true);
  });

  test('R2 does not depend on the direction', () => {
    const any = fc.record({
      lat: fc.double({ min: -90, max: 90, noNaN: true }),
      lng: fc.double({ min: -180, max: 180, noNaN: true }),
      accuracy: fc.integer({ min: 0, max: 1000 }),
      timestamp: fc.integer({ min: 0, max: 1_000_000 }),
    });
    fc.assert(fc.property(any, any, (a, b) => expect(isJump(a, b)).toBe(isJump(b, a))));
  });
});

describe('judgeJump', () => {
  test('the first fix is accepted wherever it is', () => {
    expect(judge([fix(9_000_000, 0)])).toBe('y');
  });

  test('R2 after three refused in a row that agree the new place is believed', () => {
    expect(judge([fix(0, 0), fix(50_000, 5), fix(50_050, 10), fix(50_100, 15), fix(50_150, 20)])).toBe(
      'ynnny',
    );
  });

  test('R2 once believed, it is the place that later fixes are judged by', () => {
    const moved = [fix(0, 0), ...[5, 10, 15, 20].map((s) => fix(50_000, s))];
    expect(judge([...moved, fix(50_010, 25), fix(0, 30)])).toBe('ynnnyyn');
  });

  test('R2 refused ones that disagree start the count anew', () => {
    const there = [5, 10].map((s) => fix(50_000, s));
    const elsewhere = [15, 20, 25].map((s) => fix(-50_000, s));
    expect(judge([fix(0, 0), ...there, ...elsewhere, fix(-50_000, 30)])).toBe('ynnnnny');
    // Back and forth is never believed
    const flicker = Array.from({ length: 20 }, (_, i) => fix(i % 2 ? 50_000 : -50_000, 5 + i * 5));
    expect(judge([fix(0, 0), ...flicker])).toBe(`y${'n'.repeat(20)}`);
  });

  test('R2 one accepted fix forgets the refused ones', () => {
    const there = (s: number) => fix(50_000, s);
    expect(judge([fix(0, 0), there(5), there(10), there(15), fix(0, 16), there(17), there(18)])).toBe(
      'ynnnynn',
    );
  });

  test('R2 a late fix is accepted but the next is judged by the newest', () => {
    // 2 km in 1 s is a jump from the newest, though not from the late one
    expect(judge([fix(0, 60), fix(0, 0), fix(2000, 61)])).toBe('yyn');
  });

  test('never changes the state it was given', () => {
    const state = Object.freeze({ last: fix(0, 0), suspects: Object.freeze([fix(50_000, 5)]) });
    judgeJump(state, fix(50_000, 10));
    judgeJump(state, fix(1, 10));
    expect(state).toEqual({ last: fix(0, 0), suspects: [fix(50_000, 5)] });
  });
});

describe('recorded drives', () => {
  const csv = readFileSync(new URL('../../support/traces/gps-traces.csv', import.meta.url), 'utf8');
  const rows = csv.trim().split('\n').slice(1);
  const tracks = new Map<string, Fix[]>();
  for (const row of rows) {
    const [track = '', seconds, lat, lng] = row.split(',');
    const fixes = tracks.get(track) ?? [];
    tracks.set(track, fixes);
    fixes.push({ lat: Number(lat), lng: Number(lng), accuracy: 10, timestamp: Number(seconds) * 1000 });
  }

  test('R2 the only jumps are the two of track 58, out to one false fix and back', () => {
    expect([tracks.size, rows.length]).toEqual([163, 18_107]);
    const jumps = [...tracks].flatMap(([track, fixes]) =>
      fixes.flatMap((to, index) => {
        const from = fixes[index - 1];
        if (!from || !isJump(from, to)) return [];
        return [{ track, at: to.timestamp / 1000, km: Math.round(distanceM(from, to) / 100) / 10 }];
      }),
    );
    expect(jumps).toEqual([
      { track: '58', at: 1_421_826_072, km: 5.6 },
      { track: '58', at: 1_421_826_090, km: 5.7 },
    ]);
  });

  test('R2 of all 18,107 fixes only that false one is refused', () => {
    const refused = [...tracks].flatMap(([track, fixes]) => {
      const outcomes = judge(fixes);
      return fixes.filter((_, i) => outcomes[i] === 'n').map((f) => ({ track, at: f.timestamp / 1000 }));
    });
    expect(refused).toEqual([{ track: '58', at: 1_421_826_072 }]);
  });
});
