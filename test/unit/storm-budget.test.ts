import { describe, expect, test } from '@jest/globals';
import * as fc from 'fast-check';
import { StormBudget } from '../../lib/storm-budget.ts';

const lot = (size: number) => Array.from({ length: size }, (_, n) => n);

describe('StormBudget', () => {
  test('what is usual passes whole; of a storm the newest 50 pass, until it is over', () => {
    const budget = new StormBudget();
    expect(budget.split(lot(2000), 0)).toEqual({ skipped: [], sent: lot(2000) });
    const storm = budget.split(lot(700), 1000);
    expect([storm.skipped.length, storm.sent]).toEqual([650, lot(700).slice(650)]);
    expect(budget.split(lot(400), 1000).sent).toHaveLength(400);
    expect(budget.split(lot(900), 3000).sent).toHaveLength(900);
    expect(budget.split(lot(2000), 60_000).skipped).toEqual([]);
  });

  test('nothing is lost or put in another order, and what is sent keeps to the rate', () => {
    const steps = fc.array(fc.tuple(fc.nat(3000), fc.nat(2000)), { maxLength: 40 });
    fc.assert(
      fc.property(steps, (lots) => {
        const budget = new StormBudget();
        let [now, sent] = [0, 0];
        for (const [size, ms] of lots) {
          now += ms;
          const parts = budget.split(lot(size), now);
          expect([...parts.skipped, ...parts.sent]).toEqual(lot(size));
          sent += parts.sent.length;
        }
        expect(sent).toBeLessThanOrEqual(2000 + (now / 1000) * 500 + 50 * lots.length);
      }),
    );
  });
});
