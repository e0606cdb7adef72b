/**
 * The socket door: who connects, what each socket may send and watch, and the updates of watched trips. Owns the
 * connections of its node and nothing else. Room names are made here, never taken from a client.
 */
import { createServer, type IncomingMessage } from 'node:http';
import SocketIO from 'moleculer-io';
import type { Server } from 'socket.io';
import { defineService, type Mixin } from '../../lib/define-service.ts';
import { AppError, publicError } from '../../lib/errors.ts';
import { healthOf } from '../../lib/health.ts';
import { isAllowedOrigin } from '../../lib/origins.ts';
import { connectRedis, untilReady } from '../../mixins/redis.ts';
import { sessions } from '../../mixins/sessions.ts';
import { answerEvents } from './answer-events.ts';
import { OutgoingBatch } from './outgoing-batch.ts';
import { type ClientSocket, type GatewayParts, tripRoom } from './socket-handlers.ts';
import { TokenBucket } from './token-bucket.ts';
import { TripFanout } from './trip-fanout.ts';

/** Sessions of open sockets are looked up again after this time, ms: the hint that one has ended can be lost. */
const sessionCheckMs = 60_000;
const endedKeptMs = 60_000;
/** A message that Socket.IO itself cuts off, bytes; below it a refusal has a code. */
const hardPayloadLimit = 2 * 1024 * 1024;

/** moleculer-io, its management actions switched off: whoever reaches the broker must not emit as a service. */
const socketIo: Mixin<{ io: Server }> = {
  mixins: [SocketIO],
  actions: { call: false, broadcast: false, getClients: false },
};

export default defineService({
  name: 'gateway',
  mixins: [socketIo, sessions()],
  state: () => ({
    // moleculer-io takes this one; its own would listen on every address and make a taken port an uncaught error
    server: createServer((_request, response) => response.writeHead(404).end()),
    parts: undefined as GatewayParts | undefined,
    outgoing: undefined as OutgoingBatch | undefined,
    /** When trips ended, as heard, ms. */
    ended: new Map<string, number>(),
    sweep: undefined as NodeJS.Timeout | undefined,
    sweeping: false,
    closers: [] as (() => void)[],
  }),

  settings: (config) => ({
    $secureSettings: ['io'],
    port: config.socketPort,
    io: {
      options: {
        maxHttpBufferSize: hardPayloadLimit,
        pingInterval: 25_000,
        pingTimeout: 20_000,
        serveClient: false,
        cors: {
          origin: (origin: string | undefined, done: (error: null, allow: boolean) => void) =>
            done(null, isAllowedOrigin(config, origin)),
        },
        allowRequest: (request: IncomingMessage, done: (error: string | null, allow: boolean) => void) => {
          const allowed = isAllowedOrigin(config, request.headers.origin);
          done(allowed ? null : 'ORIGIN_REFUSED', allowed);
        },
      },
      namespaces: { '/': { authorization: true, events: {} } },
    },
  }),

  methods: {
    /** Called by moleculer-io for every handshake; what it throws refuses the connection. */
    async socketAuthorize(socket: ClientSocket): Promise<void> {
      try {
        const { token } = socket.handshake.auth;
        const caller = await this.sessions.resolve(typeof token === 'string' ? token : undefined);
        const { socketEventsPerS, socketEventsBurst } = this.config;
        const now = Date.now();
        const bucket = new TokenBucket(socketEventsPerS, socketEventsBurst, now);
        socket.data = { caller, token: String(token), checkedAt: now, bucket, driving: new Map() };
      } catch (error) {
        const refusal = publicError(error);
        throw Object.assign(new Error(refusal.message), { data: refusal });
      }
    },

    async connected(socket: ClientSocket): Promise<void> {
      const { id, sessionId } = socket.data.caller;
      const { metrics } = this.broker;
      if (!this.parts) throw new AppError('UNAVAILABLE');
      metrics.increment('gateway.connections');
      socket.on('disconnect', () => metrics.decrement('gateway.connections'));
      answerEvents(socket, {
        parts: this.parts,
        maxBytes: this.config.socketPayloadKb * 1024,
        onRefused: (event, { code, requestId }, error) => {
          metrics.increment('gateway.refused.total', { event, code });
          if (code === 'INTERNAL')
            this.logger.error('A socket event failed', { event, requestId, userId: id, error });
        },
      });
      await socket.join([`user:${id}`, `session:${sessionId}`]);
    },

    /** Cuts the sockets whose sessions have ended, a few at a time. */
    async checkSessions(): Promise<void> {
      const due = Date.now() - sessionCheckMs;
      for (const socket of [...this.io.of('/').sockets.values()] as ClientSocket[]) {
        if (socket.data.checkedAt > due) continue;
        socket.data.checkedAt = Date.now();
        try {
          socket.data.caller = await this.sessions.resolve(socket.data.token);
        } catch (error) {
          if (!(error instanceof AppError) || error.type !== 'UNAUTHENTICATED') throw error;
          socket.disconnect(true);
        }
      }
      for (const [tripId, at] of this.ended) if (at < Date.now() - endedKeptMs) this.ended.delete(tripId);
    },

    tripChanged({
      tripId,
      status,
      at,
    }: {
      tripId: string;
      status: 'requested' | 'scheduled' | 'active' | 'ended' | 'cancelled';
      at: number;
    }): void {
      if (status === 'ended' || status === 'cancelled') this.ended.set(tripId, Date.now());
      this.io.local.to(tripRoom(tripId)).emit('trip', { tripId, status, at });
    },

    /** Before anything stops: clients go elsewhere, and what they sent is handed on. */
    async drain(): Promise<void> {
      clearInterval(this.sweep);
      this.io.local.emit('server:drain', { reconnectInMs: 1000 });
      await this.outgoing?.flush();
      this.io.local.disconnectSockets(true);
      await this.outgoing?.flush();
      this.outgoing?.stop();
    },
  },

  actions: {},

  events: {
    'trip.accepted': {
      everyNode: true,
      handler(ctx) {
        this.tripChanged(ctx.params);
      },
    },
    'trip.started': {
      everyNode: true,
      handler(ctx) {
        this.tripChanged(ctx.params);
      },
    },
    'trip.ended': {
      everyNode: true,
      handler(ctx) {
        this.tripChanged(ctx.params);
      },
    },
    'trip.cancelled': {
      everyNode: true,
      handler(ctx) {
        this.tripChanged(ctx.params);
      },
    },
    'session.revoked': {
      everyNode: true,
      handler(ctx) {
        const { userId, sessionId } = ctx.params;
        this.io.local
          .in(sessionId === null ? `user:${userId}` : `session:${sessionId}`)
          .disconnectSockets(true);
      },
    },
    'profile.changed': {
      everyNode: true,
      handler(ctx) {
        // The role may have changed: look it up at the next sweep
        for (const socket of this.io.of('/').sockets.values() as Iterable<ClientSocket>) {
          if (socket.data.caller.id === ctx.params.userId) socket.data.checkedAt = 0;
        }
      },
    },
  },

  async started() {
    const { broker, config, logger } = this;
    const { metrics } = broker;
    metrics.register({
      type: 'gauge',
      name: 'gateway.connections',
      description: 'Open sockets on this node',
    });
    metrics.register({
      type: 'counter',
      name: 'gateway.refused.total',
      labelNames: ['event', 'code'],
      description: 'Refused socket events',
    });
    metrics.register({
      type: 'counter',
      name: 'gateway.delivered.total',
      description: 'Location updates given to trip rooms',
    });

    const subscriber = connectRedis(broker, 'main', { subscriber: true });
    await untilReady(subscriber);
    const fanout = new TripFanout({
      redis: this.redis,
      subscriber,
      deliver: (update) => {
        metrics.increment('gateway.delivered.total');
        this.io.local.to(tripRoom(update.tripId)).emit('location', update);
      },
      onTrouble: (text, error) => logger.warn(text, { error }),
    });
    const outgoing = new OutgoingBatch({
      delayMs: config.locationGatewayBatchMs,
      maxSize: 500,
      send: async (updates) => {
        await this.call('location.report', { updates }, { timeout: 2000 });
      },
    });
    this.outgoing = outgoing;
    this.parts = {
      calls: this,
      maxRooms: config.socketMaxRooms,
      watch: (tripId) => fanout.watch(tripId),
      hand: (update) => outgoing.add(update),
      endedAt: (tripId) => this.ended.get(tripId) ?? 0,
      now: Date.now,
    };

    const namespace = this.io.of('/');
    namespace.on('connection', (socket) => {
      this.connected(socket as ClientSocket).catch((error: unknown) => {
        logger.error('A connection could not be set up', { error });
        socket.disconnect(true);
      });
    });
    namespace.adapter.on('delete-room', (room: string) => {
      if (room.startsWith('trip:'))
        fanout
          .unwatch(room.slice(5))
          .catch((error: unknown) => logger.warn('A channel stays subscribed', { error }));
    });
    this.sweep = setInterval(() => {
      if (this.sweeping) return;
      this.sweeping = true;
      this.checkSessions()
        .catch((error: unknown) => logger.warn('Sessions of open sockets could not be checked', { error }))
        .finally(() => (this.sweeping = false));
    }, 1000);
    this.closers.push(() => subscriber.disconnect());
    healthOf(broker).onDrain(() => this.drain());
    await new Promise<void>((resolve, reject) => {
      this.server.once('error', reject);
      this.server.listen(config.socketPort, config.host, resolve);
    });
  },

  async stopped() {
    clearInterval(this.sweep);
    this.outgoing?.stop();
    for (const close of this.closers) close();
  },
});
