import { describe, expect, test } from '@jest/globals';
import * as fc from 'fast-check';
import { dueAfter, groupSize, slicesOf } from '../../../services/gateway/slices.ts';

const powersOfTwo = [1, 2, 4, 8, 16];

describe("R2.1 a tick's slices", () => {
  test('are 50 ms at least, and sixteen at most', () => {
    expect([10, 50, 120, 300, 1000, 5000].map(slicesOf)).toEqual([1, 1, 2, 4, 16, 16]);
  });

  test('are handed on one by one under load, together when there is little to do', () => {
    expect([0, 10, 400, 2000, 4000, 12_500].map((updates) => groupSize(updates, 16))).toEqual([
      16, 16, 8, 1, 1, 1,
    ]);
  });

  test('make no batch that is too large, unless one slice alone is, and no needlessly small one', () => {
    fc.assert(
      fc.property(fc.nat(100_000), fc.constantFrom(...powersOfTwo), (updates, slices) => {
        const size = groupSize(updates, slices);
        expect(powersOfTwo).toContain(size);
        expect(size).toBeLessThanOrEqual(slices);
        if (size > 1) expect((updates / slices) * size).toBeLessThanOrEqual(200);
        if (size < slices) expect((updates / slices) * size * 2).toBeGreaterThan(200);
      }),
    );
  });

  test('R2.1 come once a tick each, and no slice waits for longer than that, however the load changes', () => {
    fc.assert(
      fc.property(fc.array(fc.constantFrom(...powersOfTwo), { minLength: 2, maxLength: 12 }), (sizes) => {
        const lastAt = new Map<number, number>();
        let before = sizes[0] as number;
        for (const [tick, now] of sizes.entries()) {
          const counts = new Map<number, number>();
          for (let n = 0; n < 16; n++)
            for (const slice of dueAfter(n, [now, before])) {
              const at = tick * 16 + n;
              // Its own time is over: nothing is taken before
              expect(slice).toBeLessThanOrEqual(n);
              expect(at - (lastAt.get(slice) ?? at - 16)).toBeLessThanOrEqual(16);
              lastAt.set(slice, at);
              counts.set(slice, (counts.get(slice) ?? 0) + 1);
            }
          expect(counts.size).toBe(16);
          if (now === before) expect([...counts.values()].every((count) => count === 1)).toBe(true);
          before = now;
        }
      }),
    );
  });
});
