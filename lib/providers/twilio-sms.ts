import { AsyncLocalStorage } from 'node:async_hooks';
import twilio from 'twilio';
import { errorCode } from '../error-code.ts';
import { currentOf, type Secret } from '../secret.ts';
import { ProviderError } from './provider-error.ts';
import type { SmsMessage, SmsProvider } from './sms.ts';

/** How to reach Twilio. One of `from` (E.164 or a sender id) and `messagingServiceSid` is needed. */
export interface TwilioSmsOptions {
  accountSid: string;
  authToken: Secret<string> | string;
  from?: string;
  messagingServiceSid?: string;
  /** Replaces `https://api.twilio.com`, for a simulator or an egress proxy. */
  baseUrl?: string;
}

const PROVIDER = 'twilio';

/** An SOS burst sends hundreds at once; the client's default of 20 sockets would queue them. */
const MAX_SOCKETS = 256;

/** 4xx statuses that say "later" rather than "never": timeout, conflict, too early, too many requests. */
const TRANSIENT_STATUSES = new Set([408, 409, 425, 429]);

/** Codes that a retry may cure although Twilio sends them with a 400: our sender's queue is full. */
const TRANSIENT_CODES = new Set(['21611']);

/**
 * An SMS adapter over Twilio's own client. Throws when no sender is given or the account SID is not one.
 *
 * Sources: https://www.twilio.com/docs/messaging/api/message-resource#create-a-message-resource and
 * https://www.twilio.com/docs/api/errors
 */
export function createTwilioSms(options: TwilioSmsOptions): SmsProvider {
  const sender = senderOf(options);
  // The client's create() takes no timeout or signal, so each send's signal travels beside the call.
  const sendSignal = new AsyncLocalStorage<AbortSignal>();
  const httpClient = new TwilioHttpClient(sendSignal, options.baseUrl);
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
    name: PROVIDER,
    async send({ to, body }: SmsMessage, { timeoutMs }: { timeoutMs: number }) {
      const deadline = new AbortController();
      const timer = setTimeout(() => deadline.abort(), timeoutMs);
      try {
        const message = await sendSignal.run(deadline.signal, () =>
          currentClient().messages.create({ to, body, ...sender }),
        );
        if (!message.sid) throw new ProviderError({ provider: PROVIDER, code: 'NO_SID', permanent: false });
        return { providerMessageId: message.sid };
      } catch (error) {
        throw toProviderError(error, deadline.signal.aborted);
      } finally {
        clearTimeout(timer);
      }
    },
  };
}

/** Twilio's HTTP client, with a base URL of ours and with the signal of the send that a request belongs to. */
class TwilioHttpClient extends twilio.RequestClient {
  constructor(sendSignal: AsyncLocalStorage<AbortSignal>, baseUrl: string | undefined) {
    super({ keepAlive: true, maxSockets: MAX_SOCKETS, maxTotalSockets: MAX_SOCKETS });
    this.axios.interceptors.request.use((config) => {
      const signal = sendSignal.getStore();
      if (signal) config.signal = signal;
      if (baseUrl && config.url) config.url = rebase(config.url, baseUrl);
      return config;
    });
  }
}

/** Swaps the origin whatever it is: an edge or region setting changes Twilio's host name. */
function rebase(url: string, baseUrl: string): string {
  const { pathname, search } = new URL(url);
  return baseUrl.replace(/\/+$/, '') + pathname + search;
}

function senderOf({ from, messagingServiceSid }: TwilioSmsOptions) {
  if (messagingServiceSid) return { messagingServiceSid };
  if (from) return { from };
  throw new Error('Twilio needs a sender: set from or messagingServiceSid');
}

function toProviderError(error: unknown, timedOut: boolean): ProviderError {
  if (error instanceof ProviderError) return error;
  if (error instanceof twilio.RestException) {
    const { status } = error;
    const code = error.code === undefined ? `HTTP_${status}` : String(error.code);
    return new ProviderError({ provider: PROVIDER, code, permanent: isPermanent(status, code), status });
  }
  const code = timedOut ? 'TIMEOUT' : (errorCode(error) ?? 'UNKNOWN');
  return new ProviderError({ provider: PROVIDER, code, permanent: false });
}

/**
 * Twilio pairs its codes with fitting statuses (20003 with 401, 21211 with 400, 20429 with 429) and keeps
 * adding codes, so the status decides and the list of codes holds the exceptions only.
 */
function isPermanent(status: number, code: string): boolean {
  const refused = status >= 400 && status < 500;
  return refused && !TRANSIENT_STATUSES.has(status) && !TRANSIENT_CODES.has(code);
}
