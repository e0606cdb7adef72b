/** An alert as the SOS Redis holds it, and what each side may see of it. */
import type { AdminAlert, Alert, AlertLocation, AlertStatus } from '../../contracts/sos.ts';
import type { FailedAttempt } from '../../lib/providers/attempts.ts';
import { type Language, languageOf } from '../../lib/templates/variables.ts';
import { isOver } from './alert-state.ts';
import { mapUrl } from './map-url.ts';
import type { Press } from './read-press.ts';

/** Why contacts are written to: an alert was raised, or it is over. */
export type Purpose = 'raised' | 'over';

/** One message to one contact. `at` in ms. */
export interface MessageState {
  /** The contact's name; the number is in the sealed contacts alone. */
  name: string;
  status: 'queued' | 'sending' | 'sent' | 'failed' | 'drill';
  channel: string | null;
  /** The provider that has or had it. */
  provider: string | null;
  /** Every attempt so far, by provider: how the next one is chosen. */
  tries: FailedAttempt[];
  at: number;
  messageId?: string;
  code?: string;
  /** What the text of the last attempt said of the place. */
  where?: AlertLocation | null;
  /** The first attempt of which nobody knows whether the provider took it, and when it was made. */
  unsure?: { provider: string; since: number };
}

/** A message that nobody has tried yet. A text's channel is open until then. */
export const queued = (
  name: string,
  at: number,
  drill: boolean,
  channel: 'push' | null = null,
): MessageState => ({
  name,
  status: drill ? 'drill' : 'queued',
  channel,
  provider: null,
  tries: [],
  at,
});

export interface LogEntry {
  at: number;
  what: string;
  who?: string;
  note?: string;
}

export interface AlertRecord {
  alertId: string;
  press: Press;
  userId: string;
  tripId: string | null;
  acceptedAt: number;
  name: string;
  /** JSON of the contacts, sealed; null when no card was there to copy them from. */
  contacts: string | null;
  pin: string | null;
  duressPin: string | null;
  /** In which its contacts are written to. */
  language: Language;
  status: AlertStatus;
  duressAt: number | null;
  endedAt: number | null;
  location: AlertLocation | null;
  /** When its position was fixed, if it has moved since it was raised, ms. */
  fixAt: number | null;
  presses: number;
  version: number;
  duty: string;
  wrongPins: number;
  /** What it needed when it was taken is queued: its contacts are told, its 30 s are running. */
  planned: boolean;
  /** Its contacts have been looked up and written down. */
  looked: boolean;
  link: string | null;
  /** There is an incident for it. */
  paged: boolean;
  messages: { purpose: Purpose; contact: string; state: MessageState }[];
  /** What the raiser saw when the duress PIN was used, by contact. Nothing that comes later shows. */
  seen: { contacts: ReadonlyMap<string, MessageState>; location: AlertLocation | null } | null;
}

export const messageField = (purpose: Purpose, contact: string): string => `m:${purpose}:${contact}`;

const orNull = (text: string | undefined): string | null => (text === undefined || text === '' ? null : text);
const locationOf = (json: string | undefined): AlertLocation | null =>
  json ? (JSON.parse(json) as AlertLocation) : null;
const numberOrNull = (text: string | undefined): number | null => (text === undefined ? null : Number(text));

/** A hash of scripts.ts as a record; null when there is none. Written by us alone, so its shape is known. */
export function parseAlert(alertId: string, hash: Record<string, string>): AlertRecord | null {
  if (hash.doc === undefined || hash.status === undefined || hash.userId === undefined) return null;
  const messages: AlertRecord['messages'] = [];
  for (const field of Object.keys(hash)) {
    if (!field.startsWith('m:')) continue;
    const [, purpose, contact = ''] = field.split(':');
    const state = JSON.parse(hash[field] ?? '') as MessageState;
    messages.push({ purpose: purpose as Purpose, contact, state });
  }
  return {
    alertId,
    press: JSON.parse(hash.doc) as Press,
    userId: hash.userId,
    tripId: orNull(hash.tripId),
    acceptedAt: Number(hash.acceptedAt),
    name: hash.name ?? '',
    contacts: orNull(hash.contacts),
    pin: orNull(hash.pin),
    duressPin: orNull(hash.duressPin),
    language: languageOf(hash.language),
    status: hash.status as AlertStatus,
    duressAt: numberOrNull(hash.duressAt),
    endedAt: numberOrNull(hash.endedAt),
    location: locationOf(hash.location),
    fixAt: numberOrNull(hash.fixAt),
    presses: Number(hash.presses ?? '1'),
    version: Number(hash.version ?? '0'),
    duty: hash.duty ?? '0',
    wrongPins: Number(hash.wrongPins ?? '0'),
    planned: hash.planned === '1',
    looked: hash.looked === '1',
    link: orNull(hash.link),
    paged: hash.paged === '1',
    messages: messages.toSorted((a, b) => (a.contact < b.contact ? -1 : 1)),
    seen: hash.duressAt === undefined ? null : seenOf(hash),
  };
}

const seenOf = (hash: Record<string, string>): NonNullable<AlertRecord['seen']> => ({
  contacts: new Map(
    Object.entries(hash).flatMap(([field, json]) =>
      field.startsWith('s:') ? [[field.slice(2), JSON.parse(json) as MessageState] as const] : [],
    ),
  ),
  location: locationOf(hash.seenLocation),
});

const iso = (ms: number): string => new Date(ms).toISOString();

/** The state that the raiser sees: after the duress PIN, cancelled for ever. */
export const viewOf = (record: Pick<AlertRecord, 'status' | 'duressAt'>): AlertStatus =>
  record.duressAt === null ? record.status : 'cancelled';

/** What the raiser may know of what happened besides the messages: the rest is between admins. */
const raisersOwn = new Set(['raised', 'pressed-again', 'no-contacts', 'contact-told', 'contact-not-reached']);
const steps = new Set(['acknowledged', 'responding', 'resolved', 'false-alarm', 'cancelled']);

/** What a cancel has left of the log, a true one or not. By place and not by time: clocks of nodes differ. */
function raisersLog(log: readonly LogEntry[]): LogEntry[] {
  const end = log.findIndex(({ what }) => what === 'cancelled' || what === 'duress');
  return (end === -1 ? log : log.slice(0, end + 1)).flatMap((entry): LogEntry[] => {
    if (entry.what === 'duress') return [{ at: entry.at, what: 'cancelled' }];
    if (steps.has(entry.what)) return [{ at: entry.at, what: entry.what }];
    const { who: _admin, ...own } = entry;
    return raisersOwn.has(entry.what) ? [own] : [];
  });
}

/**
 * What the raiser sees. Under duress it is to the letter what a true cancel would have left: nothing of what happened after
 * it shows. Admins' names never do.
 */
export function raisersView(record: AlertRecord, log: readonly LogEntry[]): Alert {
  const { seen } = record;
  const location = seen ? seen.location : record.location;
  const acceptedAt = iso(record.acceptedAt);
  /** Contacts that were looked up after a cancel wait for ever. */
  const waiting = ({ name, channel }: MessageState) =>
    queued(name, record.acceptedAt, record.press.drill, channel === 'push' ? channel : null);
  return {
    alertId: record.alertId,
    status: viewOf(record),
    drill: record.press.drill,
    ...(record.tripId === null ? {} : { tripId: record.tripId }),
    ...(location === null ? {} : { location }),
    acceptedAt,
    contacts: record.messages
      .filter(({ purpose }) => purpose === 'raised')
      .map(({ contact, state }) => (seen ? (seen.contacts.get(contact) ?? waiting(state)) : state))
      .map(({ name, channel, status, at }) => {
        const untouched = status === 'queued' || status === 'drill';
        return { name, channel, status, at: untouched ? acceptedAt : iso(at) };
      }),
    log: raisersLog(log).map(({ at, ...entry }) => ({ at: iso(at), ...entry })),
  };
}

/** What admins see: everything but numbers. */
export function adminsView(record: AlertRecord, log: readonly LogEntry[]): AdminAlert {
  const open = raisersView({ ...record, duressAt: null, seen: null }, []);
  return {
    ...open,
    userId: record.userId,
    name: record.name,
    duress: record.duressAt !== null,
    presses: record.presses,
    verified: record.press.standing,
    mapUrl: record.location === null ? null : mapUrl(record.location),
    log: log.map(({ at, ...entry }) => ({ at: iso(at), ...entry })),
  };
}

/** Is the end of this alert something that its contacts should hear of? */
export const endIsTold = (record: AlertRecord): boolean =>
  isOver(record.status) && record.duressAt === null && !record.press.drill;
