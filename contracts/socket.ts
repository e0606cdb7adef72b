/** The default namespace of the Socket.IO door: what clients may send, what they get. */
import { z } from 'zod';
import { epochMs, tripId } from './common.ts';
import type { PublicError } from './errors.ts';
import { position, type Update } from './location.ts';
import type { TripStatus } from './trips.ts';

/** Client → server, with the shape of the payload. */
export const clientEvents = {
  'trip:join': z.object({ tripId, after: epochMs.optional() }),
  'trip:leave': z.object({ tripId }),
  'location:update': position.extend({ tripId }),
  'location:batch': z.object({ tripId, updates: z.array(z.unknown()).min(1).max(1000) }),
};
/** Events that take whatever comes under their name: nothing that a client sends is a reason to refuse. For SOS alone. */
export const neverRefused: readonly (keyof typeof clientEvents)[] = [];
export type ClientEvent = keyof typeof clientEvents;
export type ClientPayload<E extends ClientEvent> = z.infer<(typeof clientEvents)[E]>;

/** What an acknowledgement carries besides `ok: true`. */
export interface AckData {
  'trip:join': { last: Update | null; missed: Update[] };
  'trip:leave': object;
  'location:update': object;
  'location:batch': { accepted: number; rejected: { index: number; code: string }[] };
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
  'location:refused': (refusal: {
    tripId: string | null;
    timestamp: number | null;
    error: PublicError;
  }) => void;
  'server:drain': (drain: { reconnectInMs: number }) => void;
}
