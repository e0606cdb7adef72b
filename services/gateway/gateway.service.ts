/**
 * The socket door: who connects, what each socket may send and watch, and the updates of watched trips. Owns the
 * connections of its node and nothing else. Room names are made here, never taken from a client.
 */
import { createServer, type IncomingMessage } from 'node:http';
import SocketIO from 'moleculer-io';
import type { Server } from 'socket.io';
import { type ClientEvent, clientEvents } from '../../contracts/socket.ts';
import { defineService, type Mixin } from '../../lib/define-service.ts';
import { AppError, publicError } from '../../lib/errors.ts';
import { healthOf } from '../../lib/health.ts';
import { isAllowedOrigin } from '../../lib/origins.ts';
import { isHostile } from '../../lib/validate.ts';
import { connectRedis, untilReady } from '../../mixins/redis.ts';
import { sessions } from '../../mixins/sessions.ts';
import { OutgoingBatch } from './outgoing-batch.ts';
import { type ClientSocket, type GatewayParts, handlers, tripRoom } from './socket-handlers.ts';
import { TokenBucket } from './token-bucket.ts';
import { TripFanout } from './trip-fanout.ts';

/** Sessions of open sockets are looked up again after this time, ms: the hint that one has ended can be lost. */
const sessionCheckMs = 60_000;
const endedKeptMs = 60_000;
/** A message that Socket.IO itself cuts off, bytes; below it a refusal has a code. */
const hardPayloadLimit = 2 * 1024 * 1024;

type Answer = (answer: object) => void;
const isAnswer = (value: unknown): value is Answer => typeof value === 'function';
const isKnown = (event: unknown): event is ClientEvent =>
  typeof event === 'string' && Object.hasOwn(clientEvents, event);

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

    /** Limits first, then shape, then the handler; every refusal has a code. */
    admit(socket: ClientSocket, bytes: number, event: unknown, payload: unknown): void {
      if (!socket.data.bucket.take(Date.now())) throw new AppError('RATE_LIMITED', { retryAfterS: 1 });
      if (bytes > this.config.socketPayloadKb * 1024) throw new AppError('PAYLOAD_TOO_LARGE');
      if (!isKnown(event)) throw new AppError('UNKNOWN_EVENT');
      if (isHostile(payload)) throw new AppError('VALIDATION');
    },

    async dispatch(socket: ClientSocket, event: ClientEvent, payload: unknown): Promise<object> {
      const parsed = clientEvents[event].safeParse(payload);
      if (!parsed.success) {
        const fields = parsed.error.issues.slice(0, 20).map((issue) => ({
          path: issue.path.join('.').slice(0, 100),
          message: issue.message.slice(0, 200),
        }));
        throw new AppError(event === 'location:update' ? 'LOCATION_INVALID' : 'VALIDATION', { fields });
      }
      if (!this.parts) throw new AppError('UNAVAILABLE');
      // The schema was picked by the same name as the handler; TypeScript cannot tie the two
      const handler = handlers[event] as (
        parts: GatewayParts,
        socket: ClientSocket,
        payload: unknown,
      ) => Promise<object>;
      return handler(this.parts, socket, parsed.data);
    },

    refuse(socket: ClientSocket, event: unknown, payload: unknown, answer: unknown, error: unknown): void {
      const refusal = publicError(error);
      if (refusal.code === 'INTERNAL')
        this.logger.error('A socket event failed', { event, userId: socket.data.caller.id, error });
      this.broker.metrics.increment('gateway.refused.total', {
        event: isKnown(event) ? event : 'unknown',
        code: refusal.code,
      });
      if (isAnswer(answer)) return answer({ ok: false, error: refusal });
      if (event !== 'location:update') return;
      const text = (value: unknown) => (typeof value === 'string' ? value.slice(0, 64) : null);
      const { tripId, timestamp } =
        typeof payload === 'object' && payload !== null ? (payload as Record<string, unknown>) : {};
      socket.emit('location:refused', {
        tripId: text(tripId),
        timestamp: typeof timestamp === 'number' ? timestamp : null,
        error: refusal,
      });
    },

    async connected(socket: ClientSocket): Promise<void> {
      const { id, sessionId } = socket.data.caller;
      let bytes = 0;
      // The size is known to the engine only; it hands an event on with its last packet, binary parts before it
      socket.conn.on('packet', ({ data }: { data?: unknown }) => {
        bytes += typeof data === 'string' || Buffer.isBuffer(data) ? Buffer.byteLength(data) : 0;
      });
      socket.use((packet) => {
        const size = bytes;
        bytes = 0;
        const [event, ...args]: unknown[] = packet;
        const answer = args.at(-1);
        const payload = args.length > (isAnswer(answer) ? 1 : 0) ? args[0] : undefined;
        const respond = async () => {
          try {
            this.admit(socket, size, event, payload);
            const result = await this.dispatch(socket, event as ClientEvent, payload);
            if (isAnswer(answer)) answer({ ok: true, ...result });
          } catch (error) {
            this.refuse(socket, event, payload, answer, error);
          }
        };
        // Everything is answered here; the packet goes to no other handler
        void respond();
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
          if (error instanceof AppError && error.type === 'UNAUTHENTICATED') socket.disconnect(true);
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
      metrics.increment('gateway.connections');
      socket.on('disconnect', () => metrics.decrement('gateway.connections'));
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
      this.checkSessions().catch((error: unknown) =>
        logger.warn('Sessions of open sockets could not be checked', { error }),
      );
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
