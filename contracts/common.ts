import { z } from 'zod';
import type { ErrorCode } from './errors.ts';

/**
 * An id of ours: a three-letter kind, `_`, and unguessable characters. What merely looks different is an id that does
 * not exist, and answered so.
 */
const id = z.string().regex(/^[\w-]{1,64}$/, 'must be an id');

export const userId = id;
export const tripId = id;
export const bookingId = id;

/** WGS84 degrees. */
export const latLng = z.object({ lat: z.number().min(-90).max(90), lng: z.number().min(-180).max(180) });

/** ISO 8601 with a time zone. */
export const isoTime = z.iso.datetime({ offset: true });

/** Milliseconds since the epoch. */
export const epochMs = z.number().int().nonnegative().max(8_640_000_000_000_000);

export const role = z.enum(['rider', 'driver', 'viewer', 'support', 'operations', 'super-admin']);
export type Role = z.infer<typeof role>;

/** Those who work for us: they see every trip. */
export const adminRoles = ['viewer', 'support', 'operations', 'super-admin'] as const satisfies Role[];

/** The refusals to expect of an action, beside those that any action may answer; for the API's description. */
export const mayRefuse = (...codes: ErrorCode[]): ErrorCode[] => codes;

/** An action without a result. */
export const nothing = z.null();
/** An action without parameters. */
export const noParams = z.object({});

/** `repeatAfterMs` of what only reads: a node that waits in vain says so before, after 2 s (Redis) or 2.5 s (mixins/mongo.ts). */
export const readAgainMs = 2700;
