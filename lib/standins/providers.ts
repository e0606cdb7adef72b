/**
 * Development's providers: a local HTTP server that speaks the providers' own protocols, so that the real
 * clients run against it, keeps what it took for `/dev/outbox`, tells our webhooks what became of it, and fails on
 * demand. Each protocol is a file of its own beside this one, with the sources of its formats.
 *
 * Besides the providers' own addresses there are, for people and other processes:
 * - `GET /`: a page with what was sent; `GET /outbox?to&channel&limit`, `GET /incidents`, `GET /callbacks` (how many were
 *   taken, how many lost);
 * - `POST /scripts` `{provider, script?, receipts?}` with scripts of failure-scripts.ts, or null to end one;
 * - `POST /inbound` `{provider, from, text}`: a person's message to our number, by `twilio` (`STOP`, say) or `whatsapp`;
 *   `{provider: "ses"}` asks our webhook to confirm SNS's subscription.
 *
 * It keeps everything in memory and sends nothing to anywhere but our webhooks.
 */

import { readFileSync } from 'node:fs';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { z } from 'zod';
import type { Config } from '../config.ts';
import type { ServiceAccount } from '../providers/service-account.ts';
import { type CallbackCounts, Deliveries } from './deliveries.ts';
import { DEVELOPMENT_SECRET, DEVELOPMENT_SERVICE_ACCOUNT, DEVELOPMENT_SNS } from './development-keys.ts';
import type { FailureScript, ProviderName, ReceiptScript } from './failure-scripts.ts';
import { failureScript, providerNames, receiptScript, Scripts } from './failure-scripts.ts';
import { fcmMessages } from './fcm-messages.ts';
import { type Msg91Account, msg91Flow } from './msg91-flow.ts';
import type { OutboxFilter, OutboxMessage } from './outbox.ts';
import { Outbox } from './outbox.ts';
import { type PagerDutyAccount, type PagerDutyIncident, pagerDutyEvents } from './pagerduty-events.ts';
import type { Inbound, Protocol, ProviderReply, Taken } from './protocol.ts';
import { type SendGridAccount, sendGridMail } from './sendgrid-mail.ts';
import { type SesAccount, SNS_CERTIFICATE_PATH, SNS_CONFIRM_PATH, sesEmails } from './ses-emails.ts';
import { Timers } from './timers.ts';
import type { TwilioAccount } from './twilio-account.ts';
import { twilioCalls } from './twilio-calls.ts';
import { twilioMessages } from './twilio-messages.ts';
import { type WhatsAppAccount, whatsAppMessages } from './whatsapp-messages.ts';

export type { FailureScript, ProviderName, ReceiptScript } from './failure-scripts.ts';
export type { OutboxFilter, OutboxMessage } from './outbox.ts';
export type { PagerDutyIncident } from './pagerduty-events.ts';

/** The accounts that the simulated providers know; a provider without one knows development's. */
export interface ProviderAccounts {
  twilio: TwilioAccount;
  msg91?: Msg91Account;
  whatsapp?: WhatsAppAccount;
  sendgrid?: SendGridAccount;
  ses?: SesAccount;
  fcm?: ServiceAccount;
  pagerduty?: PagerDutyAccount;
}

/**
 * `port` 0 (the default) takes a free one. `maxMessages` bounds what the outbox, and each provider, keeps. `callbacks` is the
 * address that our webhooks are below; without it only Twilio tells what became of a message, as each of its requests says
 * where. `latencyMs` is how long each answer takes, `deliverAfterMs` (200) how long a message, `perSecond` how many requests a
 * second each provider takes before it answers 429; without it any number.
 */
export interface ProviderSimulatorOptions extends ProviderAccounts {
  port?: number;
  maxMessages?: number;
  callbacks?: string | undefined;
  latencyMs?: number;
  deliverAfterMs?: number;
  perSecond?: number | undefined;
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
  /** Makes what becomes of a provider's messages, and the callbacks that tell of it, go by a script. */
  receipts(provider: ProviderName, script: ReceiptScript): void;
  /** Ends the provider's scripts. */
  clear(provider: ProviderName): void;
  /** Tells webhooks below this address from now on. */
  callbackTo(base: string): void;
  /** What became of the callbacks. */
  callbacks(): CallbackCounts;
  /** A person's message to our number, handed to our webhook; answers whether that took it. */
  receive(provider: ProviderName, message: { from: string; text: string }): Promise<boolean>;
  /** Closes the port and every connection; what it kept is gone. */
  stop(): Promise<void>;
}

/** An email's HTML is the largest of what providers take from us. */
const MAX_BODY_BYTES = 256 * 1024;
const MAX_LISTED = 200_000;
const DEFAULT_LISTED = 100;
const DELIVER_AFTER_MS = 200;

/** PagerDuty's keys have 32 characters; development's too. */
const DEVELOPMENT_ROUTING_KEY = 'development-only-routing-key-000';

const order = z.strictObject({
  provider: z.enum(providerNames),
  script: failureScript.nullable().optional(),
  receipts: receiptScript.nullable().optional(),
});
const inbound = z.strictObject({
  provider: z.enum(['twilio', 'whatsapp', 'ses']),
  from: z.string().default(''),
  text: z.string().default(''),
});

/** `body` is sent as JSON, a string in `text` as it is, by its type. */
interface Reply {
  status: number;
  headers?: Record<string, string>;
  body?: unknown;
  text?: string;
}

/** What development's SES has where nothing else is configured. */
const DEVELOPMENT_SES: SesAccount = {
  accessKeyId: DEVELOPMENT_SECRET,
  secretAccessKey: DEVELOPMENT_SECRET,
  configurationSet: DEVELOPMENT_SECRET,
};
const DEVELOPMENT_WHATSAPP: WhatsAppAccount = { phoneNumberId: '100000000000001', token: DEVELOPMENT_SECRET };
const DEVELOPMENT_SENDGRID: SendGridAccount = { apiKey: `SG.${DEVELOPMENT_SECRET}` };

/** Of what becomes of a call or an incident, no provider here tells. */
const tracked = new Set<OutboxMessage['channel']>(['sms', 'whatsapp', 'email', 'push']);

/** Scripts in an email's HTML must not run, and nothing of it be loaded from elsewhere. */
const EMAIL_POLICY = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:";
const PAGE_POLICY =
  "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; frame-src 'self'";

/** The accounts that a configuration's clients will use. */
export function accountsOf(config: Config): ProviderAccounts {
  return {
    twilio: { accountSid: config.twilioAccountSid, authToken: config.twilioAuthToken.current() },
    msg91: { authKey: config.msg91AuthKey.current() },
    whatsapp: { phoneNumberId: config.whatsappPhoneNumberId, token: config.whatsappToken.current() },
    sendgrid: { apiKey: config.sendgridApiKey.current() },
    ses: {
      accessKeyId: config.sesAccessKeyId ?? DEVELOPMENT_SES.accessKeyId,
      secretAccessKey: config.sesSecretAccessKey?.current() ?? DEVELOPMENT_SES.secretAccessKey,
      configurationSet: config.sesConfigurationSet,
    },
    fcm: config.fcmServiceAccount.current(),
    pagerduty: { routingKey: config.pagerdutyRoutingKey.current() },
  };
}

/** Starts the simulator on 127.0.0.1; rejects when the port is taken. */
export async function startProviderSimulator(options: ProviderSimulatorOptions): Promise<ProviderSimulator> {
  const maxMessages = options.maxMessages ?? 10_000;
  const outbox = new Outbox(maxMessages);
  const scripts = new Scripts<FailureScript>();
  const timers = new Timers();
  const shown = new WeakMap<Taken, OutboxMessage>();
  const deliveries = new Deliveries({
    afterMs: options.deliverAfterMs ?? DELIVER_AFTER_MS,
    timers,
    onMoved(message, state) {
      const entry = shown.get(message);
      if (entry) entry.state = state;
    },
  });
  deliveries.callbackTo(options.callbacks);
  const rates = new Rates(options.perSecond ?? Number.POSITIVE_INFINITY);
  let url = '';
  const pagerDuty = pagerDutyEvents(
    options.pagerduty ?? { routingKey: DEVELOPMENT_ROUTING_KEY },
    maxMessages,
  );
  const protocols: Protocol[] = [
    twilioMessages(options.twilio, maxMessages),
    twilioCalls(options.twilio),
    msg91Flow(options.msg91 ?? { authKey: DEVELOPMENT_SECRET }),
    whatsAppMessages(options.whatsapp ?? DEVELOPMENT_WHATSAPP),
    sendGridMail(options.sendgrid ?? DEVELOPMENT_SENDGRID),
    sesEmails(options.ses ?? DEVELOPMENT_SES, () => url),
    fcmMessages(options.fcm ?? DEVELOPMENT_SERVICE_ACCOUNT),
    pagerDuty,
  ];

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const address = new URL(request.url ?? '/', 'http://simulator');
    const protocol = protocols.find((each) => each.serves(address.pathname));
    if (protocol) return answerAs(protocol, request, response, address);
    return send(response, await answerOwn(`${request.method} ${address.pathname}`, request, address));
  }

  async function answerAs(
    protocol: Protocol,
    request: IncomingMessage,
    response: ServerResponse,
    address: URL,
  ): Promise<void> {
    const script = scripts.next(protocol.name);
    if (script?.kind === 'down') return void request.socket.resetAndDestroy();
    const body = await readBody(request);
    const busy = rates.take(protocol.name) ? undefined : retryAfter(protocol.tooMany(), 1);
    const reply = busy ?? failing(protocol, script) ?? handled(protocol, request, address, body, script);
    if (script?.kind === 'dropped') return void request.socket.resetAndDestroy();
    const waitMs = (options.latencyMs ?? 0) + (script?.kind === 'slow' ? script.delayMs : 0);
    if (waitMs > 0) await timers.wait(waitMs);
    // What is left of a body over the limit must not be read as the connection's next request.
    if (body === undefined) response.setHeader('Connection', 'close');
    send(response, reply);
  }

  function handled(
    protocol: Protocol,
    { method = '', headers }: IncomingMessage,
    address: URL,
    body: string | undefined,
    script: FailureScript | undefined,
  ): ProviderReply {
    if (body === undefined) return protocol.unreadable();
    const now = new Date();
    const reply = protocol.answer(
      { method, path: address.pathname, query: address.searchParams, headers, body, now },
      script?.kind === 'reject' ? script.code : undefined,
    );
    for (const taken of reply.taken ?? []) {
      const { callbackUrl: _, notificationId: __, ...message } = taken;
      const entry: OutboxMessage = {
        ...message,
        provider: protocol.name,
        at: now.toISOString(),
        state: 'accepted',
      };
      outbox.add(entry);
      if (!tracked.has(taken.channel)) continue;
      shown.set(taken, entry);
      deliveries.start(protocol, taken);
    }
    return reply;
  }

  /** The simulator's own addresses. */
  async function answerOwn(route: string, request: IncomingMessage, address: URL): Promise<Reply> {
    switch (route) {
      case 'GET /':
        return html(readFileSync(new URL('outbox.html', import.meta.url), 'utf8'), PAGE_POLICY);
      case 'GET /outbox':
        return listOutbox(address.searchParams);
      case 'GET /outbox/html':
        return emailHtml(address.searchParams.get('id') ?? '');
      case 'GET /incidents':
        return { status: 200, body: { incidents: pagerDuty.incidents() } };
      case 'GET /callbacks':
        return { status: 200, body: deliveries.counts };
      case `GET ${SNS_CERTIFICATE_PATH}`:
        return { status: 200, text: DEVELOPMENT_SNS.certificate, headers: { 'Content-Type': 'text/plain' } };
      case `GET ${SNS_CONFIRM_PATH}`:
        return {
          status: 200,
          text: '<ConfirmSubscriptionResponse/>',
          headers: { 'Content-Type': 'text/xml' },
        };
      case 'POST /scripts':
        return takeOrder(request);
      case 'POST /inbound':
        return takeInbound(request);
      default:
        return refusal(404, 'NOT_FOUND', 'There is nothing at this address');
    }
  }

  function emailHtml(id: string): Reply {
    const [message] = outbox.list({ id, limit: 1 });
    return message?.html === undefined
      ? refusal(404, 'NOT_FOUND', 'There is no such email')
      : html(message.html, EMAIL_POLICY);
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
    const { data } = order.safeParse(await readOwnJson(request));
    if (!data || (data.script && !canFail(data.provider, data.script)))
      return refusal(400, 'BAD_SCRIPT', 'Send {provider, script, receipts}');
    const { provider, script, receipts } = data;
    if (script) scripts.play(provider, script);
    else if (script === null) scripts.clear(provider);
    if (receipts) deliveries.scripts.play(provider, receipts);
    else if (receipts === null) deliveries.scripts.clear(provider);
    return { status: 200, body: data };
  }

  async function takeInbound(request: IncomingMessage): Promise<Reply> {
    const { data } = inbound.safeParse(await readOwnJson(request));
    if (!data) return refusal(400, 'BAD_MESSAGE', 'Send {provider, from, text}');
    const taken = await receive(data.provider, data);
    return taken
      ? { status: 200, body: { taken } }
      : refusal(502, 'NOT_TAKEN', 'Our webhook did not take it, or its address is not known');
  }

  async function receive(name: ProviderName, message: Omit<Inbound, 'at'>): Promise<boolean> {
    const protocol = protocols.find((each) => each.name === name);
    return protocol ? deliveries.receive(protocol, { ...message, at: new Date() }) : false;
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

  url = `http://127.0.0.1:${portOf(server.address())}`;

  return {
    url,
    outbox: (filter) => outbox.list(filter),
    incidents: () => pagerDuty.incidents(),
    fail(provider, script) {
      if (!canFail(provider, script)) throw new Error(`${provider} has no errors with status 200`);
      scripts.play(provider, script);
    },
    receipts: (provider, script) => deliveries.scripts.play(provider, script),
    clear(provider) {
      scripts.clear(provider);
      deliveries.scripts.clear(provider);
    },
    callbackTo: (base) => deliveries.callbackTo(base),
    callbacks: () => ({ ...deliveries.counts }),
    receive,
    stop() {
      timers.stop();
      deliveries.stop();
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
  if (script?.kind === 'flaky') return Math.random() < script.share ? protocol.broken() : undefined;
  if (script?.kind === 'error-in-200') return protocol.errorInOk?.();
  if (script?.kind !== '429') return undefined;
  return retryAfter(protocol.tooMany(), script.retryAfterS ?? 1);
}

function retryAfter(reply: ProviderReply, seconds: number): ProviderReply {
  return { ...reply, headers: { ...reply.headers, 'Retry-After': String(seconds) } };
}

/** Requests to each provider in the running second. */
class Rates {
  readonly #perSecond: number;
  #second = 0;
  #taken = new Map<ProviderName, number>();

  constructor(perSecond: number) {
    this.#perSecond = perSecond;
  }

  /** Whether one more is within the limit. */
  take(provider: ProviderName): boolean {
    const second = Math.floor(Date.now() / 1000);
    if (second !== this.#second) this.#taken = new Map();
    this.#second = second;
    const taken = (this.#taken.get(provider) ?? 0) + 1;
    this.#taken.set(provider, taken);
    return taken <= this.#perSecond;
  }
}

/** A request to the simulator's own addresses: a web page can post here without asking, but not JSON. */
async function readOwnJson(request: IncomingMessage): Promise<unknown> {
  if (!request.headers['content-type']?.startsWith('application/json')) return undefined;
  return JSON.parse((await readBody(request)) ?? '');
}

function html(text: string, policy: string): Reply {
  return {
    status: 200,
    text,
    headers: { 'Content-Type': 'text/html; charset=utf-8', 'Content-Security-Policy': policy },
  };
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

function send(response: ServerResponse, { status, headers, body, text }: Reply): void {
  const content = text ?? (body === undefined ? '' : JSON.stringify(body));
  response.writeHead(status, {
    'Content-Type': 'application/json',
    ...headers,
    'Content-Length': Buffer.byteLength(content),
  });
  response.end(content);
}

function refusal(status: number, code: string, message: string): Reply {
  return { status, body: { error: { code, message } } };
}

function portOf(address: AddressInfo | string | null): number {
  if (address === null || typeof address === 'string') throw new Error('The simulator has no port');
  return address.port;
}
