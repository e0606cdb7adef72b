import { z } from 'zod';
import { epochMs, latLng, mayRefuse, noParams, nothing, tripId, userId } from './common.ts';

/** A position as the phone reports it. */
export const position = latLng.extend({
  /** Radius of confidence, m. */
  accuracy: z.number().min(0).max(100_000),
  /** m/s; a phone that does not know leaves it out. */
  speed: z.number().min(0).max(150).nullable().default(null),
  /** Degrees from north, 0 to 360. */
  heading: z.number().min(0).max(360).nullable().default(null),
  /** The phone's clock when the fix was made, ms. */
  timestamp: epochMs,
});
export type Position = z.infer<typeof position>;

/** A position on its way to Redis: checked by the door, not yet processed. */
export const reported = position.extend({ tripId, userId });
export type Reported = z.infer<typeof reported>;

/** What watchers get. */
export const update = reported.extend({
  /** The server's time of processing, ms: the cursor of `missed`. */
  at: epochMs,
});
export type Update = z.infer<typeof update>;

const degrees = z.coerce.number();
const moment = z.string().max(40).optional().describe("ISO 8601 or epoch ms; the phone's time of the points");
const rejection = z.object({ index: z.number().int(), code: z.string() });

/** Redis' own two seconds come first: a node that waits for it in vain has an answer. Two tries fit into what a door waits. */
const repeatAfterMs = 2200;

export const location = {
  description: 'Where trips are.',
  actions: {
    /**
     * Takes what a gateway hands on, and processes it together with what others hand on meanwhile. Answers when Redis has it; when
     * Redis is slow after a quarter of a second, and then this node keeps it until Redis takes it.
     */
    report: {
      params: z.object({ updates: z.array(reported).max(5000) }),
      result: z.object({ taken: z.number() }),
    },
    /** The trip became active: from now on its driver's updates count. */
    open: { params: z.object({ tripId, driverId: userId }), result: nothing, repeatAfterMs },
    /** The trip is over: when this has answered, it is in no index any more. */
    close: { params: z.object({ tripId }), result: nothing, repeatAfterMs },
    /** Whose updates Redis takes for this trip; null when it is not active. With the last known position. */
    state: {
      params: z.object({ tripId }),
      result: z.object({ driverId: userId.nullable(), last: update.nullable() }),
      repeatAfterMs,
    },
    /** The last update and those with `at` ≥ `after`, at most 10 min back. */
    missed: {
      params: z.object({ tripId, after: epochMs.optional() }),
      result: z.object({ last: update.nullable(), missed: z.array(update) }),
      repeatAfterMs,
    },
    nearby: {
      summary: 'Active trips around a point, nearest first.',
      params: z.object({
        // The geo-index ends short of the poles
        lat: degrees.min(-85).max(85),
        lng: degrees.min(-180).max(180),
        radiusM: z.coerce.number().positive().max(100_000).default(2000).describe('Metres'),
        limit: z.coerce.number().int().min(1).max(500).default(100),
      }),
      result: z.object({
        trips: z.array(
          z.object({ tripId, lat: z.number(), lng: z.number(), distanceM: z.number().describe('Metres') }),
        ),
      }),
      repeatAfterMs,
    },
    backlog: {
      summary: 'An offline backlog of the driver. Answered once it is stored: what is accepted is kept.',
      errors: mayRefuse(
        'TRIP_NOT_FOUND',
        'TRIP_FORBIDDEN',
        'LOCATION_NOT_DRIVER',
        'LOCATION_TRIP_NOT_ACTIVE',
      ),
      params: z.object({
        id: tripId,
        updates: z
          .array(z.unknown())
          .min(1)
          .max(1000)
          .describe('Each {lat, lng, accuracy, speed?, heading?, timestamp}; judged one by one'),
      }),
      result: z.object({ accepted: z.number(), rejected: z.array(rejection) }),
    },
    /** Processes what is buffered now; for a graceful stop and for operations. */
    flush: { params: noParams, result: nothing },
  },
  events: {},
};

export const locationHistory = {
  description: 'Where trips were: 30 days of them.',
  actions: {
    track: {
      summary: 'The way a trip has taken, as a GeoJSON Feature.',
      errors: mayRefuse('TRIP_NOT_FOUND', 'TRIP_FORBIDDEN'),
      params: z.object({
        id: tripId,
        from: moment,
        to: moment,
        limit: z.coerce.number().int().min(1).max(20_000).default(20_000),
      }),
      result: z.object({
        type: z.literal('Feature'),
        geometry: z.object({
          type: z.literal('LineString'),
          coordinates: z.array(z.tuple([z.number(), z.number()])).describe('[lng, lat] in degrees'),
        }),
        properties: z.object({
          tripId,
          times: z.array(z.number()).describe('Epoch ms, one a point'),
          next: z
            .number()
            .nullable()
            .describe('Pass it as `from` for the points behind these; null at the end'),
        }),
      }),
    },
    /** Moves what waits in Redis to the database now, except what another process is at. */
    sync: { params: noParams, result: nothing },
  },
  events: {},
};
