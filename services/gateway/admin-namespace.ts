/**
 * `/admin`: the admin feed, live, to each socket what its filter names. An open socket needs the SOS Redis and nothing
 * else.
 */
import type { Namespace, Server, Socket } from 'socket.io';
import {
  type AdminClientToServer,
  type AdminServerToClient,
  adminEvents,
  type SubscribeAck,
} from '../../contracts/socket.ts';
import type { Log } from '../../lib/context.ts';
import { AppError, publicError } from '../../lib/errors.ts';
import type { FeedReader, FeedSink, FeedSubscription } from '../../lib/feed-reader.ts';
import { isAdmin } from '../../lib/permissions.ts';
import { isHostile, parseOrRefuse } from '../../lib/validate.ts';
import { handshake } from './handshake.ts';
import type { SocketState } from './socket-handlers.ts';

type Nothing = Record<string, never>;
export type AdminSocket = Socket<AdminClientToServer, AdminServerToClient, Nothing, SocketState>;
type AdminNamespace = Namespace<AdminClientToServer, AdminServerToClient, Nothing, SocketState>;

export interface AdminOptions {
  feed: FeedReader;
  /** Who is it, and with which limits? Rejects when the token is not good. */
  identify(socket: AdminSocket): Promise<SocketState>;
  onRefused(event: 'subscribe' | 'unknown', code: string): void;
  logger: Log;
}

/** Socket.IO types the default namespace only. */
export const adminNamespace = (io: Server): AdminNamespace => io.of('/admin') as unknown as AdminNamespace;

/** Resolves once the connection has taken what it was given: of a slow one no more than a message waits in memory. */
async function untilTaken({ conn }: AdminSocket): Promise<void> {
  while (conn.readyState === 'open' && !conn.transport.writable) {
    const { transport } = conn;
    await new Promise<void>((resolve) => {
      const go = () => {
        transport.off('drain', go).off('ready', go);
        conn.off('close', go).off('upgrade', go);
        resolve();
      };
      transport.on('drain', go).on('ready', go);
      conn.on('close', go).on('upgrade', go);
    });
  }
}

const sinkOf = (socket: AdminSocket): FeedSink => ({
  events: (events) => void socket.emit('events', events),
  digest: (digest) => void socket.emit('digest', digest),
  resync: (cursor) => void socket.emit('resync', { cursor }),
  ready: () => untilTaken(socket),
});

/** Lets admins in and answers what they send. */
export function serveAdmins(io: Server, options: AdminOptions): void {
  const { feed, logger } = options;
  const namespace = adminNamespace(io);
  namespace.use(
    handshake(async (socket) => {
      socket.data = await options.identify(socket);
      if (!isAdmin(socket.data.caller)) throw new AppError('FORBIDDEN');
    }),
  );

  namespace.on('connection', (socket) => {
    const { caller, bucket } = socket.data;
    let subscription: FeedSubscription | undefined;

    /** Where the new subscription begins: as asked, else where the one before was, else now. */
    async function subscribe(payload: unknown, answer: (ack: SubscribeAck) => void): Promise<void> {
      if (isHostile(payload)) throw new AppError('VALIDATION');
      const { after, ...filter } = parseOrRefuse(adminEvents.subscribe, payload ?? {});
      const end = after ?? subscription?.cursor ?? (await feed.end());
      if (!socket.connected) return;
      // Asked twice at once, the later one counts; nobody else has moved the cursor meanwhile
      const cursor = after ?? subscription?.cursor ?? end;
      subscription?.close();
      answer({ ok: true, cursor });
      subscription = feed.subscribe(cursor, filter, sinkOf(socket));
    }

    async function respond(
      event: unknown,
      payload: unknown,
      answer: (ack: SubscribeAck) => void,
    ): Promise<void> {
      try {
        if (!bucket.take(Date.now())) throw new AppError('RATE_LIMITED', { retryAfterS: 1 });
        if (event !== 'subscribe') throw new AppError('UNKNOWN_EVENT');
        await subscribe(payload, answer);
      } catch (caught) {
        const refusal = publicError(caught);
        options.onRefused(event === 'subscribe' ? event : 'unknown', refusal.code);
        if (refusal.code === 'INTERNAL' || refusal.code === 'UNAVAILABLE')
          logger.warn('An admin could not subscribe', { userId: caller.id, error: caught });
        answer({ ok: false, error: refusal });
      }
    }

    // No `next`: the packet ends here
    socket.use(([event, ...args]: unknown[]) => {
      const last = args.at(-1);
      const isAsked = typeof last === 'function';
      const payload = args.length > (isAsked ? 1 : 0) ? args[0] : undefined;
      void respond(event, payload, (ack) => {
        if (isAsked) Reflect.apply(last, undefined, [ack]);
      });
    });
    socket.on('disconnect', () => subscription?.close());
    Promise.resolve(socket.join([`user:${caller.id}`, `session:${caller.sessionId}`])).catch(
      (error: unknown) => {
        logger.error('An admin connection could not be set up', { error });
        socket.disconnect(true);
      },
    );
  });
}
