/** Which points of a drive the server must refuse as jumps, by the published rule and nothing else. */
import { distanceM } from '../../../lib/geo.ts';
import { ACCURACY_M, type TracePoint } from './traces.ts';

const MAX_KMH = 300;
/** So many jumps in a row that agree with each other move the driver after all. */
const BELIEVED_AFTER = 3;

/**
 * Indexes of the points to be refused: (distance from the last accepted point − both accuracies) /
 * max(Δt, 1 s) is above 300 km/h. Jumps agree when none is a jump from the one before it; after three such in
 * a row the next one that agrees is accepted.
 *
 * Counted from the last *accepted* point an outlier is one refusal, though the recording leaps there and back:
 * in the recorded drives that is index 20 of track 58, and nothing else.
 */
export function expectedJumps(points: readonly TracePoint[]): Set<number> {
  const jumps = new Set<number>();
  let accepted: TracePoint | undefined;
  let agreeing: TracePoint[] = [];
  for (const [index, point] of points.entries()) {
    if (accepted && isJump(accepted, point)) {
      const before = agreeing.at(-1);
      const agrees = before !== undefined && !isJump(before, point);
      if (!agrees || agreeing.length < BELIEVED_AFTER) {
        jumps.add(index);
        agreeing = agrees ? [...agreeing, point] : [point];
        continue;
      }
    }
    accepted = point;
    agreeing = [];
  }
  return jumps;
}

function isJump(from: TracePoint, to: TracePoint): boolean {
  const metres = distanceM(from, to) - 2 * ACCURACY_M;
  const seconds = Math.max((to.timeMs - from.timeMs) / 1000, 1);
  return (metres / seconds) * 3.6 > MAX_KMH;
}
