import type { Reported } from '../../contracts/location.ts';
import { newId } from '../../lib/ids.ts';
import { shardOf } from '../../lib/location-keys.ts';
import { readStream } from '../../lib/location-stream.ts';
import type { RedisConnection } from '../../lib/redis-client.ts';

/** A position of a trip's driver as gateways hand it on; timestamp in ms. */
export const reportedAt = (
  tripId: string,
  timestamp: number,
  over: Partial<Omit<Reported, 'tripId' | 'timestamp'>> = {},
): Reported => ({
  tripId,
  userId: 'usr_driver',
  lat: 12.97,
  lng: 77.59,
  accuracy: 8,
  speed: 9,
  heading: 120,
  timestamp,
  ...over,
});

/** Ids of so many new trips that all live in one shard: that of `like`, or any. */
export function tripsOfOneShard(howMany: number, like = newId('trp')): string[] {
  const ids: string[] = [];
  const prefix = newId('trp');
  const shard = shardOf(like);
  for (let n = 0; ids.length < howMany; n++) {
    const id = `${prefix}_${n}`;
    if (shardOf(id) === shard) ids.push(id);
  }
  return ids;
}

/** Ids of so many new trips, each in a shard of its own. */
export function tripsOfShards(howMany: number): string[] {
  const byShard = new Map<number, string>();
  while (byShard.size < howMany) {
    const id = newId('trp');
    byShard.set(shardOf(id), id);
  }
  return [...byShard.values()];
}

/** When the points were made that a trip's stream holds, live ones and backlogs, each once, in order. */
export async function timesInStream(redis: RedisConnection, tripId: string): Promise<number[]> {
  const times = new Set<number>();
  for await (const { live, history } of readStream(redis, shardOf(tripId), '-', { mentioning: tripId }))
    for (const point of [...live, ...history]) if (point.tripId === tripId) times.add(point.timestamp);
  return [...times].toSorted((a, b) => a - b);
}
