import { describe, expect, test } from '@jest/globals';
import * as fc from 'fast-check';
import { Recent } from '../../../lib/standins/recent.ts';

describe('Recent', () => {
  test('keeps the newest, and finds them by key, newest first', () => {
    const keys = fc.array(fc.constantFrom('a', 'b', 'c'), { maxLength: 80 });
    fc.assert(
      fc.property(keys, fc.integer({ min: 1, max: 20 }), (added, max) => {
        const recent = new Recent<{ key: string; index: number }>(max, ({ key }) => key);
        added.forEach((key, index) => {
          recent.add({ key, index });
          const kept = added.slice(0, index + 1).map((each, at) => ({ key: each, index: at }));
          const newest = kept.slice(-max).toReversed();
          expect([...recent.newestFirst()]).toEqual(newest);
          expect(recent.newest('a')).toEqual(newest.find((each) => each.key === 'a'));
          expect([...recent.newestFirst('a')]).toEqual(newest.filter((each) => each.key === 'a'));
        });
        expect([...recent.newestFirst('nobody')]).toEqual([]);
      }),
      { numRuns: 50 },
    );
  });
});
