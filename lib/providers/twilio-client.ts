import { AsyncLocalStorage } from 'node:async_hooks';
import twilio from 'twilio';
import { currentOf, type Secret } from '../secret.ts';
import type { CallOptions } from './deadline.ts';
import { withDeadline } from './deadline.ts';
import { createHttpClient, isPermanentStatus, retryAfterMsOf, trimSlashes } from './http.ts';
import { ProviderError } from './provider-error.ts';

/** How to reach a Twilio account. */
export interface TwilioAccountOptions {
  accountSid: string;
  authToken: Secret<string> | string;
  /** Replaces `https://api.twilio.com`, for a simulator or an egress proxy. */
  baseUrl?: string;
}

/** Twilio's own client, one call at a time. */
export interface TwilioClient {
  /** Makes one call within the options' limits; rejects with a ProviderError of `provider`. */
  call<T>(options: CallOptions, use: (client: twilio.Twilio) => Promise<T>): Promise<T>;
}

/** Codes that a retry may cure although Twilio sends them with a 400: our sender's queue is full. */
const TRANSIENT_CODES = new Set(['21611']);

/** Throws when the account SID is none. Errors: https://www.twilio.com/docs/api/errors */
export function createTwilioClient(provider: string, options: TwilioAccountOptions): TwilioClient {
  // The client's methods take no timeout or signal, and its errors have no headers, so both travel beside the call.
  const calls = new AsyncLocalStorage<Call>();
  const httpClient = new TwilioHttpClient(calls, options.baseUrl);
  const clientWith = (token: string) => twilio(options.accountSid, token, { httpClient });
  let token = currentOf(options.authToken);
  let client = clientWith(token);
  /** Of the token that holds now: it can change while we run. */
  const currentClient = () => {
    const current = currentOf(options.authToken);
    if (current !== token) client = clientWith((token = current));
    return client;
  };
  return {
    call: (callOptions, use) =>
      withDeadline(provider, callOptions, async (signal) => {
        const call: Call = { signal };
        try {
          return await calls.run(call, () => use(currentClient()));
        } catch (error) {
          if (error instanceof twilio.RestException) throw refused(provider, error, call.retryAfterMs);
          throw error;
        }
      }),
  };
}

/** One call: what ends it, and what its answer said beside the body. */
interface Call {
  readonly signal: AbortSignal;
  retryAfterMs?: number | undefined;
}

type RequestOptions<T> = Parameters<typeof twilio.RequestClient.prototype.request<T>>[0];
type Answer<T> = Awaited<ReturnType<typeof twilio.RequestClient.prototype.request<T>>>;

/**
 * The HTTP client below Twilio's own: with our connections, a base URL of ours, and the signal of the call that a request
 * belongs to. https://www.twilio.com/docs/libraries/node/custom-http-clients-node
 */
class TwilioHttpClient extends twilio.RequestClient {
  readonly #send = createHttpClient();
  readonly #calls: AsyncLocalStorage<Call>;
  readonly #baseUrl: string | undefined;

  constructor(calls: AsyncLocalStorage<Call>, baseUrl: string | undefined) {
    super();
    this.#calls = calls;
    this.#baseUrl = baseUrl;
  }

  override async request<T>(options: RequestOptions<T>): Promise<Answer<T>> {
    const { method, uri, username = '', password = '', headers, params, data } = options;
    const call = this.#calls.getStore();
    const query = params ? `?${formOf(params)}` : '';
    const {
      status,
      headers: answered,
      text,
    } = await this.#send(
      {
        method: method.toUpperCase(),
        url: (this.#baseUrl ? rebase(uri, this.#baseUrl) : uri) + query,
        headers: {
          ...headers,
          Authorization: `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`,
        },
        ...(data ? { body: formOf(data) } : {}),
      },
      call?.signal,
    );
    if (call) call.retryAfterMs = retryAfterMsOf(answered);
    // Twilio's client reads JSON itself from an answer that is text
    return { statusCode: status, body: text as T, headers: answered };
  }
}

function formOf(fields: object): string {
  const form = new URLSearchParams();
  for (const [name, value] of Object.entries(fields)) {
    for (const each of Array.isArray(value) ? value : [value]) form.append(name, String(each));
  }
  return form.toString();
}

/** Swaps the origin whatever it is: an edge or region setting changes Twilio's host name. */
function rebase(url: string, baseUrl: string): string {
  const { pathname, search } = new URL(url);
  return trimSlashes(baseUrl) + pathname + search;
}

/**
 * Twilio pairs its codes with fitting statuses (20003 with 401, 21211 with 400, 20429 with 429) and keeps
 * adding codes, so the status decides and the list of codes holds the exceptions only.
 */
function refused(
  provider: string,
  { status, code }: { status: number; code?: number },
  retryAfterMs: number | undefined,
): ProviderError {
  const name = code === undefined ? `HTTP_${status}` : String(code);
  const permanent = isPermanentStatus(status) && !TRANSIENT_CODES.has(name);
  return new ProviderError({ provider, code: name, permanent, status, retryAfterMs });
}
