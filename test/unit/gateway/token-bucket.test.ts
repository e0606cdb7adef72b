import { expect, test } from '@jest/globals';
import * as fc from 'fast-check';
import { TokenBucket } from '../../../services/gateway/token-bucket.ts';

test('takes a burst, then as many as trickle in', () => {
  const bucket = new TokenBucket(50, 100, 0);
  const taken = (now: number) => Array.from({ length: 200 }, () => bucket.take(now)).filter(Boolean).length;
  expect(taken(0)).toBe(100);
  expect(taken(1000)).toBe(50);
  expect(taken(1010)).toBe(0);
  expect(taken(1020)).toBe(1);
  expect(taken(60_000)).toBe(100);
});

test('never lets more through than burst and rate allow, also when the clock goes backwards', () => {
  const rates = fc.record({
    perS: fc.integer({ min: 1, max: 100 }),
    burst: fc.integer({ min: 1, max: 200 }),
  });
  fc.assert(
    fc.property(
      rates,
      fc.array(fc.integer({ min: -500, max: 500 }), { maxLength: 300 }),
      ({ perS, burst }, steps) => {
        const bucket = new TokenBucket(perS, burst, 0);
        let [now, passed, forward] = [0, 0, 0];
        for (const step of steps) {
          now += step;
          forward += Math.max(0, step);
          if (bucket.take(now)) passed += 1;
        }
        expect(passed).toBeLessThanOrEqual(burst + (forward / 1000) * perS + 1e-6);
      },
    ),
  );
});
