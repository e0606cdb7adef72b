import { AsyncLocalStorage } from 'node:async_hooks';
import { Client } from '@sendgrid/client';
import { MailService } from '@sendgrid/mail';
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
  const client = new SendGridClient(options, signals);
  const mail = new MailService();
  mail.setClient(client);
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
        const id = (headers as Record<string, unknown>)['x-message-id'];
        if (typeof id !== 'string')
          throw new ProviderError({ provider: PROVIDER, code: 'NO_ID', permanent: false });
        return { providerMessageId: id };
      }),
  };
}

type Request = Parameters<Client['request']>[0];
type Answer = Awaited<ReturnType<Client['request']>>;

/**
 * SendGrid's client over our connections, for each call's signal and for errors without the request. Its own transport is
 * axios, which takes no signal, follows redirects, and puts key and mail into each error.
 */
class SendGridClient extends Client {
  readonly #send = createHttpClient();
  readonly #options: SendGridOptions;
  readonly #signals: AsyncLocalStorage<AbortSignal>;

  constructor(options: SendGridOptions, signals: AsyncLocalStorage<AbortSignal>) {
    super();
    this.#options = options;
    this.#signals = signals;
  }

  override async request({ url = '', method = 'GET', headers, body }: Request): Promise<Answer> {
    const answer = await this.#send(
      {
        method,
        url: trimSlashes(this.#options.baseUrl ?? BASE_URL) + url,
        headers: {
          ...this.createHeaders((headers ?? {}) as Record<string, string>),
          Authorization: `Bearer ${currentOf(this.#options.apiKey)}`,
        },
        body: JSON.stringify(body),
      },
      this.#signals.getStore(),
    );
    const { status } = answer;
    if (status !== 202)
      throw new ProviderError({
        provider: PROVIDER,
        code: `HTTP_${status}`,
        permanent: isPermanentStatus(status),
        status,
        retryAfterMs: retryAfterMsOf(answer.headers),
      });
    return [{ statusCode: status, body: {}, headers: answer.headers }, {}];
  }
}
