/**
 * Room in the SOS Redis for alerts. Without memory it takes none (the journal does), and admins see none. So what is kept only
 * to be looked at goes before that: the oldest events of the feed, then alerts that are over and in the database.
 */
import type { Redis } from 'ioredis';
import { feedKeys } from '../../lib/feed-stream.ts';
import { memoryOf } from '../../lib/redis-memory.ts';
import type { SosRecords } from './records.ts';

/** From this share of its memory on room is made; the rest is for a burst of alerts. */
const tightAt = 0.75;
/** Events that stay, for dashboards that come back. */
const keptEvents = 50_000;
/** At once: some milliseconds of Redis' time. */
const eventsAtOnce = 100_000;
const alertsAtOnce = 1000;
/** Links to an alert show how it ended for so long, ms. */
const overForMs = 86_400_000;

/** What was found, and what went. */
export interface Room {
  /** Of its `maxmemory`, used, 0 to 1 and above; 0 when it has no limit. */
  share: number;
  events: number;
  alerts: number;
}

/** Makes some room where memory is tight; to be called again and again. `now`: ms. */
export async function makeRoom(redis: Redis, records: SosRecords, now: number): Promise<Room> {
  const { used, limit } = await memoryOf(redis);
  const share = limit === 0 ? 0 : used / limit;
  if (share <= tightAt) return { share, events: 0, alerts: 0 };
  const length = await redis.xlen(feedKeys.stream);
  if (length > keptEvents) {
    const keep = Math.max(keptEvents, length - eventsAtOnce);
    return { share, events: await redis.xtrim(feedKeys.stream, 'MAXLEN', keep), alerts: 0 };
  }
  return { share, events: 0, alerts: await records.dropEnded(now - overForMs, alertsAtOnce) };
}
