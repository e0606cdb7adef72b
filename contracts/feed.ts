import { z } from 'zod';
import { bookingId, isoTime, latLng, tripId, userId } from './common.ts';

const trip = z.object({ tripId, riderId: userId, driverId: userId });

/** What happened, for the admins' live event stream: kind → what `data` holds at least. */
export const feedKinds = {
  'booking.created': z.object({ bookingId, riderId: userId, from: latLng, to: latLng, departAt: isoTime }),
  'trip.accepted': trip,
  'trip.started': trip,
  'trip.ended': trip,
  'trip.cancelled': trip.extend({ driverId: userId.nullable() }),
};

export type FeedKind = keyof typeof feedKinds;

/** An event on its way to the feed. `version` counts an entity's events from 1, so that twice is once. */
export type FeedEvent = {
  [K in FeedKind]: { kind: K; version: number; at: number; data: z.infer<(typeof feedKinds)[K]> };
}[FeedKind];
