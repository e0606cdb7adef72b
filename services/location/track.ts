import type { Update } from '../../contracts/location.ts';
import { shardKeys, shardOf } from '../../lib/location-keys.ts';
import { entryTime, readStream } from '../../lib/location-stream.ts';
import type { RedisConnection } from '../../lib/redis-client.ts';
import type { TimeSeries } from '../../mixins/time-series.ts';

/** Which points of a trip: their phone's time `from` and `to`, ms, inclusive; the first `limit` of them. */
export interface TrackRange {
  from: number;
  to: number;
  limit: number;
}

/** In order of time, each time once; `next`: where to go on, null at the end. */
export interface Track {
  points: Update[];
  next: number | null;
}

/** Clocks of Redis and of who says when a trip began may differ by this, ms. */
const clockSlackMs = 60_000;

/**
 * Joins what the database has (its first `limit` in the range; `more` when there are others behind them) with what the stream
 * has (any order, any range). What is in both is there once.
 */
export function joinTrack(
  stored: { points: readonly Update[]; more: boolean },
  streamed: readonly Update[],
  { from, to, limit }: TrackRange,
): Track {
  // Behind the last that was read, the database may have others in between
  const until = stored.more ? Math.min(to, stored.points.at(-1)?.timestamp ?? from - 1) : to;
  const points = new Map<number, Update>();
  for (const point of [...stored.points, ...streamed]) {
    const { timestamp } = point;
    if (timestamp >= from && timestamp <= until && !points.has(timestamp)) points.set(timestamp, point);
  }
  const all = [...points.values()].toSorted((a, b) => a.timestamp - b.timestamp);
  const page = all.slice(0, limit);
  const isWhole = !stored.more && all.length === page.length;
  return { points: page, next: isWhole ? null : (page.at(-1)?.timestamp ?? from) + 1 };
}

/** A trip's points that are known, wherever they are. `startedAt`: ms. */
export async function readTrack(
  redis: RedisConnection,
  series: TimeSeries<Update>,
  tripId: string,
  startedAt: number,
  range: TrackRange,
): Promise<Track> {
  const shard = shardOf(tripId);
  // The cursor first: what is moved after that is met in both
  const synced = await redis.hget(shardKeys(shard).head, 'synced');
  const stored = await series.read(tripId, range);
  const since = startedAt - clockSlackMs;
  const start = synced !== null && entryTime(synced) >= since ? `(${synced}` : String(Math.max(0, since));
  const streamed: Update[] = [];
  for await (const { live, history } of readStream(redis, shard, start, { mentioning: tripId }))
    for (const point of [...live, ...history]) if (point.tripId === tripId) streamed.push(point);
  return joinTrack(stored, streamed, range);
}
