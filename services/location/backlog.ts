import type { ErrorCode } from '../../contracts/errors.ts';
import { type Position, position } from '../../contracts/location.ts';
import { noHistory } from '../../lib/jump-rule.ts';
import { checkPosition } from '../../lib/position-check.ts';

/** Points may lie this far outside the trip's own times, ms: clocks differ, and phones buffer before a start. */
const slackBeforeMs = 86_400_000;
const slackAfterMs = 60_000;

/** When the trip ran, ms; `endedAt` null while it does. */
export interface TripTimes {
  startedAt: number;
  endedAt: number | null;
}

/**
 * Judges an offline backlog, each point by its own time: what is accepted, oldest first and each timestamp once, and
 * what is refused by its index in the input. Repeats count as accepted.
 */
export function judgeBacklog(
  raw: readonly unknown[],
  times: TripTimes,
  now: number,
): { accepted: number; points: Position[]; rejected: { index: number; code: ErrorCode }[] } {
  const rejected: { index: number; code: ErrorCode }[] = [];
  const candidates: { index: number; fix: Position }[] = [];
  for (const [index, value] of raw.entries()) {
    const parsed = position.safeParse(value);
    if (!parsed.success) rejected.push({ index, code: 'LOCATION_INVALID' });
    else candidates.push({ index, fix: parsed.data });
  }
  candidates.sort((a, b) => a.fix.timestamp - b.fix.timestamp);
  let state = noHistory;
  let accepted = 0;
  const points: Position[] = [];
  for (const { index, fix } of candidates) {
    const outside =
      fix.timestamp < times.startedAt - slackBeforeMs ||
      (times.endedAt !== null && fix.timestamp > times.endedAt + slackAfterMs);
    const checked = outside
      ? { refused: 'LOCATION_TRIP_NOT_ACTIVE' as const, state }
      : checkPosition(state, fix, now);
    state = checked.state;
    if (checked.refused) rejected.push({ index, code: checked.refused });
    else {
      accepted++;
      if (points.at(-1)?.timestamp !== fix.timestamp) points.push(fix);
    }
  }
  return { accepted, points, rejected: rejected.toSorted((a, b) => a.index - b.index) };
}
