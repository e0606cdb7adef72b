import { distanceM, distanceToLineM, type Point } from '../../lib/geo.ts';
import type { Fix } from '../../lib/jump-rule.ts';
import type { SafetyRules } from './rules.ts';

/** The way that a trip should take: its line, how far from it is still on it (m), and where it leads. */
export interface Corridor {
  readonly line: readonly Point[];
  readonly halfWidthM: number;
  readonly to: Point;
}

export interface DeviationState {
  /** The position outside since which it has made no progress; null inside. */
  readonly since: Fix | null;
  readonly suspected: boolean;
}

export const onTheWay: DeviationState = { since: null, suspected: false };

/**
 * The planned line with a fixed corridor; without one the straight line, whose corridor grows with the distance d. A way
 * by road that is at most k times as long as the straight line stays inside the ellipse whose foci are the two ends and whose long axis
 * is k·d; the furthest that it can get from the line between them is the short half-axis, d/2·√(k²−1).
 */
export function corridorOf(
  { from, to, route }: { from: Point; to: Point; route: readonly Point[] | null },
  rules: SafetyRules['deviation'],
): Corridor {
  if (route) return { line: route, halfWidthM: rules.corridorM, to };
  const shortHalfAxisM = (distanceM(from, to) / 2) * Math.sqrt(rules.detourFactor ** 2 - 1);
  return { line: [from, to], halfWidthM: Math.max(rules.corridorM, shortHalfAxisM), to };
}

/**
 * The next position of a trip. Suspected once it has driven about outside the corridor for `afterMs` without coming `progressM`
 * nearer to the destination; cleared when it is well inside again, or has come `clearProgressM` nearer than it was then.
 */
export function seeDeviation(
  state: DeviationState,
  fix: Fix,
  { line, halfWidthM, to }: Corridor,
  rules: SafetyRules['deviation'],
): DeviationState {
  const { since, suspected } = state;
  const offM = distanceToLineM(fix, line) - fix.accuracy;
  const progressM = since ? distanceM(since, to) - distanceM(fix, to) : 0;
  if (suspected) {
    const isBack = offM <= rules.clearShare * halfWidthM || progressM > rules.clearProgressM;
    return isBack ? onTheWay : state;
  }
  if (offM <= halfWidthM) return onTheWay;
  if (!since || progressM > rules.progressM) return { since: fix, suspected: false };
  const movedM = distanceM(since, fix) - since.accuracy - fix.accuracy;
  const isLong = fix.timestamp - since.timestamp >= rules.afterMs && movedM > rules.movedM;
  return { since, suspected: isLong };
}
