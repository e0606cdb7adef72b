import { describe, expect, test } from '@jest/globals';
import * as fc from 'fast-check';
import type { TripStatus } from '../../../contracts/trips.ts';
import { allowedFrom, nextStatus, type TripStep } from '../../../services/trips/trip-state.ts';

const steps: TripStep[] = ['accept', 'start', 'end', 'cancel'];
/** The allowed graph, written down a second time on purpose. */
const graph: Record<TripStatus, TripStatus[]> = {
  requested: ['scheduled', 'cancelled'],
  scheduled: ['active', 'cancelled'],
  active: ['ended', 'cancelled'],
  ended: [],
  cancelled: [],
};
const statuses = Object.keys(graph) as TripStatus[];

describe('trip states', () => {
  test('no sequence of steps leaves the allowed graph or goes on after the end', () => {
    fc.assert(
      fc.property(fc.array(fc.constantFrom(...steps), { maxLength: 30 }), (sequence) => {
        let status: TripStatus = 'requested';
        let moves = 0;
        for (const step of sequence) {
          const next: TripStatus | null = nextStatus(status, step);
          if (next === null) continue;
          expect(graph[status]).toContain(next);
          status = next;
          moves += 1;
        }
        expect(moves).toBeLessThanOrEqual(3);
      }),
    );
  });

  test('every edge of the graph can be walked', () => {
    for (const status of statuses) {
      const reached = steps.map((step) => nextStatus(status, step)).filter((next) => next !== null);
      expect(new Set(reached)).toEqual(new Set(graph[status]));
    }
  });

  test('ended and cancelled are final', () => {
    for (const step of steps) {
      expect(nextStatus('ended', step)).toBeNull();
      expect(nextStatus('cancelled', step)).toBeNull();
    }
  });

  test('what the database is asked for is what the rule says', () => {
    for (const step of steps)
      expect(statuses.filter((status) => nextStatus(status, step) !== null)).toEqual(allowedFrom(step));
  });
});
