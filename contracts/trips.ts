import { z } from 'zod';
import {
  bookingId,
  epochMs,
  isoTime,
  latLng,
  mayRefuse,
  nothing,
  readAgainMs,
  tripId,
  userId,
} from './common.ts';

/** `requested` is a booking that nobody has accepted yet. */
export const tripStatus = z.enum(['requested', 'scheduled', 'active', 'ended', 'cancelled']);
export type TripStatus = z.infer<typeof tripStatus>;

const place = latLng.extend({ address: z.string().max(200).optional() }).meta({ id: 'Place' });

/** The way that the app's map service has planned. It starts near `from` and ends near `to`. */
const route = z.array(latLng).min(2).max(500);
const durationS = z
  .number()
  .int()
  .min(60)
  .max(172_800)
  .describe("Seconds that the ride should take, by the app's map service");

/** What safety checks measure a trip by; `startedAt` ms. */
const tripPlan = z.object({
  tripId,
  riderId: userId,
  driverId: userId,
  from: latLng,
  to: latLng,
  startedAt: epochMs,
  route: route.nullable(),
  durationS: durationS.nullable(),
});
export type TripPlan = z.infer<typeof tripPlan>;

const booking = z
  .object({
    id: bookingId,
    status: tripStatus,
    riderId: userId,
    from: place,
    to: place,
    departAt: isoTime,
    tripId: tripId.nullable().describe('Set once a driver has accepted'),
  })
  .meta({ id: 'Booking' });

export const trip = z
  .object({
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
  })
  .meta({ id: 'Trip' });
export type Booking = z.infer<typeof booking>;
export type Trip = z.infer<typeof trip>;

/** Names a share link to its rider; nobody can watch with it. */
const shareId = z.string();

const byId = z.object({ id: tripId });
const stepRefusals = mayRefuse('TRIP_NOT_FOUND', 'TRIP_FORBIDDEN', 'TRIP_WRONG_STATE');
const tripHappened = z.object({
  tripId,
  riderId: userId,
  driverId: userId,
  status: tripStatus,
  at: z.number(),
});

export const trips = {
  description: 'Bookings and the trips that they become.',
  actions: {
    book: {
      summary: 'Asks for a ride.',
      params: z.object({
        from: place,
        to: place,
        departAt: isoTime,
        route: route
          .optional()
          .describe('The planned way; without it safety checks compare with the straight line'),
        durationS: durationS.optional(),
      }),
      result: booking,
    },
    nearbyBookings: {
      summary: 'Bookings that nobody has taken yet, the nearest pickup first.',
      params: z.object({
        lat: z.coerce.number().min(-90).max(90),
        lng: z.coerce.number().min(-180).max(180),
        radiusM: z.coerce.number().positive().max(100_000).default(5000).describe('Metres'),
        limit: z.coerce.number().int().min(1).max(100).default(20),
      }),
      result: z.object({
        bookings: z.array(booking.extend({ distanceM: z.number().describe('Metres, to the pickup') })),
      }),
      repeatAfterMs: readAgainMs,
    },
    getBooking: {
      summary: 'A booking, for its rider, for drivers while nobody has taken it, and for admins.',
      errors: mayRefuse('BOOKING_NOT_FOUND', 'TRIP_FORBIDDEN'),
      params: z.object({ id: bookingId }),
      result: booking,
      repeatAfterMs: readAgainMs,
    },
    cancelBooking: {
      summary: 'Withdraws a booking that nobody has taken yet; after that, cancel its trip.',
      errors: mayRefuse('BOOKING_NOT_FOUND', 'TRIP_FORBIDDEN', 'TRIP_WRONG_STATE'),
      params: z.object({ id: bookingId }),
      result: booking,
    },
    accept: {
      summary: 'Takes a booking: it becomes a trip. Of two drivers at once, one gets it.',
      errors: mayRefuse('BOOKING_NOT_FOUND', 'OWN_BOOKING', 'DRIVER_NOT_VERIFIED', 'TRIP_WRONG_STATE'),
      params: z.object({ id: bookingId }),
      result: trip,
    },
    start: {
      summary: 'The trip is under way: its locations count from now on.',
      errors: stepRefusals,
      params: byId,
      result: trip,
    },
    end: {
      summary: 'The trip is over. If this fails, the same request works again.',
      errors: stepRefusals,
      params: byId,
      result: trip,
    },
    cancel: {
      summary: 'Calls a trip off.',
      errors: stepRefusals,
      params: byId,
      result: trip,
    },
    get: {
      summary: 'A trip, for those who are on it and for admins.',
      errors: mayRefuse('TRIP_NOT_FOUND', 'TRIP_FORBIDDEN'),
      params: byId,
      result: trip,
      repeatAfterMs: readAgainMs,
    },
    list: {
      summary: 'The trips of whoever calls; all trips for admins.',
      params: z.object({
        status: tripStatus.optional(),
        limit: z.coerce.number().int().min(1).max(100).default(20),
        after: tripId.optional().describe('The `next` of the page before'),
      }),
      result: z.object({
        trips: z.array(trip),
        next: tripId.nullable().describe('Pass it as `after`; null on the last page'),
      }),
      repeatAfterMs: readAgainMs,
    },
    share: {
      summary: 'A link that shows the live trip to whoever has it, without a login; for the rider.',
      errors: mayRefuse('TRIP_NOT_FOUND', 'TRIP_FORBIDDEN', 'TRIP_WRONG_STATE', 'TOO_MANY_SHARES'),
      params: z.object({
        id: tripId,
        ttlMinutes: z
          .number()
          .int()
          .min(1)
          .max(1440)
          .describe('How long it works, at most: it ends with the trip'),
      }),
      result: z.object({
        id: shareId,
        token: z.string().describe('Shown this once'),
        url: z.string(),
        expiresAt: isoTime,
      }),
    },
    shares: {
      summary: 'The links of a trip that work, without their tokens; for the rider.',
      errors: mayRefuse('TRIP_NOT_FOUND', 'TRIP_FORBIDDEN'),
      params: byId,
      result: z.object({
        shares: z.array(z.object({ id: shareId, createdAt: isoTime, expiresAt: isoTime })),
      }),
      repeatAfterMs: readAgainMs,
    },
    unshare: {
      summary: 'Revokes a link, by its token or its id: who watches is cut off.',
      errors: mayRefuse('TRIP_NOT_FOUND', 'TRIP_FORBIDDEN', 'SHARE_INVALID'),
      params: z.object({ id: tripId, token: z.string().min(1).max(100) }),
      result: nothing,
    },
    /** For the door that shows a shared trip: what its contacts may know of its state. */
    status: {
      params: byId,
      result: z.object({ status: tripStatus, at: epochMs.describe('Since when; now, before its start') }),
      repeatAfterMs: readAgainMs,
    },
    /** The plans of those of these trips that are under way. */
    plans: {
      params: z.object({ ids: z.array(tripId).min(1).max(500) }),
      result: z.object({ plans: z.array(tripPlan) }),
      repeatAfterMs: readAgainMs,
    },
    /**
     * May the caller watch or drive this trip? Answers with who is on it, else refuses with
     * TRIP_NOT_FOUND or TRIP_FORBIDDEN.
     */
    authorize: {
      params: z.object({ id: tripId, as: z.enum(['watch', 'drive']) }),
      result: trip,
      repeatAfterMs: readAgainMs,
    },
  },
  events: {
    'trip.accepted': tripHappened,
    'trip.started': tripHappened,
    'trip.ended': tripHappened,
    'trip.cancelled': tripHappened,
    /** A link was revoked: whoever watches with it is cut off. `hash` as mixins/shares.ts keeps it. */
    'share.revoked': z.object({ hash: z.string() }),
  },
};
