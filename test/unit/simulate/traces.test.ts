import { describe, expect, test } from '@jest/globals';
import { expectedJumps } from '../../support/simulate/expected-jumps.ts';
import { loadTracks, parseTracks, type TracePoint } from '../../support/simulate/traces.ts';

describe('the recorded drives', () => {
  test('are 163 tracks of 18,107 points with plausible speeds and headings', async () => {
    const tracks = await loadTracks();
    const points = tracks.flatMap((track) => track.points);
    expect([tracks.length, points.length]).toEqual([163, 18_107]);
    expect(points.every(({ speed }) => speed >= 0 && speed <= 150)).toBe(true);
    expect(points.every(({ heading }) => heading >= 0 && heading < 360)).toBe(true);
  });

  test('repeat a timestamp twice', async () => {
    const repeats = (await loadTracks()).flatMap(({ id, points }) =>
      points.flatMap(({ timeMs }, index) => (points[index - 1]?.timeMs === timeMs ? [[id, index]] : [])),
    );
    expect(repeats).toEqual([
      ['65', 2],
      ['70', 4],
    ]);
  });

  test('leap away and back once, in track 58, which is one refusal', async () => {
    const jumps = (await loadTracks()).flatMap(({ id, points }) =>
      [...expectedJumps(points)].map((index) => [id, index]),
    );
    expect(jumps).toEqual([['58', 20]]);
  });
});

describe('parsing', () => {
  const header = 'track_id,unix_time_s,lat,lng';

  test('derives speed and heading from the point before, and keeps the heading while standing', () => {
    const [track] = parseTracks(
      [header, '1,100,0,0', '1,110,0,0.001', '1,120,0,0.001', '1,120,0,0.001'].join('\n'),
    );
    expect(track?.points).toEqual([
      { timeMs: 100_000, lat: 0, lng: 0, speed: 0, heading: 0 },
      { timeMs: 110_000, lat: 0, lng: 0.001, speed: 11.12, heading: 90 },
      { timeMs: 120_000, lat: 0, lng: 0.001, speed: 0, heading: 90 },
      { timeMs: 120_000, lat: 0, lng: 0.001, speed: 0, heading: 90 },
    ]);
  });

  test('names the line that is wrong', () => {
    expect(() => parseTracks(`${header}\n1,100,0`)).toThrow(/^Line 2 of the traces/);
    expect(() => parseTracks(`${header}\n1,100,0,0\n1,200,x,0`)).toThrow(/^Line 3 of the traces/);
    expect(() => parseTracks(`${header}\n1,100,0,0\n1,99,0,0`)).toThrow('Line 3: track 1 runs backwards');
  });
});

describe('the jump rule', () => {
  /** Seconds and metres north. */
  const at = (seconds: number, metres: number): TracePoint => ({
    timeMs: seconds * 1000,
    lat: metres / 111_195.08,
    lng: 0,
    speed: 0,
    heading: 0,
  });
  const jumpsOf = (...points: [seconds: number, metres: number][]) => [
    ...expectedJumps(points.map(([seconds, metres]) => at(seconds, metres))),
  ];

  test('takes 300 km/h after both accuracies, and no more', () => {
    expect(jumpsOf([0, 0], [12, 1019])).toEqual([]);
    expect(jumpsOf([0, 0], [12, 1021])).toEqual([1]);
  });

  test('counts at least a second', () => {
    expect(jumpsOf([0, 0], [0, 103])).toEqual([]);
    expect(jumpsOf([0, 0], [0, 104])).toEqual([1]);
  });

  test('judges by the last accepted point, so that the way back is no jump', () => {
    expect(jumpsOf([0, 0], [5, 5000], [10, 20])).toEqual([1]);
  });

  test('believes the new place after three jumps in a row that agree', () => {
    expect(jumpsOf([0, 0], [5, 50_000], [10, 50_010], [15, 50_020], [20, 50_030], [25, 50_040])).toEqual([
      1, 2, 3,
    ]);
    expect(jumpsOf([0, 0], [5, 50_000], [10, 90_000], [15, 50_020], [20, 90_030], [25, 40])).toEqual([
      1, 2, 3, 4,
    ]);
  });
});
