/**
 * What the default namespace does with each client event. A handler gets a payload of the contract's shape and answers
 * what the acknowledgement carries; whatever it throws becomes a coded refusal.
 */
import type { Socket } from 'socket.io';
import type { Reported, Update } from '../../contracts/location.ts';
import type {
  AckData,
  ClientEvent,
  ClientPayload,
  ClientToServer,
  ServerToClient,
} from '../../contracts/socket.ts';
import type { Trip } from '../../contracts/trips.ts';
import type { Calls, Meta } from '../../lib/context.ts';
import { AppError, errorStatus } from '../../lib/errors.ts';
import { type JumpState, noHistory } from '../../lib/jump-rule.ts';
import type { Caller } from '../../lib/permissions.ts';
import { checkPosition } from '../../lib/position-check.ts';
import type { TokenBucket } from './token-bucket.ts';

/** A trip that this socket's user drives, as last asked. */
interface Driving {
  checkedAt: number;
  jump: JumpState;
}

/** What the gateway knows of a connection. */
export interface SocketState {
  caller: Caller;
  token: string;
  /** When the session was last seen to be good, ms. */
  checkedAt: number;
  bucket: TokenBucket;
  /** By trip; a promise while it is being asked, so that updates keep their order. */
  driving: Map<string, Driving | Promise<Driving>>;
}

export type ClientSocket = Socket<ClientToServer, ServerToClient, Record<string, never>, SocketState>;

/** What handlers need of the gateway. */
export interface GatewayParts {
  calls: Calls;
  maxRooms: number;
  /** Resolves when the trip's next update will reach this node's room. */
  watch(tripId: string): Promise<void>;
  /** To be handed on at the trip's next tick. */
  hand(update: Reported): void;
  /** When the trip ended, as far as this node has heard, ms. */
  endedAt(tripId: string): number;
  /** Resolves when there is time for what can wait: see turns.ts. Nothing of an SOS waits for it. */
  turn(): Promise<void>;
  now(): number;
}

export const tripRoom = (tripId: string): string => `trip:${tripId}`;

/**
 * A driver's right is asked again after this time, ms: the hint that a trip has ended can be lost. Redis takes nothing of a
 * trip that has ended, so until then only the refusal is missing, and to ask is as dear as twenty updates.
 * Less than the gateway remembers ends for.
 */
const drivingForMs = 595_000;

/** After a question that nobody could answer, ms. */
const askAgainMs = 2000;

const metaOf = (socket: ClientSocket): Meta => ({ user: socket.data.caller });

async function askDriving(
  parts: GatewayParts,
  socket: ClientSocket,
  tripId: string,
  jump: JumpState | null,
): Promise<Driving> {
  const { driverId, last } = await parts.calls.call('location.state', { tripId }, { meta: metaOf(socket) });
  if (driverId === null) throw new AppError('LOCATION_TRIP_NOT_ACTIVE');
  if (driverId !== socket.data.caller.id) throw new AppError('LOCATION_NOT_DRIVER');
  return { checkedAt: parts.now(), jump: jump ?? { ...noHistory, last: lastFix(last) } };
}

const lastFix = (last: Update | null) =>
  last && { lat: last.lat, lng: last.lng, accuracy: last.accuracy, timestamp: last.timestamp };

/** The right to report for this trip; asked once, then kept with the socket. No promise for what is known: that is the rule. */
function drivingOf(parts: GatewayParts, socket: ClientSocket, tripId: string): Driving | Promise<Driving> {
  const { driving } = socket.data;
  const known = driving.get(tripId);
  if (known instanceof Promise) return known;
  const endedAt = parts.endedAt(tripId);
  if (known && known.checkedAt > endedAt && parts.now() - known.checkedAt < drivingForMs) return known;
  const asked = askDriving(parts, socket, tripId, known?.jump ?? null).catch((error: unknown) => {
    // A driver who was right a moment ago goes on while Redis or trips is away; Redis decides in the end
    const isAway = errorStatus(error) >= 500;
    if (!known || !isAway || known.checkedAt <= parts.endedAt(tripId)) throw error;
    return { ...known, checkedAt: parts.now() - drivingForMs + askAgainMs };
  });
  driving.set(tripId, asked);
  asked.then(
    (state) => driving.get(tripId) === asked && driving.set(tripId, state),
    // A refusal is not kept: the trip may start in a moment. It reaches the caller through `asked` all the same
    () => driving.get(tripId) === asked && driving.delete(tripId),
  );
  return asked;
}

/** Hands a position on if it can be true; what is refused counts for the next one too. */
function takePosition(
  parts: GatewayParts,
  socket: ClientSocket,
  update: ClientPayload<'location:update'>,
  driving: Driving,
): object {
  const { refused, state } = checkPosition(driving.jump, update, parts.now());
  driving.jump = state;
  if (refused) throw new AppError(refused);
  parts.hand({ ...update, userId: socket.data.caller.id });
  return {};
}

/** What the rider has still to answer, after a reconnect; the first word of it may have been lost. */
async function tellOpenChecks(calls: Calls, socket: ClientSocket, tripId: string): Promise<void> {
  const { checks } = await calls
    .call('safety.open', { tripId }, { meta: metaOf(socket), timeout: 2000 })
    // Safety itself tells again what is open, as long as it is
    .catch(() => ({ checks: [] }));
  for (const check of checks) socket.emit('safety:check', check);
}

/** A change of the trip that a client may have missed: since then it was away (`after`, ms). */
function tellChange(socket: ClientSocket, { id, status, startedAt, endedAt }: Trip, after: number): void {
  const at = Date.parse(endedAt ?? startedAt ?? '');
  if (at >= after) socket.emit('trip', { tripId: id, status, at });
}

type Handlers = {
  [E in ClientEvent]: (
    parts: GatewayParts,
    socket: ClientSocket,
    payload: ClientPayload<E>,
  ) => AckData[E] | Promise<AckData[E]>;
};

export const handlers: Handlers = {
  async 'trip:join'(parts, socket, { tripId, after }) {
    const { calls } = parts;
    const askedAt = parts.now();
    const trip = await calls.call('trips.authorize', { id: tripId, as: 'watch' }, { meta: metaOf(socket) });
    await parts.turn();
    if (trip.riderId === socket.data.caller.id) void tellOpenChecks(calls, socket, tripId);
    const room = tripRoom(tripId);
    const joined = [...socket.rooms].filter((name) => name.startsWith('trip:'));
    if (!joined.includes(room) && joined.length >= parts.maxRooms) throw new AppError('TOO_MANY_ROOMS');
    // First in the room, then read: what comes between is delivered twice rather than not at all
    await socket.join(room);
    try {
      await parts.watch(tripId);
      // Unless the room has been told of something newer
      if (after !== undefined && parts.endedAt(tripId) < askedAt) tellChange(socket, trip, after);
      const missed = await calls.call('location.missed', {
        tripId,
        ...(after === undefined ? {} : { after }),
      });
      await parts.turn();
      return missed;
    } catch (error) {
      await socket.leave(room);
      throw error;
    }
  },

  async 'trip:leave'(_parts, socket, { tripId }) {
    await socket.leave(tripRoom(tripId));
    return {};
  },

  'location:update'(parts, socket, update) {
    const driving = drivingOf(parts, socket, update.tripId);
    const take = (known: Driving) => takePosition(parts, socket, update, known);
    return driving instanceof Promise ? driving.then(take) : take(driving);
  },

  async 'sos:trigger'({ calls }, socket, press) {
    const meta = metaOf(socket);
    const { acceptedAt, ...accepted } = await calls.call(
      'sos.trigger',
      { ...press, via: 'socket' },
      { meta },
    );
    return { ...accepted, acceptedAt: Date.parse(acceptedAt) };
  },

  async 'sos:location'({ calls }, socket, { alertId, ...fix }) {
    const { accepted } = await calls.call(
      'sos.locate',
      { id: alertId, updates: [fix] },
      { meta: metaOf(socket) },
    );
    if (accepted === 0) throw new AppError('LOCATION_INVALID');
    return { alertId };
  },

  'sos:cancel': ({ calls }, socket, { alertId, pin }) =>
    calls.call('sos.cancel', { id: alertId, pin }, { meta: metaOf(socket) }),

  async 'safety:answer'({ calls }, socket, answer) {
    await calls.call('safety.answer', answer, { meta: metaOf(socket) });
    return {};
  },

  'location:batch': (parts, socket, { tripId, updates }) =>
    parts.calls.call('location.backlog', { id: tripId, updates }, { meta: metaOf(socket) }),
};
