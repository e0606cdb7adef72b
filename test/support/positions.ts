import type { Reported } from '../../contracts/location.ts';
import { newId } from '../../lib/ids.ts';
import { shardOf } from '../../lib/location-keys.ts';

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
