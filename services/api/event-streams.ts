/**
 * GET /admin/events/stream: the admin feed as server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html).
 * Each has the event's id, so that a client which reconnects goes on where it was (`Last-Event-ID`, or `?after`).
 * Beside them `resync` and `digest`, as the sockets have them.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { adminRoles } from '../../contracts/common.ts';
import { feedCursor } from '../../contracts/feed.ts';
import { AppError, errorStatus } from '../../lib/errors.ts';
import type { FeedReader } from '../../lib/feed-reader.ts';
import { type Caller, isAdmin, requirePermission } from '../../lib/permissions.ts';
import { parseOrRefuse } from '../../lib/validate.ts';

/** Proxies cut a connection that is silent for longer, ms. */
const heartbeatMs = 15_000;
/** An open stream's session is looked up again after this time, ms: the hint that it has ended can be lost. */
const sessionCheckMs = 60_000;

export interface StreamRequest {
  req: IncomingMessage & { query: Record<string, unknown> };
  res: ServerResponse;
  caller: Caller | null | undefined;
  /** Looks the session up again. */
  resolve: () => Promise<Caller>;
}

export interface EventStreamOptions {
  feed: FeedReader;
  onTrouble(text: string, error: unknown): void;
  heartbeatMs?: number;
  sessionCheckMs?: number;
}

/** The open streams of this process. */
export class EventStreams {
  readonly #options: Required<EventStreamOptions>;
  readonly #open = new Map<ServerResponse, Caller>();
  #isDraining = false;

  constructor(options: EventStreamOptions) {
    this.#options = { heartbeatMs, sessionCheckMs, ...options };
  }

  /** Answers for as long as the client listens and the session lives. Rejects with what refuses it. */
  async serve({ req, res, caller, resolve }: StreamRequest): Promise<void> {
    requirePermission(adminRoles, caller);
    if (!caller) throw new AppError('UNAUTHENTICATED');
    const asked = req.headers['last-event-id'] ?? req.query['after'];
    const after = asked === undefined || asked === '' ? undefined : parseOrRefuse(feedCursor, asked);
    const { feed } = this.#options;
    const cursor = after ?? (await this.#end());
    if (this.#isDraining) throw new AppError('UNAVAILABLE', { retryAfterS: 1 });
    res.writeHead(200, {
      'content-type': 'text/event-stream; charset=utf-8',
      'cache-control': 'no-store',
      // For proxies that would collect an answer before they pass it on
      'x-accel-buffering': 'no',
    });
    res.write('retry: 1000\n\n');
    const send = (name: string | null, data: object, id?: string) =>
      res.write(
        `${name ? `event: ${name}\n` : ''}${id ? `id: ${id}\n` : ''}data: ${JSON.stringify(data)}\n\n`,
      );
    this.#open.set(res, caller);
    const subscription = feed.subscribe(
      cursor,
      {},
      {
        events(events) {
          for (const event of events)
            send(null, { ...event, at: new Date(event.at).toISOString() }, event.id);
        },
        digest: (digest) => void send('digest', digest, digest.to),
        resync: (at) => void send('resync', { cursor: at }, at),
        ready: () => untilDrained(res),
      },
    );
    const heartbeat = setInterval(() => res.write(': still here\n\n'), this.#options.heartbeatMs);
    const check = setInterval(() => this.#check(res, resolve), this.#options.sessionCheckMs);
    res.once('close', () => {
      clearInterval(heartbeat);
      clearInterval(check);
      subscription.close();
      this.#open.delete(res);
    });
  }

  /** Cuts the streams of a session, or with null all of a user. */
  cut(userId: string, sessionId: string | null): void {
    for (const [res, caller] of this.#open)
      if (caller.id === userId && (sessionId === null || caller.sessionId === sessionId)) res.end();
  }

  /** Ends all; a client comes back, to another process. */
  drain(): void {
    this.#isDraining = true;
    for (const res of this.#open.keys()) res.end();
  }

  async #end(): Promise<string> {
    try {
      return await this.#options.feed.end();
    } catch (error) {
      this.#options.onTrouble('The admin feed is away; a stream is refused', error);
      throw new AppError('UNAVAILABLE', { retryAfterS: 2 });
    }
  }

  #check(res: ServerResponse, resolve: () => Promise<Caller>): void {
    resolve().then(
      (now) => {
        if (!isAdmin(now)) res.end();
      },
      (error: unknown) => {
        // Nobody can say: the session goes on until somebody can
        if (errorStatus(error) < 500) res.end();
        else this.#options.onTrouble('The session of an event stream could not be checked', error);
      },
    );
  }
}

function untilDrained(res: ServerResponse): Promise<void> {
  if (!res.writableNeedDrain || res.destroyed) return Promise.resolve();
  return new Promise((resolve) => {
    const go = () => {
      res.off('drain', go).off('close', go);
      resolve();
    };
    res.on('drain', go).on('close', go);
  });
}
