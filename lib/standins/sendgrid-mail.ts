/**
 * What SendGrid answers to `POST /v3/mail/send`, and the events that it posts to our webhook.
 *
 * Sources of the formats:
 * - request and answers: https://www.twilio.com/docs/sendgrid/api-reference/mail-send/mail-send
 * - errors: https://www.twilio.com/docs/sendgrid/api-reference/mail-send/errors
 * - events (`sg_message_id` begins with the X-Message-Id): https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/event
 * - the signature: https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/getting-started-event-webhook-security-features
 *   and SendGrid's @sendgrid/eventwebhook (ECDSA on P-256 over SHA-256 of timestamp and body, DER in base64)
 */
import { createPrivateKey, type KeyObject, randomBytes, sign } from 'node:crypto';
import { z } from 'zod';
import { DEVELOPMENT_SENDGRID_WEBHOOK } from './development-keys.ts';
import type { Protocol, ProviderReply, Receipt } from './protocol.ts';

/** The one key that the simulated SendGrid knows, and the private key (PEM) that it signs its events with. */
export interface SendGridAccount {
  apiKey: string;
  webhookKey?: string;
}

const PATH = '/v3/mail/send';
const WEBHOOK_PATH = '/api/v1/webhooks/sendgrid';
const HELP = 'http://sendgrid.com/docs/API_Reference/Web_API_v3/Mail/errors.html';

/** What SendGrid allows for all custom arguments of a message. */
const MAX_CUSTOM_ARGS_BYTES = 10_000;

const address = z.object({
  email: z.email('Does not contain a valid address.'),
  name: z.string().optional(),
});
const mail = z.object({
  personalizations: z
    .array(
      z.object({
        to: z.array(address).min(1, 'The to array is required for all personalization objects'),
        subject: z.string().optional(),
        custom_args: z.record(z.string(), z.string()).optional(),
      }),
    )
    .min(1, 'The personalizations field is required and must have at least one personalization.'),
  from: address,
  subject: z.string().min(1, 'The subject is required.').optional(),
  content: z
    .array(
      z.object({
        type: z.string().min(1),
        value: z.string().min(1, 'The content value must be a string at least one character in length.'),
      }),
    )
    .min(1, 'Unless a valid template_id is provided, the content parameter is required.'),
  custom_args: z.record(z.string(), z.string()).optional(),
});
type Mail = z.output<typeof mail>;

/** SendGrid's mail API for one key. */
export function sendGridMail({ apiKey, webhookKey }: SendGridAccount): Protocol {
  const key = createPrivateKey(webhookKey ?? DEVELOPMENT_SENDGRID_WEBHOOK.privateKey);
  return {
    name: 'sendgrid',
    serves: (path) => path === PATH,
    answer({ method, headers, body }, rejectWith) {
      if (headers.authorization !== `Bearer ${apiKey}`)
        return failure(401, 'The provided authorization grant is invalid, expired, or revoked');
      if (method !== 'POST') return failure(405, 'method not allowed');
      if (!headers['content-type']?.startsWith('application/json'))
        return failure(415, 'Content-Type should be application/json.');
      const sent = readMail(body);
      if ('status' in sent) return sent;
      if (rejectWith !== undefined) return failure(Number(rejectWith), `Refused with ${rejectWith}`);
      return taken(sent);
    },
    callback(receipt, base) {
      if (base === undefined) return undefined;
      const body = JSON.stringify([eventOf(receipt)]);
      const timestamp = String(Math.floor(receipt.at.getTime() / 1000));
      return {
        path: WEBHOOK_PATH,
        headers: {
          'Content-Type': 'application/json',
          'User-Agent': 'SendGrid Event API',
          'X-Twilio-Email-Event-Webhook-Timestamp': timestamp,
          'X-Twilio-Email-Event-Webhook-Signature': eventSignature(key, timestamp, body),
        },
        body,
      };
    },
    unreadable: () => failure(413, 'The JSON payload you have included in your request is too large.'),
    tooMany: () => failure(429, 'too many requests'),
    broken: () => failure(500, 'Internal server error'),
  };
}

/** The signature of SendGrid's signed event webhook. */
export function eventSignature(key: KeyObject, timestamp: string, body: string): string {
  return sign('sha256', Buffer.from(timestamp + body), key).toString('base64');
}

function failure(status: number, message: string, field: string | null = null): ProviderReply {
  return {
    status,
    body: { errors: [{ message, field, help: field === null ? null : `${HELP}#message.${field}` }] },
  };
}

function readMail(body: string): Mail | ProviderReply {
  let json: unknown;
  try {
    json = JSON.parse(body);
  } catch {
    return failure(400, 'Bad Request');
  }
  const { data, error } = mail.safeParse(json);
  if (!data) {
    const [issue] = error.issues;
    return failure(400, issue?.message ?? 'Bad Request', issue?.path.join('.') ?? null);
  }
  const { content, subject, personalizations, custom_args: customArgs } = data;
  if (subject === undefined && personalizations.some((each) => !each.subject))
    return failure(400, 'The subject is required.', 'subject');
  const plain = content.findIndex(({ type }) => type === 'text/plain');
  if (plain > 0)
    return failure(
      400,
      'If present, text/plain and text/html may only be provided once, in that order.',
      'content',
    );
  if (Buffer.byteLength(JSON.stringify(customArgs ?? {})) > MAX_CUSTOM_ARGS_BYTES)
    return failure(400, 'The custom_args are too large.', 'custom_args');
  return data;
}

function taken({ personalizations, content, subject, custom_args: shared }: Mail): ProviderReply {
  const id = randomBytes(16).toString('base64url');
  const part = (type: string) => content.find((each) => each.type === type)?.value;
  return {
    status: 202,
    headers: { 'X-Message-Id': id },
    body: undefined,
    taken: personalizations.flatMap(({ to, subject: own, custom_args: customArgs }) => {
      const notificationId = customArgs?.['notificationId'] ?? shared?.['notificationId'];
      return to.map(({ email }) => ({
        id,
        channel: 'email' as const,
        to: email,
        template: null,
        subject: own ?? subject ?? '',
        text: part('text/plain') ?? '',
        html: part('text/html') ?? '',
        ...(notificationId === undefined ? {} : { notificationId }),
      }));
    }),
  };
}

function eventOf({ message: { id, to, notificationId }, state, code, at }: Receipt): Record<string, unknown> {
  const event = {
    email: to,
    timestamp: Math.floor(at.getTime() / 1000),
    'smtp-id': `<${id}@geopod-ismtpd-1>`,
    sg_event_id: randomBytes(16).toString('base64url'),
    sg_message_id: `${id}.recvd-5f54b5d587-8lpsd-1-5F5A79D3-12.0`,
    ...(notificationId === undefined ? {} : { notificationId }),
  };
  if (state === 'failed') {
    const status = typeof code === 'string' ? code : '5.1.1';
    return { ...event, event: 'bounce', type: 'bounce', status, reason: '550 5.1.1 user unknown' };
  }
  if (state === 'complained') return { ...event, event: 'spamreport' };
  if (state === 'delivered') return { ...event, event: 'delivered', response: '250 OK' };
  return { ...event, event: state === 'read' ? 'open' : 'processed' };
}
