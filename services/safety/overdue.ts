import { distanceM, lengthM, type Point } from '../../lib/geo.ts';
import type { SafetyRules } from './rules.ts';

export interface Schedule {
  startedAt: number;
  from: Point;
  to: Point;
  route: readonly Point[] | null;
  durationS: number | null;
}

/**
 * From when on a trip is overdue, ms: its expected duration times `factor`, and `slackMs`, after its start. Expected is what the booking
 * says, else the length of the planned way, or of a straight line with the usual detour, at the usual speed
 * (`townM` of it in town, the rest faster). Time only goes on, so that this is never taken back but by the end of the trip.
 */
export function overdueFrom(
  { startedAt, from, to, route, durationS }: Schedule,
  { overdue, deviation }: SafetyRules,
): number {
  const metres = route ? lengthM(route) : deviation.detourFactor * distanceM(from, to);
  const openRoadM = Math.max(0, metres - overdue.townM) / overdue.openRoadFactor;
  const expectedS = durationS ?? (Math.min(metres, overdue.townM) + openRoadM) / overdue.speedMs;
  return startedAt + overdue.factor * expectedS * 1000 + overdue.slackMs;
}
