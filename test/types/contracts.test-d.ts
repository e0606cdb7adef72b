/**
 * What must not compile. tsc checks this file with the rest: each line under an expectation has to be an error, or the
 * expectation itself is one. Nothing here runs.
 */
import type { Socket } from 'socket.io-client';
import type { FeedData } from '../../contracts/feed.ts';
import type {
  AdminClientToServer,
  AdminServerToClient,
  ClientEvent,
  ClientToServer,
  neverRefused,
  ServerToClient,
  ShareServerToClient,
} from '../../contracts/socket.ts';
import type { Calls } from '../../lib/context.ts';
import { defineService } from '../../lib/define-service.ts';
import { AppError } from '../../lib/errors.ts';
import { redis } from '../../mixins/redis.ts';
import type { handlers } from '../../services/gateway/socket-handlers.ts';
import type { ClientSocket } from '../support/clients.ts';
import { type System, startSystem } from '../support/system.ts';

export async function callers(calls: Calls) {
  const trip = await calls.call('trips.get', { id: 'trp_1' });
  trip.status satisfies 'requested' | 'scheduled' | 'active' | 'ended' | 'cancelled';
  await calls.emit('session.revoked', { userId: 'usr_1', sessionId: null });

  // @ts-expect-error No such action
  await calls.call('trips.got', { id: 'trp_1' });
  // @ts-expect-error No such service
  await calls.call('rides.get', { id: 'trp_1' });
  // @ts-expect-error A wrong type of parameter
  await calls.call('trips.get', { id: 1 });
  // @ts-expect-error A parameter is missing
  await calls.call('trips.get', {});
  // @ts-expect-error Not a value of the enum
  await calls.call('trips.authorize', { id: 'trp_1', as: 'own' });
  // @ts-expect-error The result has no such field
  void trip.phone;
  // @ts-expect-error No such event
  await calls.emit('trip.vanished', { tripId: 'trp_1' });
  // @ts-expect-error A wrong payload
  await calls.emit('session.revoked', { userId: 'usr_1' });
  // @ts-expect-error No such code
  throw new AppError('TRIP_LOST');
}

const listed = {
  permissions: 'internal',
  handler: async () => ({ events: [], next: '0', resync: false }),
} as const;
defineService({ name: 'admin', actions: { events: listed } });
// @ts-expect-error No such service in contracts/
defineService({ name: 'notes', actions: {} });
// @ts-expect-error The contract has an action that is missing here
defineService({ name: 'admin', actions: {} });
// @ts-expect-error An action that the contract does not have
defineService({ name: 'admin', actions: { events: listed, more: listed } });
// @ts-expect-error Permissions are missing
defineService({ name: 'admin', actions: { events: { handler: listed.handler } } });
// @ts-expect-error No such role
defineService({ name: 'admin', actions: { events: { ...listed, permissions: ['boss'] } } });
defineService({
  name: 'admin',
  // @ts-expect-error A result that breaks the contract
  actions: { events: { permissions: 'internal', handler: async () => ({ id: 'n' }) } },
});

defineService({
  name: 'admin',
  mixins: [redis()],
  state: () => ({ sent: 0 }),
  actions: {
    events: {
      permissions: 'internal',
      async handler(ctx) {
        this.sent += ctx.params.limit;
        await this.redis.ping();
        // @ts-expect-error No such parameter
        void ctx.params.subject;
        // @ts-expect-error No such action, from a handler too
        await ctx.call('trips.got', { id: 'trp_1' });
        // @ts-expect-error A wrong parameter, from a handler too
        await ctx.call('trips.get', { trip: 'trp_1' });
        // @ts-expect-error No such event, from a handler too
        await ctx.emit('trip.vanished', { tripId: 'trp_1' });
        // @ts-expect-error The service itself is as strict
        await this.call('trips.get', {});
        // @ts-expect-error A Secret is not its value
        void this.config.twilioAuthToken.length;
        // @ts-expect-error No mixin brings this
        void this.sosRedis;
        // @ts-expect-error Not in this service's state
        void this.received;
        return { events: [], next: '0', resync: false };
      },
    },
  },
  // @ts-expect-error No such event to listen to
  events: { 'trip.vanished': { handler() {} } },
});

defineService({
  name: 'gateway',
  actions: {},
  events: {
    'trip.ended': {
      handler(ctx) {
        ctx.params.status satisfies string;
        // @ts-expect-error The payload has no such field
        void ctx.params.phone;
      },
    },
  },
});

// @ts-expect-error A client event that nobody handles
({}) satisfies typeof handlers;
export const withBatch = (others: typeof handlers): typeof handlers => ({
  ...others,
  // @ts-expect-error A handler whose answer is not what the acknowledgement carries
  'location:batch': async () => ({ accepted: 'all' }),
});
export const known = (events: typeof neverRefused): readonly ClientEvent[] => events;
// @ts-expect-error No such client event
['trip:hijack'] satisfies typeof neverRefused;

/** The clients that tests use are as strict. */
export async function testClients(socket: ClientSocket, system: System) {
  await socket.emitWithAck('trip:leave', { tripId: 'trp_1' });
  // @ts-expect-error No such event
  await socket.emitWithAck('trip:hijack', { tripId: 'trp_1' });
  // @ts-expect-error A wrong payload
  await socket.emitWithAck('trip:leave', { trip: 'trp_1' });
  // @ts-expect-error The server sends no such event
  socket.once('driver', () => undefined);
  // @ts-expect-error No such service
  await startSystem({ only: ['rides'] });
  // @ts-expect-error A system has no such door
  void system.adminUrl;
}

export async function clients(socket: Socket<ServerToClient, ClientToServer>) {
  const joined = await socket.emitWithAck('trip:join', { tripId: 'trp_1' });
  if (joined.ok) void joined.missed;
  socket.on('trip', ({ status }) => void status);

  // @ts-expect-error No such event
  socket.emit('trip:hijack', { tripId: 'trp_1' });
  // @ts-expect-error A wrong payload
  socket.emit('trip:join', { trip: 'trp_1' });
  // @ts-expect-error A position without its accuracy
  socket.emit('location:update', { tripId: 'trp_1', lat: 1, lng: 1, timestamp: 1 });
  // @ts-expect-error The server sends no such event
  socket.on('driver', () => undefined);
  // @ts-expect-error The update has no such field
  socket.on('location', ({ phone }) => void phone);
  // @ts-expect-error A refusal carries no data
  if (!joined.ok) void joined.missed;
}

export async function admins(socket: Socket<AdminServerToClient, AdminClientToServer>) {
  const subscribed = await socket.emitWithAck('subscribe', { kinds: ['sos.triggered'], bbox: [0, 0, 1, 1] });
  if (subscribed.ok) void subscribed.cursor;
  socket.on('events', (events) => events.map(({ id, kind, at, data }) => [id, kind, at, data]));
  socket.on('digest', ({ counts }) => void counts['sos.triggered']);

  // @ts-expect-error Admins watch no single trip here
  socket.emit('trip:join', { tripId: 'trp_1' });
  // @ts-expect-error A view has four sides
  socket.emit('subscribe', { bbox: [0, 0, 1] });
  // @ts-expect-error Positions go to the other namespaces
  socket.on('location', () => undefined);
}

export function contacts(socket: Socket<ShareServerToClient, Record<string, never>>) {
  socket.on('location', ({ lat }) => void lat);
  // @ts-expect-error A link takes nothing
  socket.emit('trip:join', { tripId: 'trp_1' });
  // @ts-expect-error Nor does it tell of refusals
  socket.on('location:refused', () => undefined);
}

/** An alarm's data has what the admins' screen needs. */
export const alarm: FeedData<'sos.triggered'> = {
  alertId: 'sos_1',
  userId: 'usr_1',
  name: 'Asha',
  mapUrl: null,
  sound: true,
  // @ts-expect-error A drill is one or is not
  drill: 'no',
};
