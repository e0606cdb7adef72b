/** The Socket.IO door: what clients may send and what they get, the default namespace first. */
import { z } from 'zod';
import { epochMs, tripId } from './common.ts';
import type { PublicError } from './errors.ts';
import { type DeliveredEvent, type FeedDigest, feedCursor, feedFilter } from './feed.ts';
import { position, type Update } from './location.ts';
import { type SafetyCheck, safety } from './safety.ts';
import { type AlertStatus, alertId, sos } from './sos.ts';
import type { TripStatus } from './trips.ts';

/** Client → server, with the shape of the payload. */
export const clientEvents = {
  'trip:join': z.object({ tripId, after: epochMs.optional() }),
  'trip:leave': z.object({ tripId }),
  'location:update': position.extend({ tripId }),
  'location:batch': z.object({ tripId, updates: z.array(z.unknown()).min(1).max(1000) }),
  // Whatever cannot be read is no reason to refuse an SOS
  'sos:trigger': sos.actions.trigger.params.catch({}),
  'sos:location': z.looseObject({ alertId }),
  'sos:cancel': z.object({ alertId, pin: z.string().max(16) }),
  'safety:answer': safety.actions.answer.params,
};
/** Events that take whatever comes under their name: nothing that a client sends is a reason to refuse. For SOS alone. */
export const neverRefused: readonly (keyof typeof clientEvents)[] = ['sos:trigger'];
export type ClientEvent = keyof typeof clientEvents;
export type ClientPayload<E extends ClientEvent> = z.infer<(typeof clientEvents)[E]>;

/** What an acknowledgement carries besides `ok: true`. */
export interface AckData {
  'trip:join': { last: Update | null; missed: Update[] };
  'trip:leave': object;
  /**
   * Received. A gateway that dies takes up to a second of what it has acknowledged with it, and the connection: whoever comes back sends
   * again what was sent in the two seconds before the last acknowledgement, besides what has none. What is known already changes nothing.
   */
  'location:update': object;
  /** In the history, and on a replica where there is one. */
  'location:batch': { accepted: number; rejected: { index: number; code: string }[] };
  'sos:trigger': { alertId: string; status: AlertStatus; acceptedAt: number };
  'sos:location': { alertId: string };
  'sos:cancel': { alertId: string; status: AlertStatus };
  'safety:answer': object;
}

export type Ack<E extends ClientEvent> = ({ ok: true } & AckData[E]) | { ok: false; error: PublicError };

type Send<E extends ClientEvent> = (
  payload: z.input<(typeof clientEvents)[E]>,
  ack: (answer: Ack<E>) => void,
) => void;

/** `location:update` may go without an acknowledgement; its refusal is then a `location:refused`. */
export type ClientToServer = {
  [E in Exclude<ClientEvent, 'location:update'>]: Send<E>;
} & {
  'location:update': (
    payload: Parameters<Send<'location:update'>>[0],
    ack?: Parameters<Send<'location:update'>>[1],
  ) => void;
};

export interface ServerToClient {
  location: (update: Update) => void;
  trip: (change: { tripId: string; status: TripStatus; at: number }) => void;
  /** To the raiser's own sockets alone. */
  sos: (change: { alertId: string; status: AlertStatus; at: number }) => void;
  /** To the rider's own sockets alone; again and again until it is answered. */
  'safety:check': (check: SafetyCheck) => void;
  'location:refused': (refusal: {
    tripId: string | null;
    timestamp: number | null;
    error: PublicError;
  }) => void;
  /** This node is about to stop: connect anew in so long, a time of each client's own. Until then it serves as ever. */
  'server:drain': (drain: { reconnectInMs: number }) => void;
}

/** `/admin`, client → server. */
export const adminEvents = {
  /** Events that match from now on, or from after `after`. Again: the new filter, going on where the old one was. */
  subscribe: feedFilter.extend({ after: feedCursor.optional() }),
};

/** `cursor`: what is sent comes after it. */
export type SubscribeAck = { ok: true; cursor: string } | { ok: false; error: PublicError };

export interface AdminClientToServer {
  subscribe: (payload: z.input<typeof adminEvents.subscribe>, ack: (answer: SubscribeAck) => void) => void;
}

export interface AdminServerToClient {
  /** In the feed's order. */
  events: (events: DeliveredEvent[]) => void;
  /** A storm: of these only the counts are sent; the list at GET /admin/events has each. */
  digest: (digest: FeedDigest) => void;
  /** Events after the last seen one are no longer kept. What is sent from now on comes after `cursor`. */
  resync: (resync: { cursor: string }) => void;
  'server:drain': (drain: { reconnectInMs: number }) => void;
}

/** Where the vehicle of a trip is, or whoever raised an alert: then without speed, and perhaps without a trip. */
export type SharedPosition = Omit<Update, 'tripId' | 'accuracy'> & {
  tripId: string | null;
  accuracy: number | null;
};

/** `/share`: one trip, as a contact with a link sees it. Clients send nothing. */
export type ShareServerToClient = Pick<ServerToClient, 'trip' | 'server:drain'> & {
  location: (position: SharedPosition) => void;
};
