import { z } from 'zod';
import { epochMs, isoTime, latLng, mayRefuse, nothing, readAgainMs, tripId, userId } from './common.ts';

export const alertId = z.string().regex(/^[\w-]{1,64}$/, 'must be an id');

/** `active` until somebody has seen it; the last three are ends. */
export const alertStatus = z.enum([
  'active',
  'acknowledged',
  'responding',
  'resolved',
  'false-alarm',
  'cancelled',
]);
export type AlertStatus = z.infer<typeof alertStatus>;

/** Where somebody in danger is. `gps` came with the alert, `last-known` is older and may be the vehicle's. */
export const alertLocation = latLng
  .extend({
    accuracy: z.number().min(0).nullable().describe('Radius of confidence, m'),
    source: z.enum(['gps', 'last-known']),
    ageMs: z.number().min(0).describe('How old the fix is, ms'),
  })
  .meta({ id: 'AlertLocation' });
export type AlertLocation = z.infer<typeof alertLocation>;

const contactState = z.object({
  name: z.string(),
  channel: z.string().nullable().describe('How it was tried last; null until the first try'),
  status: z
    .enum(['queued', 'sending', 'sent', 'failed', 'drill'])
    .describe('`drill`: would have been told, were it not a drill'),
  at: isoTime,
});
const logEntry = z.object({
  at: isoTime,
  what: z.string(),
  who: z.exactOptional(z.string()),
  note: z.exactOptional(z.string()),
});

/** An alert as its raiser sees it. */
export const alert = z
  .object({
    alertId,
    status: alertStatus,
    drill: z.boolean(),
    tripId: z.exactOptional(tripId),
    location: z.exactOptional(alertLocation),
    acceptedAt: isoTime,
    contacts: z.array(contactState),
    log: z.array(logEntry),
  })
  .meta({ id: 'Alert' });
export type Alert = z.infer<typeof alert>;

/** An alert as admins see it: what the raiser sees, and what only they may know. */
export const adminAlert = alert
  .extend({
    userId,
    name: z.string(),
    duress: z.boolean().describe('The duress PIN was used: the raiser sees it cancelled, it is not'),
    presses: z.number().int().describe('How often SOS was pressed'),
    verified: z
      .enum(['live', 'ended', 'unknown'])
      .describe('Whether the session was good when it was raised, had ended, or could not be looked up'),
    mapUrl: z.string().nullable(),
  })
  .meta({ id: 'AdminAlert' });
export type AdminAlert = z.infer<typeof adminAlert>;

/** Taken as it comes: what cannot be read is kept raw and never refuses an SOS. */
const anything = z.unknown().optional();
const note = z.string().trim().max(500).optional();
const stepErrors = mayRefuse('SOS_NOT_FOUND', 'SOS_WRONG_STATE');

export const sos = {
  description: 'Alerts: raised by whoever is in danger, watched and handled by admins.',
  actions: {
    trigger: {
      summary:
        'Raises an alert. Never refused for what is missing or unreadable; the same key twice is one alert, and so is a second press on the same trip.',
      params: z.object({
        key: anything.describe(
          'Or the header Idempotency-Key. Without one, the open alert of user and trip is the key',
        ),
        tripId: anything,
        location: anything.describe('{lat, lng, accuracy?, timestamp?}'),
        device: anything,
        drill: anything.describe('true: looks real, and reaches no contact'),
        timestamp: anything.describe("The phone's clock, epoch ms or ISO 8601"),
        raw: anything,
        via: anything,
      }),
      result: z.object({ alertId, status: alertStatus, acceptedAt: isoTime }),
    },
    get: {
      summary: "The raiser's own alert: whom it reached, and what has happened.",
      errors: mayRefuse('SOS_NOT_FOUND'),
      params: z.object({ id: alertId }),
      result: alert,
    },
    cancel: {
      summary: 'Takes an alert back with the PIN.',
      errors: mayRefuse('SOS_NOT_FOUND', 'WRONG_PIN', 'SOS_WRONG_STATE'),
      params: z.object({ id: alertId, pin: z.string().max(16) }),
      result: z.object({ alertId, status: alertStatus }),
    },
    locate: {
      summary: 'Where the raiser is now; taken until the alert ends, with or without a trip.',
      errors: mayRefuse('SOS_NOT_FOUND'),
      params: z.object({ id: alertId, updates: z.array(z.unknown()).min(1).max(1000) }),
      result: z.object({
        accepted: z.number(),
        rejected: z.array(z.object({ index: z.number(), code: z.string() })),
      }),
    },
    /** Where the raiser of an open alert is, for its links; null when it is over or nobody knows. */
    whereabouts: {
      params: z.object({ id: alertId }),
      result: z.object({
        position: latLng
          .extend({
            userId,
            tripId: tripId.nullable(),
            accuracy: z.number().nullable(),
            speed: z.null(),
            heading: z.null(),
            timestamp: epochMs,
            at: epochMs,
          })
          .nullable(),
      }),
    },
    list: {
      summary: 'Alerts, newest first.',
      params: z.object({
        status: alertStatus.optional(),
        limit: z.coerce.number().int().min(1).max(100).default(20),
        after: alertId.optional().describe('The `next` of the page before'),
      }),
      result: z.object({ alerts: z.array(adminAlert), next: alertId.nullable() }),
    },
    inspect: {
      summary: 'One alert, as admins see it.',
      errors: mayRefuse('SOS_NOT_FOUND'),
      params: z.object({ id: alertId }),
      result: adminAlert,
    },
    acknowledge: {
      summary: 'Somebody has seen it.',
      errors: stepErrors,
      params: z.object({ id: alertId, note }),
      result: adminAlert,
    },
    respond: {
      summary: 'Help is on its way.',
      errors: stepErrors,
      params: z.object({ id: alertId, note }),
      result: adminAlert,
    },
    resolve: {
      summary: 'It is over. From any open state.',
      errors: stepErrors,
      params: z.object({ id: alertId, note, falseAlarm: z.boolean().default(false) }),
      result: adminAlert,
    },
  },
  events: {
    /** The raiser's own devices are told; a hint. `status` is what the raiser may see. */
    /** What raisers' own devices hear; in a burst many at once. */
    'sos.updated': z.object({
      changes: z.array(z.object({ alertId, userId, status: alertStatus, at: epochMs })).min(1),
    }),
  },
};

export const sosWorker = {
  actions: {
    /** An ended alert that the SOS Redis has forgotten, from the database; null when it is not there. */
    archived: {
      params: z.object({ id: alertId }),
      result: adminAlert.nullable(),
      repeatAfterMs: readAgainMs,
    },
    /** Looks for alerts that nobody has processed; for operations. Runs by itself every second. */
    sweep: { params: z.object({}), result: nothing },
  },
  events: {},
};
