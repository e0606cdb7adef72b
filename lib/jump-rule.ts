import { distanceM, type Point } from './geo.ts';

/** What the rule needs of a position; accuracy in m, timestamp in ms. */
export interface Fix extends Point {
  accuracy: number;
  timestamp: number;
}

/** The last accepted position of a driver, and the refused ones since that agree with each other. */
export interface JumpState {
  readonly last: Fix | null;
  readonly suspects: readonly Fix[];
}

export const noHistory: JumpState = { last: null, suspects: [] };

const maxSpeedMs = 300 / 3.6;
/** So many refused positions in a row that agree with each other are where the driver really is. */
const believedAfter = 3;

/** Could not be driven: (distance − both accuracies) / max(Δt, 1 s) > 300 km/h. */
export function isJump(from: Fix, to: Fix): boolean {
  const seconds = Math.max(Math.abs(to.timestamp - from.timestamp) / 1000, 1);
  return (distanceM(from, to) - from.accuracy - to.accuracy) / seconds > maxSpeedMs;
}

/**
 * Judges the next position of a driver. After three refused ones in a row that agree with each other, positions that
 * agree with them are accepted.
 */
export function judgeJump(state: JumpState, fix: Fix): { accepted: boolean; state: JumpState } {
  const { last, suspects } = state;
  if (!last || !isJump(last, fix)) return { accepted: true, state: { last: newer(last, fix), suspects: [] } };
  const previous = suspects.at(-1);
  const agrees = previous !== undefined && !isJump(previous, fix);
  if (agrees && suspects.length >= believedAfter)
    return { accepted: true, state: { last: fix, suspects: [] } };
  return { accepted: false, state: { last, suspects: agrees ? [...suspects, fix] : [fix] } };
}

/** A late position must not become the one that the next is judged by. */
const newer = (last: Fix | null, fix: Fix): Fix => (last && last.timestamp > fix.timestamp ? last : fix);
