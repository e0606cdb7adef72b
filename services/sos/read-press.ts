/**
 * What a press on SOS says, made of whatever came in. Pure, and total: there is no input that it refuses. What cannot be
 * used is kept as it came, bounded, for people to read.
 */
import { createHash } from 'node:crypto';
import type { AlertLocation } from '../../contracts/sos.ts';
import { randomId } from '../../lib/ids.ts';
import type { Caller } from '../../lib/permissions.ts';

/** A press that is about to become an alert, or to join one. Times in ms. */
export interface Press {
  alertId: string;
  userId: string;
  /** The client gave a key: the same press again meets this very alert. */
  keyed: boolean;
  tripId: string | null;
  drill: boolean;
  location: AlertLocation | null;
  device: Record<string, unknown> | null;
  /** Unreadable parts, as JSON, cut to `maxRaw` characters each. */
  raw: Record<string, string>;
  /** The phone's clock at the press, and when its fix was made. */
  clientAt: number | null;
  gpsAt: number | null;
  acceptedAt: number;
  /** Was the session good, had it ended, or could nobody tell? */
  standing: 'live' | 'ended' | 'unknown';
  via: 'rest' | 'socket';
}

const maxRaw = 2000;
const idShape = /^[\w-]{1,64}$/;
/** A fix may be stamped this far ahead; beyond that its age is not known, ms. */
const maxAheadMs = 60_000;

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** Null for what cannot be written as JSON. */
function jsonOf(value: unknown): string | null {
  try {
    return JSON.stringify(value) ?? null;
  } catch {
    return null;
  }
}

const asText = (value: unknown): string => (jsonOf(value) ?? '[unreadable]').slice(0, maxRaw);

/** An object as it will be stored, if it can be and is not too large. */
function storable(value: unknown): Record<string, unknown> | null {
  const json = isObject(value) ? jsonOf(value) : null;
  const copy: unknown = json === null || json.length >= maxRaw ? null : JSON.parse(json);
  return isObject(copy) ? copy : null;
}

/** Epoch ms, or ISO 8601. */
function timeOf(value: unknown): number | null {
  const ms = typeof value === 'string' ? Date.parse(value) : value;
  return typeof ms === 'number' && Number.isFinite(ms) && ms > 0 && ms <= 8.64e15 ? Math.round(ms) : null;
}

const within = (value: unknown, least: number, most: number): value is number =>
  typeof value === 'number' && value >= least && value <= most;

/** A usable position, or null. (0, 0) is what broken receivers report. */
export function readLocation(
  value: unknown,
  now: number,
): { location: AlertLocation; gpsAt: number | null } | null {
  if (!isObject(value)) return null;
  const { lat, lng, accuracy, timestamp } = value;
  if (!within(lat, -90, 90) || !within(lng, -180, 180) || (lat === 0 && lng === 0)) return null;
  const gpsAt = timeOf(timestamp);
  const ageMs = gpsAt === null || gpsAt > now + maxAheadMs ? 0 : Math.max(0, now - gpsAt);
  return {
    location: {
      lat,
      lng,
      accuracy: within(accuracy, 0, 1e7) ? accuracy : null,
      source: 'gps',
      ageMs,
    },
    gpsAt,
  };
}

/** The id of an alert comes from user and key before anything is stored, so that a retry anywhere meets the same one. */
export function alertIdOf(userId: string, key: string | null): string {
  if (key === null) return `sos_${randomId()}`;
  return `sos_${createHash('sha256').update(`${userId}\n${key}`).digest('hex').slice(0, 32)}`;
}

/** Reads a press. `now` in ms. */
export function readPress(
  params: Record<string, unknown>,
  caller: Pick<Caller, 'id' | 'standing'>,
  now: number,
): Press {
  const raw: Record<string, string> = {};
  const keep = (name: string, value: unknown) => {
    if (value !== undefined && value !== null) raw[name] = asText(value);
  };
  const key = typeof params.key === 'string' || typeof params.key === 'number' ? String(params.key) : '';
  const tripId = typeof params.tripId === 'string' && idShape.test(params.tripId) ? params.tripId : null;
  if (tripId === null) keep('tripId', params.tripId);
  const read = readLocation(params.location, now);
  if (read === null) keep('location', params.location);
  const device = storable(params.device);
  if (device === null) keep('device', params.device);
  if (params.drill !== undefined && typeof params.drill !== 'boolean') keep('drill', params.drill);
  keep('body', params.raw);
  return {
    alertId: alertIdOf(caller.id, key === '' ? null : key),
    userId: caller.id,
    keyed: key !== '',
    tripId,
    // Anything but a plain `true` is real: a mistake must not make help stay away
    drill: params.drill === true,
    location: read?.location ?? null,
    device,
    raw,
    clientAt: timeOf(params.timestamp),
    gpsAt: read?.gpsAt ?? null,
    acceptedAt: now,
    standing: caller.standing ?? 'live',
    via: params.via === 'socket' ? 'socket' : 'rest',
  };
}
