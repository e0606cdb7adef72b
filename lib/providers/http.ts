/**
 * HTTP as the adapters need it: connections kept open and bounded in number, an answer of bounded size, no redirects (they
 * would get our keys), no retries. Over node:http(s), because fetch and axios cost two to three times the CPU, which a
 * burst of SOS feels.
 */
import * as http from 'node:http';
import * as https from 'node:https';
import type { CallOptions } from './deadline.ts';
import { withDeadline } from './deadline.ts';

/** One request; `body` is sent as it is. */
export interface HttpRequest {
  method: string;
  url: string;
  headers?: Record<string, string>;
  body?: string;
}

/** Any answer, whatever its status. */
export interface HttpAnswer {
  status: number;
  headers: http.IncomingHttpHeaders;
  text: string;
}

/** Sends a request over the client's connections. Rejects with the system's error, or an AbortError. */
export type HttpClient = (request: HttpRequest, signal?: AbortSignal) => Promise<HttpAnswer>;

/** Connections to one provider: an SOS burst sends hundreds at once, and each is to find its connection open. */
const MAX_SOCKETS = 256;

/** An idle connection is closed before the other side does it, in the moment that we write to it: most wait 5 s or more. */
const IDLE_MS = 4000;

/** More than this is not a provider's answer. */
const MAX_ANSWER_CHARACTERS = 1024 * 1024;

/** 4xx statuses that say "later" rather than "never": timeout, conflict, too early, too many requests. */
const TRANSIENT_STATUSES = new Set([408, 409, 425, 429]);

/** Whether the same request would be refused again, as far as the status tells. */
export function isPermanentStatus(status: number): boolean {
  return status >= 300 && status < 500 && !TRANSIENT_STATUSES.has(status);
}

/** How the connections to a provider are kept, for an Agent. */
export const POOL = {
  keepAlive: true,
  maxSockets: MAX_SOCKETS,
  maxFreeSockets: MAX_SOCKETS,
  timeout: IDLE_MS,
};

/** A client with connections of its own, which end when they are idle or the provider closes them. */
export function createHttpClient(): HttpClient {
  const plain = new http.Agent(POOL);
  const secure = new https.Agent(POOL);
  return ({ method, url, headers, body = '' }, signal) =>
    new Promise((resolve, reject) => {
      const isSecure = url.startsWith('https:');
      const options: http.RequestOptions = {
        method,
        agent: isSecure ? secure : plain,
        headers: { ...headers, ...(body ? { 'Content-Length': Buffer.byteLength(body) } : {}) },
        ...(signal ? { signal } : {}),
      };
      const outgoing = (isSecure ? https : http).request(url, options, (incoming) => {
        let text = '';
        incoming.setEncoding('utf8');
        incoming.on('data', (chunk: string) => {
          text += chunk;
          if (text.length > MAX_ANSWER_CHARACTERS) incoming.destroy(new Error('The answer is too long'));
        });
        incoming.on('error', reject);
        incoming.on('end', () =>
          resolve({ status: incoming.statusCode ?? 0, headers: incoming.headers, text }),
        );
      });
      outgoing.on('error', reject);
      outgoing.end(body);
    });
}

/** A provider's answer; `body` is its JSON, undefined when it sent none. `retryAfterMs` is set where it said so. */
export interface JsonAnswer {
  status: number;
  body: unknown;
  retryAfterMs: number | undefined;
}

/** What an answer's `Retry-After` says, in ms: it comes as seconds or as a date. */
export function retryAfterMsOf(headers: http.IncomingHttpHeaders, now = Date.now()): number | undefined {
  const value = headers['retry-after'];
  if (!value) return undefined;
  const ms = /^\d+$/.test(value) ? Number(value) * 1000 : Date.parse(value) - now;
  return Number.isNaN(ms) ? undefined : Math.max(0, ms);
}

/** One POST of JSON within the options' limits; rejects with a ProviderError of `provider`. */
export function postJson(
  provider: string,
  client: HttpClient,
  request: { url: string; headers?: Record<string, string>; body: unknown },
  options: CallOptions,
): Promise<JsonAnswer> {
  return withDeadline(provider, options, async (signal) => {
    const { status, headers, text } = await client(
      {
        method: 'POST',
        url: request.url,
        headers: { 'Content-Type': 'application/json', Accept: 'application/json', ...request.headers },
        body: JSON.stringify(request.body),
      },
      signal,
    );
    return { status, body: parseJson(text), retryAfterMs: retryAfterMsOf(headers) };
  });
}

/** A base URL with the slashes at its end taken off. */
export function trimSlashes(baseUrl: string): string {
  return baseUrl.replace(/\/+$/, '');
}

/** The JSON in an answer's text, or undefined. */
export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
