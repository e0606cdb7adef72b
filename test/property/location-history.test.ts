import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import type { Update } from '../../contracts/location.ts';
import { batchesOf } from '../../mixins/time-series.ts';
import { joinTrack, type TrackRange } from '../../services/location/track.ts';
import { reportedAt } from '../support/positions.ts';

const point = (timestamp: number, at: number): Update => ({ ...reportedAt('trp_a', timestamp), at });
const times = fc.array(fc.integer({ min: 0, max: 60 }), { maxLength: 40 });
const inOrder = (some: Iterable<number>) => [...new Set(some)].toSorted((a, b) => a - b);

/** What a database with these points answers. */
const stored = (known: readonly number[], { from, to, limit }: TrackRange) => {
  const inRange = inOrder(known).filter((time) => time >= from && time <= to);
  return { points: inRange.slice(0, limit).map((time) => point(time, 1)), more: inRange.length > limit };
};

describe('R2.4 a track of stream and database', () => {
  const anything = fc.record({
    database: times,
    stream: times,
    range: fc.record({
      from: fc.integer({ min: 0, max: 30 }),
      to: fc.integer({ min: 20, max: 70 }),
      limit: fc.integer({ min: 1, max: 50 }),
    }),
  });

  test('has every point once and in order, page by page, whichever of both has it', () => {
    fc.assert(
      fc.property(anything, ({ database, stream, range }) => {
        const streamed = stream.map((time) => point(time, 2));
        const seen: number[] = [];
        for (let from: number | null = range.from; from !== null; ) {
          const page = { ...range, from };
          const { points, next }: ReturnType<typeof joinTrack> = joinTrack(
            stored(database, page),
            streamed,
            page,
          );
          expect(points.length).toBeLessThanOrEqual(range.limit);
          if (next !== null) expect(next).toBeGreaterThan(from);
          seen.push(...points.map(({ timestamp }) => timestamp));
          from = next;
        }
        const expected = inOrder([...database, ...stream]);
        expect(seen).toEqual(expected.filter((time) => time >= range.from && time <= range.to));
      }),
    );
  });

  test('shows what the database has, where both have a point', () => {
    const range = { from: 0, to: 9, limit: 5 };
    const { points } = joinTrack(stored([3], range), [point(3, 2), point(4, 2)], range);
    expect(points.map(({ timestamp, at }) => [timestamp, at])).toEqual([
      [3, 1],
      [4, 2],
    ]);
  });
});

describe('R2.4 the batches that go to the database', () => {
  const fields = { of: (p: Update) => p.tripId, at: (p: Update) => p.timestamp };
  const points = fc.array(
    fc
      .tuple(
        fc.constantFrom('trp_a', 'trp_b'),
        // Dense in one place, sparse in another: a backlog beside what is live
        fc.oneof(fc.integer({ min: 0, max: 5000 }), fc.integer({ min: 0, max: 90_000_000 })),
      )
      .map(([tripId, timestamp]) => ({ ...reportedAt(tripId, timestamp), at: 0 })),
    { maxLength: 3000, size: 'max' },
  );

  test('hold each point once, few enough of them, and none of long ago beside one of now', () => {
    fc.assert(
      fc.property(points, (some) => {
        const batches = batchesOf(some, fields);
        const keys = (list: readonly Update[]) => list.map((p) => `${p.tripId} ${p.timestamp}`);
        expect(keys(batches.flat()).toSorted()).toEqual([...new Set(keys(some))].toSorted());
        for (const batch of batches) {
          const [first, last] = [batch[0], batch.at(-1)];
          expect(batch.length).toBeLessThanOrEqual(1000);
          expect((last?.timestamp ?? 0) - (first?.timestamp ?? 0)).toBeLessThan(3_600_000);
        }
        // No more batches than size and span ask for
        for (const [n, batch] of batches.entries()) {
          const next = batches[n + 1]?.[0];
          if (!next || batch.length === 1000) continue;
          expect(next.timestamp - (batch[0]?.timestamp ?? 0)).toBeGreaterThanOrEqual(3_600_000);
        }
      }),
      { numRuns: 30 },
    );
  });
});
