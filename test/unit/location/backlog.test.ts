import { describe, expect, test } from '@jest/globals';
import * as fc from 'fast-check';
import { judgeBacklog } from '../../../services/location/backlog.ts';

const startedAt = 1_700_000_000_000;
const hour = 3_600_000;
const now = startedAt + 2 * hour;
const running = { startedAt, endedAt: null };
const ended = { startedAt, endedAt: startedAt + hour };

const point = (timestamp: number, lat = 0) => ({ lat, lng: 0, accuracy: 5, timestamp });
const complete = (timestamp: number, lat = 0) => ({ ...point(timestamp, lat), speed: null, heading: null });

describe('judgeBacklog', () => {
  test('R2 points come out oldest first, whatever order they came in', () => {
    const inputs = fc.shuffledSubarray(
      Array.from({ length: 30 }, (_, i) => startedAt + i * 5000),
      { minLength: 1 },
    );
    fc.assert(
      fc.property(inputs, (timestamps) => {
        const judged = judgeBacklog(
          timestamps.map((t) => point(t)),
          running,
          now,
        );
        expect(judged).toEqual({
          accepted: timestamps.length,
          rejected: [],
          points: timestamps.toSorted((a, b) => a - b).map((t) => complete(t)),
        });
      }),
    );
  });

  test('R2 a repeat counts as accepted and is kept once', () => {
    const twice = [point(startedAt + 5), point(startedAt), point(startedAt + 5)];
    expect(judgeBacklog(twice, running, now)).toEqual({
      accepted: 3,
      rejected: [],
      points: [complete(startedAt), complete(startedAt + 5)],
    });
  });

  test.each<[string, unknown]>([
    ['lat 91', { ...point(startedAt), lat: 91 }],
    ['lng -181', { ...point(startedAt), lng: -181 }],
    ['NaN', { ...point(startedAt), lat: Number.NaN }],
    ['a string for a number', { ...point(startedAt), lat: '1' }],
    ['no timestamp', { lat: 1, lng: 1, accuracy: 1 }],
    ['a negative accuracy', { ...point(startedAt), accuracy: -1 }],
    ['null', null],
    ['a string', 'here'],
    ['an array', []],
  ])('R2 %s is LOCATION_INVALID and harms no other', (_, bad) => {
    expect(judgeBacklog([point(startedAt), bad, point(startedAt + 5000)], running, now)).toMatchObject({
      accepted: 2,
      rejected: [{ index: 1, code: 'LOCATION_INVALID' }],
    });
  });

  test('R2 each refusal has its code and the index of the input, in its order', () => {
    const judged = judgeBacklog(
      [
        point(startedAt + 10_000, 1),
        point(now + 60_001),
        point(startedAt + 5000),
        { lat: 1 },
        point(startedAt - 24 * hour - 1),
        point(startedAt),
      ],
      running,
      now,
    );
    expect(judged.rejected).toEqual([
      { index: 0, code: 'LOCATION_JUMP' },
      { index: 1, code: 'LOCATION_AHEAD' },
      { index: 3, code: 'LOCATION_INVALID' },
      { index: 4, code: 'LOCATION_TRIP_NOT_ACTIVE' },
    ]);
    expect(judged).toMatchObject({ accepted: 2, points: [complete(startedAt), complete(startedAt + 5000)] });
  });

  test('R2 what was refused for its time is not what others are judged by', () => {
    const judged = judgeBacklog(
      [point(startedAt - 24 * hour - 1, 80), point(startedAt), point(startedAt + 1000)],
      running,
      now,
    );
    expect(judged).toMatchObject({ accepted: 2, rejected: [{ index: 0 }] });
  });

  test('R2 points are judged by their own time, also after the end of the trip', () => {
    const { endedAt } = ended;
    const times = [startedAt - 24 * hour, startedAt, endedAt, endedAt + 60_000, endedAt + 60_001];
    expect(
      judgeBacklog(
        times.map((t) => point(t)),
        ended,
        now,
      ),
    ).toMatchObject({
      accepted: 4,
      rejected: [{ index: 4, code: 'LOCATION_TRIP_NOT_ACTIVE' }],
    });
    expect(judgeBacklog([point(endedAt + 60_001)], running, now)).toMatchObject({ accepted: 1 });
  });
});
