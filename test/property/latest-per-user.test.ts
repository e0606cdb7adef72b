import { describe, expect, test } from '@jest/globals';
import * as fc from 'fast-check';
import { LatestPerUser } from '../../lib/latest-per-user.ts';

const update = fc.record({
  tripId: fc.constantFrom('trp_a', 'trp_b', 'trp a'),
  userId: fc.constantFrom('usr_a', 'usr_b', 'b usr_a'),
  timestamp: fc.integer({ min: 0, max: 20 }),
});
type Made = { tripId: string; userId: string; timestamp: number };

const who = ({ tripId, userId }: Made) => JSON.stringify([tripId, userId]);

/** What must be left, said in another way than the code does. */
const latest = (updates: readonly Made[]) =>
  new Set(
    updates
      .filter((u) => updates.every((other) => who(other) !== who(u) || other.timestamp <= u.timestamp))
      .map((u) => `${who(u)} ${u.timestamp}`),
  );

const kept = (updates: readonly Made[]) => {
  const buffer = new LatestPerUser<Made>();
  const opened = updates.filter((u) => buffer.add(u)).length;
  const size = buffer.size;
  return { left: buffer.take(), opened, size, sizeAfter: buffer.size };
};

describe('LatestPerUser', () => {
  test('P3 R2.3 any order and duplication leaves of each user and trip exactly the latest', () => {
    const disorder = fc
      .array(update, { minLength: 1, maxLength: 60 })
      .chain((updates) =>
        fc.tuple(
          fc.constant(updates),
          fc.array(fc.constantFrom(...updates), { maxLength: 30 }),
          fc.infiniteStream(fc.nat()),
        ),
      )
      .map(([updates, repeats, order]) => {
        const all = [...updates, ...repeats].map((u) => ({ u, key: order.next().value ?? 0 }));
        return { updates, arriving: all.toSorted((a, b) => a.key - b.key).map(({ u }) => u) };
      });
    fc.assert(
      fc.property(disorder, ({ updates, arriving }) => {
        const { left, opened, size, sizeAfter } = kept(arriving);
        expect(new Set(left.map((u) => `${who(u)} ${u.timestamp}`))).toEqual(latest(updates));
        // Exactly one each, and every other arrival was told to be superseded
        expect(left).toHaveLength(new Set(updates.map(who)).size);
        expect([opened, size, sizeAfter]).toEqual([left.length, left.length, 0]);
      }),
    );
  });

  test('R2.3 of equal timestamps the first stays', () => {
    const buffer = new LatestPerUser<Made & { lat: number }>();
    const at = { tripId: 't', userId: 'u', timestamp: 5 };
    expect(buffer.add({ ...at, lat: 1 })).toBe(true);
    expect(buffer.add({ ...at, lat: 2 })).toBe(false);
    expect(buffer.add({ ...at, timestamp: 4, lat: 3 })).toBe(false);
    expect(buffer.take()).toEqual([{ ...at, lat: 1 }]);
  });
});
