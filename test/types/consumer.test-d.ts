/**
 * What must not compile for the web app and the phone app, which know contracts/ and nothing else of the server. tsc checks
 * this file with the rest; nothing here runs.
 */
import type { Role } from '../../contracts/common.ts';
import type { ErrorCode, PublicError } from '../../contracts/errors.ts';
import type { FeedEvent } from '../../contracts/feed.ts';
import type {
  ActionInput,
  ActionName,
  ActionResult,
  EventName,
  EventPayload,
} from '../../contracts/index.ts';
import type { Ack, ClientPayload, ClientToServer, ServerToClient } from '../../contracts/socket.ts';

/** As socket.io-client types a connection by the two maps. */
interface Connection {
  emit<E extends keyof ClientToServer>(event: E, ...args: Parameters<ClientToServer[E]>): void;
  on<E extends keyof ServerToClient>(event: E, listener: ServerToClient[E]): void;
}

export function application(connection: Connection): void {
  connection.emit('trip:join', { tripId: 'trp_1' }, (answer) => {
    if (answer.ok) answer.last satisfies object | null;
    else answer.error.code satisfies ErrorCode;
    // @ts-expect-error What was joined is told only when it was
    void answer.missed;
  });
  connection.emit('location:update', { tripId: 'trp_1', lat: 1, lng: 1, accuracy: 1, timestamp: 1 });
  connection.on('location', ({ at, lat }) => void [at satisfies number, lat satisfies number]);

  // @ts-expect-error No such event
  connection.emit('trip:hijack', { tripId: 'trp_1' }, () => undefined);
  // @ts-expect-error A wrong type of field
  connection.emit('trip:join', { tripId: 1 }, () => undefined);
  // @ts-expect-error A field is missing
  connection.emit('location:batch', { tripId: 'trp_1' }, () => undefined);
  // @ts-expect-error Only a location update may go without an acknowledgement
  connection.emit('trip:leave', { tripId: 'trp_1' });
  // @ts-expect-error The server sends no such event
  connection.on('driver', () => undefined);
  // @ts-expect-error Positions carry no number
  connection.on('location', ({ phone }) => void phone);
  // @ts-expect-error No such status
  connection.on('trip', ({ status }) => void (status === 'finished'));
}

'trips.get' satisfies ActionName;
({ phone: '+91', code: '1', deviceId: 'd' }) satisfies ActionInput<'accounts.login'>;
export const tripOf = (result: ActionResult<'trips.get'>): string => result.driverId;

// @ts-expect-error No such action
'trips.got' satisfies ActionName;
// @ts-expect-error A parameter is missing
({ phone: '+91', code: '1' }) satisfies ActionInput<'accounts.login'>;
// @ts-expect-error A wrong type of parameter
({ id: 1 }) satisfies ActionInput<'trips.get'>;
// @ts-expect-error Not a field of a trip
export const riderPhone = (result: ActionResult<'trips.get'>): unknown => result.riderPhone;
// @ts-expect-error No such event of the services
'trip.vanished' satisfies EventName;
// @ts-expect-error A wrong payload
({ userId: 'usr_1' }) satisfies EventPayload<'session.revoked'>;
// @ts-expect-error A wrong payload of a socket event
({ tripId: 'trp_1', after: 'now' }) satisfies ClientPayload<'trip:join'>;
// @ts-expect-error A refusal needs its error
({ ok: false }) satisfies Ack<'trip:join'>;
// @ts-expect-error No such code
'TRIP_LOST' satisfies ErrorCode;
// @ts-expect-error An error has a message
({ code: 'TRIP_NOT_FOUND' }) satisfies PublicError;
// @ts-expect-error No such role
'boss' satisfies Role;
// @ts-expect-error No such kind of event
export const kindOf = (event: FeedEvent): boolean => event.kind === 'trip.vanished';
