import type { ErrorCode } from '../contracts/errors.ts';
import { type Fix, type JumpState, judgeJump } from './jump-rule.ts';

/** A phone's clock may run ahead by this much, ms. */
const maxAheadMs = 60_000;

/** Judges a well-formed position of a trip's driver. `now` is the server's clock, ms. */
export function checkPosition(
  state: JumpState,
  fix: Fix,
  now: number,
): { refused: ErrorCode | null; state: JumpState } {
  if (fix.timestamp > now + maxAheadMs) return { refused: 'LOCATION_AHEAD', state };
  const judged = judgeJump(state, fix);
  return { refused: judged.accepted ? null : 'LOCATION_JUMP', state: judged.state };
}
