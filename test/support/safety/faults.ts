/** Recorded drives as rides, and what can go wrong with one. */
import { distanceM, lengthM, type Point } from '../../../lib/geo.ts';
import { type Fix, judgeJump, noHistory } from '../../../lib/jump-rule.ts';
import { ACCURACY_M, type Track } from '../simulate/traces.ts';

/** A ride as its positions arrive: each at its own time, ms. */
export interface Ride {
  id: string;
  from: Point;
  to: Point;
  startedAt: number;
  /** When it ends in its driver's app. */
  endsAt: number;
  fixes: Fix[];
}

/** A fault in a ride, and the time in which it has to be noticed. */
export interface Fault {
  ride: Ride;
  from: number;
  until: number;
}

/** Shorter recordings are no rides. */
const [leastMs, leastM] = [3 * 60_000, 500];
/** How long a fault lasts, ms. */
const faultMs = 15 * 60_000;
const metresPerDegree = 111_195;

/** A drive from its first point to its last, as the door lets it pass; null for what is no ride. */
export function rideOf({ id, points }: Track): Ride | null {
  const [first, last] = [points[0], points.at(-1)];
  if (!first || !last || last.timeMs - first.timeMs < leastMs || distanceM(first, last) < leastM) return null;
  let jumps = noHistory;
  const fixes = points.flatMap(({ timeMs, lat, lng }) => {
    const fix = { lat, lng, accuracy: ACCURACY_M, timestamp: timeMs };
    const judged = judgeJump(jumps, fix);
    jumps = judged.state;
    return judged.accepted ? [fix] : [];
  });
  return { id, from: first, to: last, startedAt: first.timeMs, endsAt: last.timeMs, fixes };
}

/** The recorded way, a point at least each `everyM` metres, as a map service would have planned it. */
export function plannedRoute({ fixes }: Ride, everyM = 200): Point[] {
  const route: Point[] = [];
  for (const { lat, lng } of fixes) {
    const before = route.at(-1);
    if (!before || distanceM(before, { lat, lng }) >= everyM) route.push({ lat, lng });
  }
  return route;
}

/** What has come when half of the way is driven. Half of the time would not do: some stand long before or after it. */
function firstHalf({ fixes }: Ride): { fixes: Fix[]; at: Fix } {
  const half = lengthM(fixes) / 2;
  let drivenM = 0;
  const before = fixes.filter((fix, index) => {
    drivenM += distanceM(fixes[index - 1] ?? fix, fix);
    return drivenM <= half;
  });
  const at = before.at(-1);
  if (!at) throw new Error('A ride has a first position');
  return { fixes: before, at };
}

const later = (fix: Fix, ms: number): Fix => ({ ...fix, timestamp: fix.timestamp + ms });

/** Moved by so many metres. */
const moved = (fix: Fix, east: number, north: number): Fix => ({
  ...fix,
  lat: fix.lat + north / metresPerDegree,
  lng: fix.lng + east / (metresPerDegree * Math.cos((fix.lat * Math.PI) / 180)),
});

/** A position each `everyMs` for `faultMs`, then nothing more. */
function goOn(ride: Ride, everyMs: number, place: (at: Fix, elapsedMs: number, step: number) => Fix): Fault {
  const { fixes, at } = firstHalf(ride);
  const until = at.timestamp + faultMs;
  const made: Fix[] = [];
  for (let step = 1; step * everyMs <= faultMs; step++)
    made.push(later(place(at, step * everyMs, step), step * everyMs));
  return { ride: { ...ride, endsAt: until, fixes: [...fixes, ...made] }, from: at.timestamp, until };
}

/** It stands where it is; the phone reports each 30 s, its positions some metres off. */
export const longStop = (ride: Ride): Fault =>
  goOn(ride, 30_000, (at, _elapsed, step) =>
    moved(at, 8 * Math.sin(step * 12.9898), 8 * Math.cos(step * 78.233)),
  );

/** It turns off at a right angle to the straight line, at 40 km/h. */
export const detour = (ride: Ride): Fault =>
  goOn(ride, 5000, (at, elapsedMs) => {
    const [east, north] = [
      (ride.to.lng - ride.from.lng) * Math.cos((at.lat * Math.PI) / 180),
      ride.to.lat - ride.from.lat,
    ];
    const metres = (40 / 3.6) * (elapsedMs / 1000);
    const length = Math.hypot(east, north);
    return moved(at, (-north / length) * metres, (east / length) * metres);
  });

/** Nothing comes any more. */
export const signalCut = (ride: Ride): Fault => {
  const { fixes, at } = firstHalf(ride);
  const until = at.timestamp + faultMs;
  return { ride: { ...ride, endsAt: until, fixes }, from: at.timestamp, until };
};

/** It does not arrive: the last half of the way is driven to and fro for two hours more. */
export const neverArrives = (ride: Ride): Fault => {
  const until = ride.endsAt + 2 * 3_600_000;
  const half = ride.fixes.slice(firstHalf(ride).fixes.length);
  const fixes = [...ride.fixes];
  let back = true;
  for (let from = ride.endsAt; from < until && half.length > 0; back = !back) {
    const leg = back ? half.toReversed() : half;
    const begins = leg[0]?.timestamp ?? 0;
    for (const fix of leg) fixes.push({ ...fix, timestamp: from + 5000 + Math.abs(fix.timestamp - begins) });
    from = fixes.at(-1)?.timestamp ?? until;
  }
  const within = fixes.filter(({ timestamp }) => timestamp <= until);
  return { ride: { ...ride, endsAt: until, fixes: within }, from: ride.endsAt, until };
};
