import type { DeliveredEvent, FeedFilter } from '../contracts/feed.ts';

interface Point {
  lat: number;
  lng: number;
}

const isPoint = (value: unknown): value is Point =>
  typeof value === 'object' &&
  value !== null &&
  'lat' in value &&
  'lng' in value &&
  typeof value.lat === 'number' &&
  typeof value.lng === 'number';

/** Where an event is: its location, or where the ride begins. */
function placeOf({ data }: DeliveredEvent): Point | null {
  return [data['location'], data['from']].find(isPoint) ?? null;
}

/** Somebody may be in danger: not to be missed because nobody knows where. */
const isAlarm = ({ kind }: DeliveredEvent) => kind.startsWith('sos.') || kind.startsWith('safety.');

function isInside([west, south, east, north]: NonNullable<FeedFilter['bbox']>, { lat, lng }: Point): boolean {
  const isBetween = west <= east ? lng >= west && lng <= east : lng >= west || lng <= east;
  return isBetween && lat >= south && lat <= north;
}

/**
 * Does a subscriber with this filter get the event? What the filter names must all match. Place (`bbox`, and `city` by
 * `data.city`) only shows what is known to be there, but for alarms: one whose place is unknown is everybody's.
 */
export function matchesFilter({ kinds, city, tripId, bbox }: FeedFilter, event: DeliveredEvent): boolean {
  if (kinds && !kinds.includes(event.kind)) return false;
  if (tripId !== undefined && event.data['tripId'] !== tripId) return false;
  if (city !== undefined) {
    const known = event.data['city'];
    if (typeof known === 'string' ? known !== city : !isAlarm(event)) return false;
  }
  if (bbox) {
    const place = placeOf(event);
    if (place ? !isInside(bbox, place) : !isAlarm(event)) return false;
  }
  return true;
}
