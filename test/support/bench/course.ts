/** Where a simulated vehicle is: on a recorded drive, to its end and back, as long as it takes. */
import { distanceM, type Point } from '../../../lib/geo.ts';
import type { TracePoint, Track } from '../simulate/traces.ts';

/** What the recording says between two points that no car drives is the phone's error, m/s. */
const drivableMps = 50;

export interface Whereabouts extends Point {
  /** m/s */
  speed: number;
  /** Degrees from north. */
  heading: number;
}

const isDriven = (from: TracePoint, to: TracePoint): boolean =>
  to.timeMs > from.timeMs && distanceM(from, to) / ((to.timeMs - from.timeMs) / 1000) <= drivableMps;

/** The longest part of a track that a car can have driven; null when no two points of it are that. */
export function longestDrive({ points }: Track): TracePoint[] | null {
  let best: TracePoint[] = [];
  let current: TracePoint[] = [];
  for (const point of points) {
    const last = current.at(-1);
    if (last && !isDriven(last, point)) current = [];
    current.push(point);
    if (current.length > best.length) best = current;
  }
  return best.length > 1 ? best : null;
}

/** Where it is `ms` after its start: between two points on the straight line; at the end it turns. */
export function whereabouts(drive: readonly TracePoint[], ms: number): Whereabouts {
  const [first] = drive;
  const last = drive.at(-1);
  if (!first || !last) throw new Error('A drive has points');
  const lengthMs = last.timeMs - first.timeMs;
  const round = ms % (2 * lengthMs);
  const at = first.timeMs + (round <= lengthMs ? round : 2 * lengthMs - round);
  let [low, high] = [0, drive.length - 1];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if ((drive[middle]?.timeMs ?? 0) <= at) low = middle;
    else high = middle;
  }
  const [from = first, to = last] = [drive[low], drive[high]];
  const share = (at - from.timeMs) / (to.timeMs - from.timeMs);
  return {
    lat: Number((from.lat + share * (to.lat - from.lat)).toFixed(6)),
    lng: Number((from.lng + share * (to.lng - from.lng)).toFixed(6)),
    speed: to.speed,
    heading: round <= lengthMs ? to.heading : (to.heading + 180) % 360,
  };
}
