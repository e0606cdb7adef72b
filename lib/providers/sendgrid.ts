import { AsyncLocalStorage } from 'node:async_hooks';
import type { IncomingHttpHeaders } from 'node:http';
import sendgrid from '@sendgrid/mail';
import { currentOf, type Secret } from '../secret.ts';
import { withDeadline } from './deadline.ts';
import { createHttpClient, isPermanentStatus, retryAfterMsOf, trimSlashes } from './http.ts';
import type { EmailMessage, MessageProvider } from './provider.ts';
import { ProviderError } from './provider-error.ts';

/** `from` is a verified sender: an address, or `Name <address>`. */
export interface SendGridOptions {
  apiKey: Secret<string> | string;
  from: string;
  /** Replaces `https://api.sendgrid.com`, for a simulator or an egress proxy. */
  baseUrl?: string;
}

const PROVIDER = 'sendgrid';
const BASE_URL = 'https://api.sendgrid.com';

/**
 * An email adapter over SendGrid's own client. SendGrid's errors have no codes but statuses. Links and opens are not tracked:
 * nobody but us learns what a rider opens.
 *
 * Sources: https://www.twilio.com/docs/sendgrid/api-reference/mail-send/mail-send and
 * https://www.twilio.com/docs/sendgrid/api-reference/mail-send/errors
 */
export function createSendGrid(options: SendGridOptions): MessageProvider<EmailMessage> {
  const signals = new AsyncLocalStorage<AbortSignal>();
  const mail = new MailService();
  mail.setClient(createTransport(options, signals));
  return {
    name: PROVIDER,
    channel: 'email',
    send: ({ to, subject, html, text, notificationId }, callOptions) =>
      withDeadline(PROVIDER, callOptions, async (signal) => {
        const [{ headers }] = await signals.run(signal, () =>
          mail.send({
            to,
            from: options.from,
            subject,
            text,
            html,
            customArgs: { notificationId },
            trackingSettings: {
              clickTracking: { enable: false, enableText: false },
              openTracking: { enable: false },
            },
          }),
        );
        const id = headers['x-message-id'];
        if (typeof id !== 'string')
          throw new ProviderError({ provider: PROVIDER, code: 'NO_ID', permanent: false });
        return { providerMessageId: id };
      }),
  };
}

/** What SendGrid's mail service hands to the client below it, and gets back. */
interface Request {
  method: string;
  url: string;
  headers?: Record<string, string>;
  body: unknown;
}
type Answer = [{ statusCode: number; headers: IncomingHttpHeaders }, unknown];
interface Transport {
  request(request: Request): Promise<Answer>;
}

/** The package exports one service for everybody and types that not every compiler reads; each adapter needs its own. */
const MailService = sendgrid.constructor as new () => {
  setClient(client: Transport): void;
  send(mail: object): Promise<Answer>;
};

/**
 * What stands in for SendGrid's own client below its mail service: our connections, each call's signal, and errors without
 * the request. That client is axios, which takes no signal here, follows redirects, and puts key and mail into its errors.
 */
function createTransport(
  { apiKey, baseUrl = BASE_URL }: SendGridOptions,
  signals: AsyncLocalStorage<AbortSignal>,
): Transport {
  const client = createHttpClient();
  return {
    async request({ method, url, headers, body }) {
      const answer = await client(
        {
          method,
          url: trimSlashes(baseUrl) + url,
          headers: {
            ...headers,
            Authorization: `Bearer ${currentOf(apiKey)}`,
            'Content-Type': 'application/json',
          },
          body: JSON.stringify(body),
        },
        signals.getStore(),
      );
      const { status } = answer;
      if (status === 202) return [{ statusCode: status, headers: answer.headers }, undefined];
      throw new ProviderError({
        provider: PROVIDER,
        code: `HTTP_${status}`,
        permanent: isPermanentStatus(status),
        status,
        retryAfterMs: retryAfterMsOf(answer.headers),
      });
    },
  };
}
