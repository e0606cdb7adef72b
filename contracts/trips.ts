import { z } from 'zod';
import { bookingId, isoTime, latLng, tripId, userId } from './common.ts';

/** `requested` is a booking that nobody has accepted yet. */
export const tripStatus = z.enum(['requested', 'scheduled', 'active', 'ended', 'cancelled']);
export type TripStatus = z.infer<typeof tripStatus>;

const place = latLng.extend({ address: z.string().max(200).optional() });

const booking = z.object({
  id: bookingId,
  status: tripStatus,
  riderId: userId,
  from: place,
  to: place,
  departAt: isoTime,
  /** Set once a driver has accepted. */
  tripId: tripId.nullable(),
});

export const trip = z.object({
  id: tripId,
  bookingId,
  riderId: userId,
  driverId: userId,
  status: tripStatus,
  from: place,
  to: place,
  departAt: isoTime,
  startedAt: isoTime.nullable(),
  endedAt: isoTime.nullable(),
});
export type Trip = z.infer<typeof trip>;

const byId = z.object({ id: tripId });
const tripHappened = z.object({
  tripId,
  riderId: userId,
  driverId: userId,
  status: tripStatus,
  at: z.number(),
});

export const trips = {
  actions: {
    book: {
      params: z.object({ from: place, to: place, departAt: isoTime }),
      result: booking,
    },
    accept: { params: z.object({ id: bookingId }), result: trip },
    start: { params: byId, result: trip },
    end: { params: byId, result: trip },
    cancel: { params: byId, result: trip },
    get: { params: byId, result: trip },
    list: {
      params: z.object({
        status: tripStatus.optional(),
        limit: z.coerce.number().int().min(1).max(100).default(20),
        /** The id of the last trip of the page before. */
        after: tripId.optional(),
      }),
      result: z.object({ trips: z.array(trip), next: tripId.nullable() }),
    },
    /**
     * May the caller watch or drive this trip? Answers with who is on it, else refuses with
     * TRIP_NOT_FOUND or TRIP_FORBIDDEN.
     */
    authorize: {
      params: z.object({ id: tripId, as: z.enum(['watch', 'drive']) }),
      result: trip,
    },
  },
  events: {
    'trip.accepted': tripHappened,
    'trip.started': tripHappened,
    'trip.ended': tripHappened,
    'trip.cancelled': tripHappened,
  },
};
