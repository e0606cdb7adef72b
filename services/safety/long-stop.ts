import { distanceM, type Point } from '../../lib/geo.ts';
import type { Fix } from '../../lib/jump-rule.ts';
import type { SafetyRules } from './rules.ts';

export interface StopState {
  /** Where it has stood, and since when (the phone's time); its accuracy is that of the best fix there. */
  readonly anchor: Fix | null;
  readonly suspected: boolean;
}

export const notStopped: StopState = { anchor: null, suspected: false };

/**
 * The next position of a trip, by the phone's time. Suspected once it has not left `radiusM` for `afterMs`, anywhere but at its
 * destination; cleared when it has gone `clearM` from there. What two inaccurate fixes may be wrong by is no movement.
 */
export function seeStop(state: StopState, fix: Fix, to: Point, rules: SafetyRules['stop']): StopState {
  const { anchor, suspected } = state;
  if (!anchor) return { anchor: fix, suspected: false };
  const movedM = distanceM(anchor, fix) - anchor.accuracy - fix.accuracy;
  if (movedM > (suspected ? rules.clearM : rules.radiusM)) return { anchor: fix, suspected: false };
  const stays = fix.accuracy < anchor.accuracy ? { ...fix, timestamp: anchor.timestamp } : anchor;
  const isLong = fix.timestamp - anchor.timestamp >= rules.afterMs && distanceM(stays, to) > rules.arrivedM;
  return { anchor: stays, suspected: suspected || isLong };
}
