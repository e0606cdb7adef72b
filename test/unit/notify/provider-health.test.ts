import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import {
  type Breaker,
  breakerRules,
  closedBreaker,
  onAnswer,
  onCall,
  onFailure,
  shunnedUntil,
} from '../../../services/notify/circuit-breaker.ts';
import { isDegraded, rateOf, rateRules } from '../../../services/notify/delivery-rate.ts';
import { RateBudget, Slots } from '../../../services/notify/turns.ts';

const failTimes = (times: number, now: number, from: Breaker = closedBreaker): Breaker =>
  Array.from({ length: times }).reduce<Breaker>((breaker) => onFailure(breaker, now), from);

describe('the circuit breaker of a provider', () => {
  test('opens after so many failures in a row, and one answer closes it', () => {
    expect(shunnedUntil(failTimes(breakerRules.failures - 1, 0), 0)).toBeNull();
    const open = failTimes(breakerRules.failures, 0);
    expect(shunnedUntil(open, 0)).toBe(breakerRules.openMs);
    expect(shunnedUntil(onAnswer(), 0)).toBeNull();
  });

  test('lets one call through as a trial, and after a trial that fails it stays open twice as long', () => {
    const open = failTimes(breakerRules.failures, 0);
    const now = breakerRules.openMs;
    expect(shunnedUntil(open, now)).toBeNull();
    const onTrial = onCall(open, now, 3000);
    expect(shunnedUntil(onTrial, now)).toBe(now + 3000);
    const again = onFailure(onTrial, now + 10);
    expect(shunnedUntil(again, now + 10)).toBe(now + 10 + 2 * breakerRules.openMs);
  });

  test('whatever happens, it never shuns for longer than its limit or a trial takes, and never stays shut to a provider that answers', () => {
    const event = fc.record({
      kind: fc.constantFrom('call', 'answer', 'failure'),
      afterMs: fc.integer({ min: 0, max: 40_000 }),
    });
    fc.assert(
      fc.property(fc.array(event, { maxLength: 60 }), (events) => {
        let breaker: Breaker = closedBreaker;
        let now = 0;
        for (const { kind, afterMs } of events) {
          now += afterMs;
          if (kind === 'answer') breaker = onAnswer();
          else if (kind === 'failure') breaker = onFailure(breaker, now);
          else if (shunnedUntil(breaker, now) === null) breaker = onCall(breaker, now, 3000);
          const until = shunnedUntil(breaker, now);
          if (until !== null) {
            expect(until - now).toBeLessThanOrEqual(breakerRules.mostMs);
            expect(shunnedUntil(breaker, until)).toBeNull();
          }
        }
        expect(shunnedUntil(onAnswer(), now)).toBeNull();
      }),
    );
  });
});

describe('the delivery rate of a provider', () => {
  const rules = rateRules(0.95);

  test('R12.4 is bad below the threshold, and well again only clearly above it', () => {
    expect(isDegraded(false, { ok: 94, failed: 6 }, rules)).toBe(true);
    expect(isDegraded(false, { ok: 96, failed: 4 }, rules)).toBe(false);
    expect(isDegraded(true, { ok: 96, failed: 4 }, rules)).toBe(true);
    expect(isDegraded(true, { ok: 98, failed: 2 }, rules)).toBe(false);
  });

  test('few messages say nothing; when nothing bad is left in sight it is well again', () => {
    expect(isDegraded(false, { ok: 0, failed: 5 }, rules)).toBe(false);
    expect(isDegraded(true, { ok: 3, failed: 2 }, rules)).toBe(true);
    expect(isDegraded(true, { ok: 3, failed: 0 }, rules)).toBe(false);
    expect(rateOf({ ok: 0, failed: 0 })).toBe(1);
  });
});

describe('turns', () => {
  test('R4.1 of those who wait for a slot the highest priority goes first', async () => {
    const slots = new Slots(1);
    const went: string[] = [];
    let open: () => void = () => undefined;
    const first = slots.run(3, () => new Promise<void>((resolve) => (open = resolve)));
    const others = [
      slots.run(3, async () => void went.push('low')),
      slots.run(2, async () => void went.push('normal')),
      slots.run(1, async () => void went.push('high')),
    ];
    open();
    await Promise.all([first, ...others]);
    expect(went).toEqual(['high', 'normal', 'low']);
  });

  test('a slot is free again after a failure', async () => {
    const slots = new Slots(1);
    await expect(slots.run(0, async () => Promise.reject(new Error('no')))).rejects.toThrow('no');
    await expect(slots.run(0, async () => 'next')).resolves.toBe('next');
  });

  test('a rate budget lets its burst go at once and the rest as time passes, the highest priority first', async () => {
    const budget = new RateBudget(200);
    const began = performance.now();
    // All at once: no time passes in which it could fill again
    const burst = Array.from({ length: 200 }, () => budget.take(3));
    const went: number[] = [];
    const rest = [3, 2, 1, 0].map((rank) => budget.take(rank).then(() => went.push(rank)));
    await Promise.all(burst);
    expect(went).toEqual([]);
    await Promise.all(rest);
    expect(went).toEqual([0, 1, 2, 3]);
    expect(performance.now() - began).toBeGreaterThan(15);
  });
});
