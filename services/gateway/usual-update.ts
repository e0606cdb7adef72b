import type { ClientPayload } from '../../contracts/socket.ts';

const isWithin = (value: unknown, min: number, max: number): value is number =>
  typeof value === 'number' && value >= min && value <= max;

const isWithinOrNull = (value: unknown, max: number): value is number | null =>
  value === null || isWithin(value, 0, max);

/**
 * What the contract of `location:update` makes of a position that nothing is wrong with, in a fraction of the time. Null: the
 * contract has to look. It never takes what the contract would not: a property test says so.
 */
export function usualUpdate(payload: unknown): ClientPayload<'location:update'> | null {
  if (typeof payload !== 'object' || payload === null) return null;
  const update = payload as Record<string, unknown>;
  const { tripId, lat, lng, accuracy, speed = null, heading = null, timestamp } = update;
  return typeof tripId === 'string' &&
    /^[\w-]{1,64}$/.test(tripId) &&
    isWithin(lat, -90, 90) &&
    isWithin(lng, -180, 180) &&
    isWithin(accuracy, 0, 100_000) &&
    isWithinOrNull(speed, 150) &&
    isWithinOrNull(heading, 360) &&
    isWithin(timestamp, 0, 8_640_000_000_000_000) &&
    Number.isInteger(timestamp)
    ? { lat, lng, accuracy, speed, heading, timestamp, tripId }
    : null;
}
