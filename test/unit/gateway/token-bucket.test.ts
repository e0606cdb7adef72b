import { describe, expect, test } from '@jest/globals';
import * as fc from 'fast-check';
import { TokenBucket } from '../../../services/gateway/token-bucket.ts';

const taken = (bucket: TokenBucket, now: number, tries: number) =>
  Array.from({ length: tries }, () => bucket.take(now)).filter(Boolean).length;

describe('TokenBucket', () => {
  test('a burst of 100 passes, then 50 in each second', () => {
    const bucket = new TokenBucket(50, 100, 0);
    expect(taken(bucket, 0, 150)).toBe(100);
    expect([20, 40, 41, 60].map((now) => taken(bucket, now, 2))).toEqual([1, 1, 0, 1]);
    expect(taken(bucket, 1060, 200)).toBe(50);
    expect(taken(bucket, 100_000, 200)).toBe(100);
  });

  test('never lets more through than burst + rate × time, and never less than was asked evenly', () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: -50, max: 200 }), { minLength: 1, maxLength: 300 }), (steps) => {
        const bucket = new TokenBucket(50, 10, 0);
        let [now, passed, gained] = [0, 0, 0];
        for (const step of steps) {
          // A clock that is set back gives nothing, and takes nothing
          gained += Math.max(0, step);
          now += step;
          if (bucket.take(now)) passed++;
        }
        expect(passed).toBeLessThanOrEqual(10 + gained / 20);
        if (steps.every((step) => step >= 20)) expect(passed).toBe(steps.length);
      }),
    );
  });
});
