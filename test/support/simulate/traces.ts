/** The recorded drives as tracks that a simulated phone can replay. */
import { readFile } from 'node:fs/promises';
import { bearingDeg, distanceM } from '../../../lib/geo.ts';

/** What the simulated phones report as their accuracy, m: that of a phone under open sky. */
export const ACCURACY_M = 10;

/** The contract takes no more, and no phone measures more: the recorded jumps would give 300 m/s. */
const MAX_SPEED_MPS = 150;
/** Below this a bearing is noise, so the phone keeps the one it had. */
const MOVED_M = 1;

export interface TracePoint {
  /** When it was recorded, ms since the epoch. */
  timeMs: number;
  /** WGS84 degrees. */
  lat: number;
  lng: number;
  /** m/s, from the point before. */
  speed: number;
  /** Degrees from north, 0 ≤ heading < 360, from the point before. */
  heading: number;
}

/** One recorded drive; at least one point, in order of time (equal times occur). */
export interface Track {
  id: string;
  points: TracePoint[];
}

const TRACES = new URL('../traces/gps-traces.csv', import.meta.url);

/** Reads the recorded drives: 163 tracks, 18,107 points. */
export async function loadTracks(): Promise<Track[]> {
  return parseTracks(await readFile(TRACES, 'utf8'));
}

/**
 * Tracks out of `track_id,unix_time_s,lat,lng` lines below a header.
 * Throws on a line that is not that, and on a track whose times run backwards.
 */
export function parseTracks(csv: string): Track[] {
  const tracks = new Map<string, Track>();
  for (const [index, line] of csv.trimEnd().split('\n').entries()) {
    if (index === 0) continue;
    const [id = '', ...fields] = line.split(',');
    const [seconds = Number.NaN, lat = Number.NaN, lng = Number.NaN] = fields.map(Number);
    if (id === '' || fields.length !== 3 || !fields.map(Number).every(Number.isFinite)) {
      throw new Error(`Line ${index + 1} of the traces is not track_id,unix_time_s,lat,lng: ${line}`);
    }
    const track = tracks.get(id) ?? { id, points: [] };
    tracks.set(id, track);
    const before = track.points.at(-1);
    const timeMs = seconds * 1000;
    if (before && timeMs < before.timeMs) throw new Error(`Line ${index + 1}: track ${id} runs backwards`);
    track.points.push({ timeMs, lat, lng, ...motion(before, { timeMs, lat, lng }) });
  }
  return [...tracks.values()];
}

function motion(
  before: TracePoint | undefined,
  now: { timeMs: number; lat: number; lng: number },
): { speed: number; heading: number } {
  if (!before) return { speed: 0, heading: 0 };
  const moved = distanceM(before, now);
  const seconds = (now.timeMs - before.timeMs) / 1000;
  const speed = seconds > 0 ? Math.min(moved / seconds, MAX_SPEED_MPS) : before.speed;
  const heading = moved < MOVED_M ? before.heading : bearingDeg(before, now);
  return { speed: round(speed, 100), heading: round(heading, 10) % 360 };
}

const round = (value: number, steps: number) => Math.round(value * steps) / steps;
