import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { alertStatus } from '../../../contracts/sos.ts';
import {
  type AlertStep,
  allowedFrom,
  isOver,
  nextStatus,
  outcomeOf,
} from '../../../services/sos/alert-state.ts';

const steps: AlertStep[] = ['acknowledge', 'respond', 'resolve', 'false-alarm', 'cancel'];
const rank = { active: 0, acknowledged: 1, responding: 2, resolved: 3, 'false-alarm': 3, cancelled: 3 };

test('+ whatever steps are tried, an alert only moves forward, and its end is its end', () => {
  fc.assert(
    fc.property(fc.array(fc.constantFrom(...steps), { maxLength: 12 }), (tried) => {
      let status: keyof typeof rank = 'active';
      for (const step of tried) {
        const next = nextStatus(status, step);
        expect(allowedFrom(step).includes(status)).toBe(next !== null);
        if (next === null) continue;
        expect(next).toBe(outcomeOf(step));
        expect(rank[next]).toBeGreaterThan(rank[status]);
        expect(isOver(status)).toBe(false);
        status = next;
      }
    }),
  );
});

test('+ any open state can be resolved, called a false alarm or cancelled; no step leads out of an end', () => {
  for (const status of alertStatus.options) {
    const ends = (['resolve', 'false-alarm', 'cancel'] as const).map((step) => nextStatus(status, step));
    expect(ends).toEqual(isOver(status) ? [null, null, null] : ['resolved', 'false-alarm', 'cancelled']);
    if (isOver(status)) expect(steps.map((step) => nextStatus(status, step))).toEqual(steps.map(() => null));
  }
});
