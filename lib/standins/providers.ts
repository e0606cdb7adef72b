/**
 * Development's providers: a local HTTP server that speaks the providers' own protocols, so that the real
 * clients run against it, keeps what it took for `/dev/outbox`, and fails on demand. Each protocol is a file
 * of its own beside this one, with the sources of its formats: Twilio's is twilio-messages.ts.
 *
 * It keeps everything in memory and never sends anything anywhere.
 */

import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import type { FailureScript, ProviderName } from './failure-scripts.ts';
import { FailureScripts } from './failure-scripts.ts';
import type { OutboxFilter, OutboxMessage } from './outbox.ts';
import { Outbox } from './outbox.ts';
import type { TwilioAccount, TwilioReply } from './twilio-messages.ts';
import { answerTwilio, TWILIO_PATH, twilioError, twilioUnreadable } from './twilio-messages.ts';

export type { FailureScript, ProviderName } from './failure-scripts.ts';
export type { OutboxFilter, OutboxMessage } from './outbox.ts';

/** `port` 0 (the default) takes a free one. `maxMessages` bounds what the outbox keeps. */
export interface ProviderSimulatorOptions {
  twilio: TwilioAccount;
  port?: number;
  maxMessages?: number;
}

/** A running simulator. */
export interface ProviderSimulator {
  /** `http://127.0.0.1:PORT`: the base URL to give to each provider's client. */
  url: string;
  /** What the providers took, newest first: what `GET /outbox?to&channel&limit` answers. */
  outbox(filter?: OutboxFilter): OutboxMessage[];
  /** Makes a provider fail by a script, in place of the one it plays. */
  fail(provider: ProviderName, script: FailureScript): void;
  /** Ends the provider's script. */
  clear(provider: ProviderName): void;
  /** Closes the port and every connection; what it kept is gone. */
  stop(): Promise<void>;
}

const MAX_BODY_BYTES = 64 * 1024;
const MAX_LISTED = 1000;
const DEFAULT_LISTED = 100;

interface Reply {
  status: number;
  headers?: Record<string, string>;
  body: unknown;
}

/** Starts the simulator on 127.0.0.1; rejects when the port is taken. */
export async function startProviderSimulator(options: ProviderSimulatorOptions): Promise<ProviderSimulator> {
  const outbox = new Outbox(options.maxMessages ?? 10_000);
  const scripts = new FailureScripts();
  const stopping = new AbortController();

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '/', 'http://simulator');
    if (url.pathname.startsWith(TWILIO_PATH)) return answerAsTwilio(request, response, url.pathname);
    if (url.pathname === '/outbox' && request.method === 'GET')
      return send(response, listOutbox(url.searchParams));
    return send(response, refusal(404, 'NOT_FOUND', 'There is nothing at this address'));
  }

  async function answerAsTwilio(
    request: IncomingMessage,
    response: ServerResponse,
    path: string,
  ): Promise<void> {
    const script = scripts.next('twilio');
    if (script?.kind === 'down') {
      request.socket.resetAndDestroy();
      return;
    }
    const body = await readBody(request);
    const reply = twilioReply(request, path, body, script);
    if (script?.kind === 'slow') await delay(script.delayMs, undefined, { signal: stopping.signal });
    // What is left of a body over the limit must not be read as the connection's next request.
    if (body === undefined) response.setHeader('Connection', 'close');
    send(response, reply);
  }

  function twilioReply(
    request: IncomingMessage,
    path: string,
    body: string | undefined,
    script: FailureScript | undefined,
  ): TwilioReply {
    if (script?.kind === '500') return twilioError(20500);
    if (script?.kind === '429') {
      return { ...twilioError(20429), headers: { 'Retry-After': String(script.retryAfterS ?? 1) } };
    }
    if (body === undefined) return twilioUnreadable();
    const now = new Date();
    const reply = answerTwilio(
      {
        method: request.method ?? '',
        path,
        authorization: request.headers.authorization,
        contentType: request.headers['content-type'],
        body,
      },
      options.twilio,
      now,
      script?.kind === 'reject' ? script.code : undefined,
    );
    if (reply.taken) {
      const at = now.toISOString();
      outbox.add({ ...reply.taken, channel: 'sms', provider: 'twilio', template: null, at });
    }
    return reply;
  }

  function listOutbox(query: URLSearchParams): Reply {
    const limit = Number(query.get('limit') ?? DEFAULT_LISTED);
    if (!Number.isInteger(limit) || limit < 1 || limit > MAX_LISTED) {
      return refusal(400, 'BAD_LIMIT', `limit must be a whole number from 1 to ${MAX_LISTED}`);
    }
    // A plus that somebody typed into an address unescaped arrives as a space.
    const to = query.get('to')?.replace(/^ /, '+');
    return {
      status: 200,
      body: { messages: outbox.list({ to, channel: query.get('channel') ?? undefined, limit }) },
    };
  }

  const server = createServer((request, response) => {
    answer(request, response).catch(() => {
      // The client went away, the simulator stops, or the request's address is none: this answer only.
      if (response.headersSent || request.socket.destroyed) return;
      send(response, refusal(400, 'UNREADABLE', 'The request could not be read'));
    });
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(options.port ?? 0, '127.0.0.1', resolve);
  });

  return {
    url: `http://127.0.0.1:${portOf(server.address())}`,
    outbox: (filter) => outbox.list(filter),
    fail: (provider, script) => scripts.play(provider, script),
    clear: (provider) => scripts.clear(provider),
    stop() {
      stopping.abort();
      return new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      });
    },
  };
}

/** The request's body, or undefined when it is over the limit. */
async function readBody(request: IncomingMessage): Promise<string | undefined> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request.iterator({ destroyOnReturn: false })) {
    if (!(chunk instanceof Buffer)) continue;
    size += chunk.length;
    if (size > MAX_BODY_BYTES) return undefined;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

function send(response: ServerResponse, { status, headers, body }: Reply): void {
  const json = JSON.stringify(body);
  response.writeHead(status, {
    ...headers,
    'Content-Type': 'application/json',
    'Content-Length': Buffer.byteLength(json),
  });
  response.end(json);
}

function refusal(status: number, code: string, message: string): Reply {
  return { status, body: { error: { code, message } } };
}

function portOf(address: AddressInfo | string | null): number {
  if (address === null || typeof address === 'string') throw new Error('The simulator has no port');
  return address.port;
}
