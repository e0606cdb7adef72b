import { z } from 'zod';
import { bookingId, epochMs, isoTime, latLng, tripId, userId } from './common.ts';
import { channel, providerName } from './notify.ts';
import { safetyKind } from './safety.ts';

const trip = z.object({ tripId, riderId: userId, driverId: userId });

const alertId = z.string().regex(/^[\w-]{1,64}$/);

/** Where somebody who asks for help is, as well as is known. */
const alertLocation = latLng.extend({
  /** Radius of confidence, m; null when the phone did not say. */
  accuracy: z.number().nonnegative().nullable(),
  /** Where the position comes from, e.g. `gps` or `last-known`. */
  source: z.string(),
  /** How old it was when the alert was taken, ms. */
  ageMs: z.number().nullable(),
});

const safetyMatter = trip.extend({ kind: safetyKind });

/** What happened, for the admins' live event stream: kind → what `data` holds at least. */
export const feedKinds = {
  'booking.created': z.object({ bookingId, riderId: userId, from: latLng, to: latLng, departAt: isoTime }),
  'trip.accepted': trip,
  'trip.started': trip,
  'trip.ended': trip,
  'trip.cancelled': trip.extend({ driverId: userId.nullable() }),
  'sos.triggered': z.object({
    alertId,
    userId,
    name: z.string(),
    tripId: tripId.optional(),
    location: alertLocation.optional(),
    mapUrl: z.string().nullable(),
    sound: z.literal(true),
    drill: z.boolean(),
  }),
  'sos.updated': z.object({
    alertId,
    status: z.string(),
    /** Who did it; left out for what the system did. */
    by: userId.optional(),
    note: z.string().optional(),
    /** The duress PIN was used: only admins learn it. */
    duress: z.boolean().optional(),
    wrongPins: z.number().int().optional(),
    what: z.string().optional(),
  }),
  'sos.moved': z.object({ alertId, location: alertLocation }),
  'safety.alarm': safetyMatter.extend({
    /** `silence`: the rider did not answer; `not-safe`: they said so. */
    why: z.enum(['silence', 'not-safe']),
    askedAt: epochMs,
    /** Where the trip was when the rider was asked; left out when nobody knows. `at`: when it was reported, ms. */
    location: latLng.extend({ accuracy: z.number().nonnegative(), at: epochMs }).optional(),
  }),
  /**
   * A provider's messages arrive too seldom, or (`recovered`) do again. `rate`: the share of those of the last minutes that did
   * not fail.
   */
  'notify.degraded': z.object({
    channel,
    provider: providerName,
    rate: z.number().min(0).max(1),
    recovered: z.boolean(),
  }),
  /** The rider has answered after the alarm. */
  'safety.answered': safetyMatter.extend({ safe: z.boolean() }),
};

export type FeedKind = keyof typeof feedKinds;
export type FeedData<K extends FeedKind> = z.infer<(typeof feedKinds)[K]>;

/** An event on its way to the feed. `version` counts an entity's events from 1, so that twice is once. */
export type FeedEvent = {
  [K in FeedKind]: { kind: K; version: number; at: number; data: FeedData<K> };
}[FeedKind];

/** A place in the feed, a Redis stream id `<ms>-<n>`; below 2^53 so that numbers hold it. `0` is its beginning. */
export const feedCursor = z.string().regex(/^\d{1,15}(-\d{1,15})?$/, 'must be the id of an event');

/**
 * An event as it is delivered. `kind` may be one that this version does not know: whoever reads the feed goes on.
 * `at` is when it happened, ms; `id` says the order, and is the cursor.
 */
export const deliveredEvent = z.object({
  id: feedCursor,
  kind: z.string(),
  at: epochMs,
  data: z.record(z.string(), z.unknown()),
});
export type DeliveredEvent = z.infer<typeof deliveredEvent>;

/** What a subscriber wants to see; what is left out does not narrow. */
export const feedFilter = z.object({
  kinds: z.array(z.string().max(64)).max(100).optional(),
  /** Matches `data.city`; no event has one yet, so that only alarms pass. */
  city: z.string().min(1).max(100).optional(),
  tripId: tripId.optional(),
  /** The map's view: [west, south, east, north] in degrees (RFC 7946 §5); west > east crosses 180°. */
  bbox: z
    .tuple([
      z.number().min(-180).max(180),
      z.number().min(-90).max(90),
      z.number().min(-180).max(180),
      z.number().min(-90).max(90),
    ])
    .refine(([, south, , north]) => south <= north, 'south must not be above north')
    .optional(),
});
export type FeedFilter = z.infer<typeof feedFilter>;

/** In place of the events of a storm: how many of each kind there were, with the ids of the first and the last. */
export interface FeedDigest {
  from: string;
  to: string;
  counts: Record<string, number>;
}
