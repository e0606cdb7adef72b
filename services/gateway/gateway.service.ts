/**
 * The socket door: who connects, what each socket may send and watch, and the updates of watched trips. Owns the
 * connections of its node and nothing else. Room names are made here, never taken from a client.
 */
import { readFile } from 'node:fs/promises';
import { createServer, type IncomingMessage } from 'node:http';
import type { ServiceBroker } from 'moleculer';
import SocketIO from 'moleculer-io';
import type { Server } from 'socket.io';
import { clientIp } from '../../lib/client-ip.ts';
import { defineService, type Mixin } from '../../lib/define-service.ts';
import { prepareDoor } from '../../lib/door-server.ts';
import { AppError } from '../../lib/errors.ts';
import { healthOf } from '../../lib/health.ts';
import { isAllowedOrigin } from '../../lib/origins.ts';
import { isAdmin } from '../../lib/permissions.ts';
import { rateLimit } from '../../lib/rate-limit.ts';
import { feedReader } from '../../mixins/feed-reader.ts';
import { connectSubscriber, untilReady } from '../../mixins/redis.ts';
import { sessions } from '../../mixins/sessions.ts';
import { shares } from '../../mixins/shares.ts';
import { shedding } from '../../mixins/shedding.ts';
import { type AdminSocket, adminNamespace, serveAdmins } from './admin-namespace.ts';
import { followAlerts } from './alert-fanout.ts';
import { answerEvents } from './answer-events.ts';
import { answerChecks } from './balancer-checks.ts';
import { forgetRequests } from './forget-requests.ts';
import { refusalOf } from './handshake.ts';
import { letClientsGo } from './let-clients-go.ts';
import { LocationOwners } from './location-owners.ts';
import { OutgoingUpdates } from './outgoing-updates.ts';
import { connectionsFor, type Refusal, refuseHandshakes } from './refuse-handshakes.ts';
import { ShareDoor, shareNamespace } from './share-namespace.ts';
import { type ClientSocket, type GatewayParts, type SocketState, tripRoom } from './socket-handlers.ts';
import { takeTurns } from './take-turns.ts';
import { TokenBucket } from './token-bucket.ts';
import { TripFanout } from './trip-fanout.ts';
import { Turns, takeHandshakesInTurn } from './turns.ts';

/** Who changed is asked four times a second, and every open socket's session each five minutes whatever was said, ms. */
const changesCheckMs = 250;
const sessionCheckMs = 300_000;
const endedKeptMs = 600_000;
/** How often it is looked whose time is over, ms. */
const lookAtAllMs = 2000;
/** How often the streams are asked for what the channels did not bring, ms. */
const catchUpMs = 2000;
/** A message that Socket.IO itself cuts off, bytes; below it a refusal has a code. */
const hardPayloadLimit = 2 * 1024 * 1024;

/** moleculer-io, its management actions switched off: whoever reaches the broker must not emit as a service. */
const socketIo: Mixin<{ io: Server }> = {
  mixins: [SocketIO],
  actions: { call: false, broadcast: false, getClients: false },
};

/** Nodes that offer an action, as far as this one knows. */
const nodesWith = ({ registry }: ServiceBroker, action: string): string[] =>
  (registry.getActionEndpoints(action)?.endpoints ?? [])
    .filter(({ isAvailable }) => isAvailable)
    .map(({ id }) => id);

const tokenOf = ({ token }: Record<string, unknown>) => (typeof token === 'string' ? token : undefined);

export default defineService({
  name: 'gateway',
  mixins: [socketIo, sessions(), shares(), feedReader(), shedding('socket')],
  state: () => ({
    // moleculer-io takes this one; its own would listen on every address and make a taken port an uncaught error
    server: createServer((_request, response) => response.writeHead(404).end()),
    parts: undefined as GatewayParts | undefined,
    outgoing: undefined as OutgoingUpdates | undefined,
    shareDoor: undefined as ShareDoor | undefined,
    turns: new Turns(),
    /** When trips ended, as heard, ms. */
    ended: new Map<string, number>(),
    sweep: undefined as NodeJS.Timeout | undefined,
    sweeping: false,
    /** When every open socket was last looked at, ms. */
    allLookedAt: 0,
    /** Up to where changes of sessions are known; a minute back at first, for clocks that differ. */
    changesCursor: `${Date.now() - 60_000}-0`,
    closers: [] as (() => void | Promise<void>)[],
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
          // For the balancer's cookie, which keeps a polling client on its node; nobody is known by a cookie
          credentials: true,
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
        socket.data = await this.identify(tokenOf(socket.handshake.auth));
        await this.turns.next();
      } catch (error) {
        throw refusalOf(error);
      }
    },

    /** Whoever cannot be looked up right now is let in too: for an SOS alone (answer-events.ts). */
    async identify(token: string | undefined): Promise<SocketState> {
      const caller = await this.sessions.admit(token);
      if (caller.standing === 'ended') throw new AppError('UNAUTHENTICATED');
      return this.newState(token, caller);
    },

    /** A connection with its limits. */
    newState(token: string | undefined, caller: SocketState['caller']): SocketState {
      const { socketEventsPerS, socketEventsBurst } = this.config;
      const now = Date.now();
      const bucket = new TokenBucket(socketEventsPerS, socketEventsBurst, now);
      return { caller, token: String(token), checkedAt: now, bucket, driving: new Map() };
    },

    async connected(socket: ClientSocket): Promise<void> {
      const { id, sessionId } = socket.data.caller;
      const { metrics } = this.broker;
      if (!this.parts) throw new AppError('UNAVAILABLE');
      answerEvents(socket, {
        parts: this.parts,
        sheds: (event) => this.shedding.refuses(event),
        maxBytes: this.config.socketPayloadKb * 1024,
        resolve: (token) => this.sessions.resolve(token),
        onRefused: (event, { code, requestId }, error) => {
          metrics.increment('gateway.refused.total', { event, code });
          if (code === 'INTERNAL')
            this.logger.error('A socket event failed', { event, requestId, userId: id, error });
        },
      });
      await socket.join([`user:${id}`, `session:${sessionId}`]);
    },

    /** The sockets of this node that belong to somebody's session. */
    signedIn(): (ClientSocket | AdminSocket)[] {
      const users = this.io.of('/').sockets.values() as Iterable<ClientSocket>;
      return [...users, ...adminNamespace(this.io).sockets.values()];
    },

    /** The sockets of this node that belong to these users' sessions. */
    socketsOf(userIds: Iterable<string>): (ClientSocket | AdminSocket)[] {
      const namespaces = [this.io.of('/'), adminNamespace(this.io)];
      return [...userIds].flatMap((id) =>
        namespaces.flatMap(({ adapter, sockets }) =>
          [...(adapter.rooms.get(`user:${id}`) ?? [])].flatMap((socketId) => {
            const socket = sockets.get(socketId) as ClientSocket | AdminSocket | undefined;
            return socket ? [socket] : [];
          }),
        ),
      );
    },

    /** Cuts the sockets whose sessions have ended, a few at a time. */
    async checkSessions(): Promise<void> {
      // Events say it at once, and can be lost
      const { cursor, users } = await this.sessions.changedSince(this.changesCursor);
      await this.checkSockets(this.socketsOf(users));
      this.changesCursor = cursor;
      // To look at each socket is most of what thousands of idle ones cost
      const now = Date.now();
      if (now - this.allLookedAt < lookAtAllMs) return;
      this.allLookedAt = now;
      await this.checkSockets(
        this.signedIn().filter(
          ({ data: { checkedAt, caller } }) =>
            checkedAt <= now - sessionCheckMs || caller.standing === 'unknown',
        ),
      );
      for (const [tripId, at] of this.ended) if (at < now - endedKeptMs) this.ended.delete(tripId);
    },

    async checkSockets(sockets: Iterable<ClientSocket | AdminSocket>): Promise<void> {
      for (const socket of sockets) {
        socket.data.checkedAt = Date.now();
        try {
          socket.data.caller = await this.sessions.resolve(socket.data.token);
          if (socket.nsp.name === '/admin' && !isAdmin(socket.data.caller)) socket.disconnect(true);
        } catch (error) {
          if (!(error instanceof AppError) || error.type !== 'UNAUTHENTICATED') throw error;
          socket.disconnect(true);
        }
      }
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
      this.shareDoor?.tripChanged({ tripId, status, at });
    },

    /** Before anything stops: clients go elsewhere one by one, served until then, and what they sent is handed on. */
    async drain(): Promise<void> {
      await letClientsGo(this.io, this.namespaces(), { spreadMs: this.config.gatewayDrainMs });
      clearInterval(this.sweep);
      await this.outgoing?.flush();
      this.outgoing?.stop();
    },

    namespaces() {
      return [this.io.of('/'), adminNamespace(this.io), shareNamespace(this.io)] as const;
    },

    /** More connections than this node takes are refused, and no new ones are taken once it stops. Answers why none are now. */
    async limitConnections(): Promise<() => Refusal | null> {
      const { broker, config, logger } = this;
      const wanted = config.gatewayMaxConnections;
      // Without /proc the configuration has to be right
      const most = connectionsFor(wanted, await readFile('/proc/self/limits', 'utf8').catch(() => ''));
      if (most < wanted)
        logger.warn('Open files limit the connections of this node: raise them (ulimit -n)', {
          wanted,
          most,
        });
      const health = healthOf(broker);
      const refusal = (): Refusal | null => {
        if (health.state === 'draining') return 'draining';
        return this.io.engine.clientsCount >= most ? 'full' : null;
      };
      refuseHandshakes(this.server, refusal, (reason) =>
        broker.metrics.increment('gateway.handshakes.refused.total', { reason }),
      );
      return refusal;
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
        const room = sessionId === null ? `user:${userId}` : `session:${sessionId}`;
        for (const namespace of [this.io.of('/'), adminNamespace(this.io)])
          namespace.local.in(room).disconnectSockets(true);
      },
    },
    'profile.changed': {
      everyNode: true,
      handler(ctx) {
        // The role may have changed: look it up at the next sweep
        for (const socket of this.socketsOf([ctx.params.userId])) socket.data.checkedAt = 0;
        this.allLookedAt = 0;
      },
    },

    'sos.updated': {
      everyNode: true,
      handler(ctx) {
        // The raiser's own devices: whoever else is on the trip must see no difference
        for (const { userId, ...change } of ctx.params.changes)
          this.io.local.to(`user:${userId}`).emit('sos', change);
      },
    },

    'safety.asked': {
      everyNode: true,
      handler(ctx) {
        const { userId, ...check } = ctx.params;
        // The rider's own devices: who drives must not know
        this.io.local.to(`user:${userId}`).emit('safety:check', check);
      },
    },

    'share.revoked': {
      everyNode: true,
      handler(ctx) {
        this.shareDoor?.cut(ctx.params.hash);
      },
    },
  },

  async started() {
    const { broker, config, logger } = this;
    prepareDoor(this.server, config);
    const { metrics } = broker;
    metrics.register({
      type: 'gauge',
      name: 'gateway.connections',
      description: 'Open connections on this node',
    });
    metrics.register({
      type: 'counter',
      name: 'gateway.disconnects.total',
      labelNames: ['reason'],
      description: "Sockets that have closed on this node, by Socket.IO's reason",
    });
    metrics.register({
      type: 'counter',
      name: 'gateway.handshakes.refused.total',
      labelNames: ['reason'],
      description: 'New connections sent elsewhere: the node is full or draining',
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
    metrics.register({
      type: 'counter',
      name: 'gateway.superseded.total',
      description: 'Location updates of which a newer one of the same trip came within the tick',
    });
    metrics.register({
      type: 'gauge',
      name: 'gateway.outgoing.size',
      description: 'Location updates that wait to be handed on: the newest of each trip',
    });

    const subscriber = connectSubscriber(broker, 'main');
    this.closers.push(() => subscriber.disconnect());
    await untilReady(broker, subscriber, 'main');
    // Counted here first: a metric costs as much as a delivery
    let [delivered, superseded] = [0, 0];
    const fanout = new TripFanout({
      redis: this.redis,
      subscriber,
      deliver: (update) => {
        delivered++;
        this.io.local.to(tripRoom(update.tripId)).emit('location', update);
        this.shareDoor?.deliver(update);
      },
      onTrouble: (text, error) => logger.warn(text, { error }),
    });
    const owners = new LocationOwners({
      nodes: () => nodesWith(broker, 'location.report'),
      // One that does not take them at once is not asked again: another is
      report: (updates, node) =>
        this.call(
          'location.report',
          { updates },
          // It answers within a quarter of a second, and one that has died says nothing
          node === undefined ? { timeout: 2000 } : { timeout: 500, nodeID: node, retries: 0 },
        ),
      onTrouble: (node, error) => logger.warn('A location node does not take updates', { node, error }),
    });
    const outgoing = new OutgoingUpdates({
      tickMs: config.locationTickMs,
      send: (updates) => owners.report(updates),
      onTrouble: (updates, error) => logger.warn('Locations wait for a location node', { updates, error }),
    });
    this.outgoing = outgoing;
    this.parts = {
      calls: this,
      maxRooms: config.socketMaxRooms,
      watch: (tripId) => fanout.watch(tripId),
      hand: (update) => {
        if (!outgoing.add(update)) superseded++;
      },
      endedAt: (tripId) => this.ended.get(tripId) ?? 0,
      turn: () => this.turns.next(),
      now: Date.now,
    };

    const namespace = this.io.of('/');
    namespace.on('connection', (socket) => {
      this.connected(socket as ClientSocket).catch((error: unknown) => {
        logger.error('A connection could not be set up', { error });
        socket.disconnect(true);
      });
    });
    serveAdmins(this.io, {
      feed: this.feedReader,
      identify: async (socket) => {
        const token = tokenOf(socket.handshake.auth);
        return this.newState(token, await this.sessions.resolve(token));
      },
      onRefused: (event, code) => metrics.increment('gateway.refused.total', { event, code }),
      logger,
    });
    this.shareDoor = new ShareDoor(this.io, {
      shares: this.shares,
      calls: this,
      limit: rateLimit(this.redis, { name: 'share', points: config.rateLimitPerIp, durationS: 60 }),
      addressOf: ({ handshake: { address, headers } }) =>
        clientIp(address, headers['x-forwarded-for'], config.trustedProxies),
      watch: (tripId) => fanout.watch(tripId),
      logger,
    });
    const counted = (socket: { on(event: 'disconnect', listener: (reason: string) => void): unknown }) => {
      socket.on('disconnect', (reason) => metrics.increment('gateway.disconnects.total', { reason }));
    };
    for (const each of this.namespaces()) each.on('connection', counted);
    this.io.engine.on('connection', (connection: { once(event: 'close', listener: () => void): unknown }) => {
      metrics.increment('gateway.connections');
      connection.once('close', () => metrics.decrement('gateway.connections'));
    });
    const watching = [namespace, shareNamespace(this.io)];
    for (const { adapter } of watching) {
      adapter.on('delete-room', (room: string) => {
        if (!room.startsWith('trip:') || watching.some((other) => other.adapter.rooms.has(room))) return;
        fanout
          .unwatch(room.slice(5))
          .catch((error: unknown) => logger.warn('A channel stays subscribed', { error }));
      });
    }
    this.sweep = setInterval(() => {
      if (this.sweeping) return;
      this.sweeping = true;
      void Promise.all([
        this.checkSessions().catch((error: unknown) =>
          logger.warn('Sessions of open sockets could not be checked', { error }),
        ),
        this.shareDoor
          ?.check()
          .catch((error: unknown) => logger.warn('Open links could not be checked', { error })),
      ]).finally(() => (this.sweeping = false));
    }, changesCheckMs);
    const countUpdates = () => {
      metrics.increment('gateway.delivered.total', {}, delivered);
      metrics.increment('gateway.superseded.total', {}, superseded);
      metrics.set('gateway.outgoing.size', outgoing.size);
      [delivered, superseded] = [0, 0];
    };
    const catchUp = setInterval(() => {
      countUpdates();
      fanout
        .catchUp()
        .catch((error: unknown) => logger.warn('Whether updates are missing could not be asked', { error }));
    }, catchUpMs);
    this.closers.push(() => clearInterval(catchUp), countUpdates);
    const alerts = connectSubscriber(broker, 'sos');
    this.closers.push(() => alerts.disconnect());
    followAlerts(
      alerts,
      (alertId, position) => this.shareDoor?.deliverAlert(alertId, position),
      (text, error) => logger.warn(text, { error }),
    );
    await untilReady(broker, alerts, 'sos');
    healthOf(broker).onDrain(() => this.drain());
    forgetRequests(this.server, this.io);
    const refusal = await this.limitConnections();
    takeHandshakesInTurn(this.server, this.turns);
    await new Promise<void>((resolve, reject) => {
      this.server.once('error', reject);
      this.server.listen(config.socketPort, config.host, resolve);
    });
    // engine.io makes its web socket server anew when it begins to listen
    takeTurns(this.io);
    const { gatewayCheckPort: port, host } = config;
    if (port > 0) this.closers.push(await answerChecks({ port, host }, () => refusal() !== null));
  },

  async stopped() {
    clearInterval(this.sweep);
    this.outgoing?.stop();
    for (const close of this.closers) await close();
  },
});
