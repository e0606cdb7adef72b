/**
 * Development's providers: a local HTTP server that speaks the providers' own protocols, so that the real
 * clients run against it, keeps what it took for `/dev/outbox`, and fails on demand. Each protocol is a file
 * of its own beside this one, with the sources of its formats.
 *
 * Besides the providers' own addresses there are `GET /outbox?to&channel&limit`, `GET /incidents` and, for people and
 * other processes, `POST /scripts` `{provider, script}` with a script of failure-scripts.ts, or null to end it.
 *
 * It keeps everything in memory and never sends anything anywhere.
 */

import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { z } from 'zod';
import type { Config } from '../config.ts';
import type { FailureScript, ProviderName } from './failure-scripts.ts';
import { FailureScripts, failureScript, providerNames } from './failure-scripts.ts';
import { type Msg91Account, msg91Flow } from './msg91-flow.ts';
import type { OutboxFilter, OutboxMessage } from './outbox.ts';
import { Outbox } from './outbox.ts';
import { type PagerDutyAccount, type PagerDutyIncident, pagerDutyEvents } from './pagerduty-events.ts';
import type { Protocol, ProviderReply } from './protocol.ts';
import type { TwilioAccount } from './twilio-account.ts';
import { twilioCalls } from './twilio-calls.ts';
import { twilioMessages } from './twilio-messages.ts';

export type { FailureScript, ProviderName } from './failure-scripts.ts';
export type { OutboxFilter, OutboxMessage } from './outbox.ts';
export type { PagerDutyIncident } from './pagerduty-events.ts';

/** The accounts that the simulated providers know; a provider without one knows development's. */
export interface ProviderAccounts {
  twilio: TwilioAccount;
  msg91?: Msg91Account;
  pagerduty?: PagerDutyAccount;
}

/** `port` 0 (the default) takes a free one. `maxMessages` bounds what the outbox, and each provider, keeps. */
export interface ProviderSimulatorOptions extends ProviderAccounts {
  port?: number;
  maxMessages?: number;
}

/** A running simulator. */
export interface ProviderSimulator {
  /** `http://127.0.0.1:PORT`: the base URL to give to each provider's client. */
  url: string;
  /** What the providers took, newest first: what `GET /outbox?to&channel&limit` answers. */
  outbox(filter?: OutboxFilter): OutboxMessage[];
  /** PagerDuty's incidents, oldest first: what `GET /incidents` answers. */
  incidents(): PagerDutyIncident[];
  /** Makes a provider fail by a script, in place of the one it plays. Throws when it never fails so. */
  fail(provider: ProviderName, script: FailureScript): void;
  /** Ends the provider's script. */
  clear(provider: ProviderName): void;
  /** Closes the port and every connection; what it kept is gone. */
  stop(): Promise<void>;
}

const MAX_BODY_BYTES = 64 * 1024;
const MAX_LISTED = 200_000;
const DEFAULT_LISTED = 100;
const DEVELOPMENT_KEY = 'development-only';

/** PagerDuty's keys have 32 characters; development's too. */
const DEVELOPMENT_ROUTING_KEY = 'development-only-routing-key-000';

const order = z.strictObject({ provider: z.enum(providerNames), script: failureScript.nullable() });

interface Reply {
  status: number;
  headers?: Record<string, string>;
  body: unknown;
}

/** The accounts that a configuration's clients will use. */
export function accountsOf(config: Config): ProviderAccounts {
  return {
    twilio: { accountSid: config.twilioAccountSid, authToken: config.twilioAuthToken.current() },
    msg91: { authKey: config.msg91AuthKey.current() },
    pagerduty: { routingKey: config.pagerdutyRoutingKey.current() },
  };
}

/** Starts the simulator on 127.0.0.1; rejects when the port is taken. */
export async function startProviderSimulator(options: ProviderSimulatorOptions): Promise<ProviderSimulator> {
  const maxMessages = options.maxMessages ?? 10_000;
  const outbox = new Outbox(maxMessages);
  const scripts = new FailureScripts();
  const stopping = new AbortController();
  const pagerDuty = pagerDutyEvents(
    options.pagerduty ?? { routingKey: DEVELOPMENT_ROUTING_KEY },
    maxMessages,
  );
  const protocols: Protocol[] = [
    twilioMessages(options.twilio, maxMessages),
    twilioCalls(options.twilio),
    msg91Flow(options.msg91 ?? { authKey: DEVELOPMENT_KEY }),
    pagerDuty,
  ];

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '/', 'http://simulator');
    const protocol = protocols.find((each) => each.serves(url.pathname));
    if (protocol) return answerAs(protocol, request, response, url);
    return send(response, await answerOwn(`${request.method} ${url.pathname}`, request, url));
  }

  async function answerAs(
    protocol: Protocol,
    request: IncomingMessage,
    response: ServerResponse,
    url: URL,
  ): Promise<void> {
    const script = scripts.next(protocol.name);
    if (script?.kind === 'down') return void request.socket.resetAndDestroy();
    const body = await readBody(request);
    const reply = failing(protocol, script) ?? handled(protocol, request, url, body, script);
    if (script?.kind === 'dropped') return void request.socket.resetAndDestroy();
    if (script?.kind === 'slow') await delay(script.delayMs, undefined, { signal: stopping.signal });
    // What is left of a body over the limit must not be read as the connection's next request.
    if (body === undefined) response.setHeader('Connection', 'close');
    send(response, reply);
  }

  function handled(
    protocol: Protocol,
    { method = '', headers }: IncomingMessage,
    url: URL,
    body: string | undefined,
    script: FailureScript | undefined,
  ): ProviderReply {
    if (body === undefined) return protocol.unreadable();
    const now = new Date();
    const reply = protocol.answer(
      {
        method,
        path: url.pathname,
        query: url.searchParams,
        authorization: headers.authorization,
        authkey: first(headers['authkey']),
        contentType: headers['content-type'],
        body,
        now,
      },
      script?.kind === 'reject' ? script.code : undefined,
    );
    for (const taken of reply.taken ?? [])
      outbox.add({ ...taken, provider: protocol.name, at: now.toISOString() });
    return reply;
  }

  /** The simulator's own addresses. */
  async function answerOwn(route: string, request: IncomingMessage, url: URL): Promise<Reply> {
    if (route === 'GET /outbox') return listOutbox(url.searchParams);
    if (route === 'GET /incidents') return { status: 200, body: { incidents: pagerDuty.incidents() } };
    if (route === 'POST /scripts') return takeOrder(request);
    return refusal(404, 'NOT_FOUND', 'There is nothing at this address');
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

  async function takeOrder(request: IncomingMessage): Promise<Reply> {
    // A web page can post to this address without asking, but not JSON
    const isJson = request.headers['content-type']?.startsWith('application/json');
    const { data } = order.safeParse(isJson ? JSON.parse((await readBody(request)) ?? '') : undefined);
    if (!data || (data.script && !canFail(data.provider, data.script)))
      return refusal(400, 'BAD_SCRIPT', 'Send {provider, script}');
    if (data.script) scripts.play(data.provider, data.script);
    else scripts.clear(data.provider);
    return { status: 200, body: data };
  }

  function canFail(provider: ProviderName, { kind }: FailureScript): boolean {
    const protocol = protocols.find(({ name }) => name === provider);
    return kind !== 'error-in-200' || (protocol !== undefined && 'errorInOk' in protocol);
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
    incidents: () => pagerDuty.incidents(),
    fail(provider, script) {
      if (!canFail(provider, script)) throw new Error(`${provider} has no errors with status 200`);
      scripts.play(provider, script);
    },
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

/** The answer of a script under which nothing is taken. */
function failing(protocol: Protocol, script: FailureScript | undefined): ProviderReply | undefined {
  if (script?.kind === '500') return protocol.broken();
  if (script?.kind === 'error-in-200') return protocol.errorInOk?.();
  if (script?.kind !== '429') return undefined;
  return { ...protocol.tooMany(), headers: { 'Retry-After': String(script.retryAfterS ?? 1) } };
}

/** The request's body, or undefined when it is over the limit. */
function readBody(request: IncomingMessage): Promise<string | undefined> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let size = 0;
    request.on('data', (chunk: Buffer) => {
      size += chunk.length;
      if (size > MAX_BODY_BYTES) resolve(undefined);
      else chunks.push(chunk);
    });
    request.on('end', () => resolve(Buffer.concat(chunks).toString('utf8')));
    request.on('error', reject);
  });
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

function first(header: string | string[] | undefined): string | undefined {
  return Array.isArray(header) ? header[0] : header;
}

function portOf(address: AddressInfo | string | null): number {
  if (address === null || typeof address === 'string') throw new Error('The simulator has no port');
  return address.port;
}
