import type { AlertLocation } from '../../contracts/sos.ts';
import { shardKeys, shardOf } from '../../lib/location-keys.ts';
import { parseLast } from '../../lib/location-stream.ts';
import type { RedisConnection } from '../../lib/redis-client.ts';

/**
 * The last position that a trip's driver has reported: where its rider is too. Read from the main Redis and not from
 * location, which may be unreachable when somebody presses SOS. Null when there is none.
 */
export async function lastKnown(
  redis: RedisConnection,
  tripId: string,
  now: number,
): Promise<AlertLocation | null> {
  const last = parseLast(await redis.hget(shardKeys(shardOf(tripId)).last, tripId));
  if (last === null) return null;
  const { lat, lng, accuracy, at } = last;
  return { lat, lng, accuracy, source: 'last-known', ageMs: Math.max(0, now - at) };
}
