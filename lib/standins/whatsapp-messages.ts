/**
 * What Meta's WhatsApp Cloud API answers to `POST /{version}/{phone number id}/messages`, and what it tells our webhook.
 *
 * Sources of the formats:
 * - request and answer: https://developers.facebook.com/docs/whatsapp/cloud-api/guides/send-message-templates and
 *   https://developers.facebook.com/docs/whatsapp/cloud-api/reference/messages
 * - error body and codes: https://developers.facebook.com/docs/whatsapp/cloud-api/support/error-codes
 * - statuses and messages from people: https://developers.facebook.com/docs/whatsapp/cloud-api/webhooks/payload-examples
 * - X-Hub-Signature-256: https://developers.facebook.com/docs/graph-api/webhooks/getting-started#event-notifications
 */
import { createHmac, randomBytes } from 'node:crypto';
import { z } from 'zod';
import { DEVELOPMENT_SECRET } from './development-keys.ts';
import type { Callback, Protocol, ProviderReply, Receipt } from './protocol.ts';

/**
 * The one number that the simulated WhatsApp knows, its token, and the app's secret. `templates` has the number of variables of
 * each approved template; without it any is taken with any number of them.
 */
export interface WhatsAppAccount {
  phoneNumberId: string;
  token: string;
  appSecret?: string;
  templates?: Readonly<Record<string, number>>;
}

const PATH = /^\/v\d+\.\d+\/(\d+)\/messages$/;
const WEBHOOK_PATH = '/api/v1/webhooks/whatsapp';
const WABA_ID = '200000000000002';
const DISPLAY_NUMBER = '15550000000';

/** Status (400 unless given), title and type of the codes we answer with. */
const ERRORS: Record<number, { status?: number; title: string }> = {
  0: { status: 401, title: 'AuthException' },
  2: { status: 503, title: 'Service temporarily unavailable' },
  4: { title: 'API Too Many Calls' },
  10: { status: 403, title: 'Permission Denied' },
  33: { title: 'Parameter value is not valid' },
  100: { title: 'Invalid parameter' },
  190: { status: 401, title: 'Invalid OAuth access token' },
  80007: { status: 429, title: 'Rate limit issues' },
  130429: { status: 429, title: 'Rate limit hit' },
  131000: { status: 500, title: 'Something went wrong' },
  131005: { status: 403, title: 'Access denied' },
  131008: { title: 'Required parameter is missing' },
  131009: { title: 'Parameter value is not valid' },
  131016: { status: 503, title: 'Service unavailable' },
  131021: { title: 'Recipient cannot be sender' },
  131026: { title: 'Message undeliverable' },
  131042: { title: 'Business eligibility payment issue' },
  131047: { title: 'Re-engagement message' },
  131048: { status: 429, title: 'Spam rate limit hit' },
  131051: { title: 'Unsupported message type' },
  131056: { title: '(Business Account, Consumer Account) pair rate limit hit' },
  132000: { title: 'Number of parameters does not match the expected number of params' },
  132001: { status: 404, title: 'Template name does not exist in the translation' },
  132005: { title: 'Translated text too long' },
  132007: { title: 'Template format character policy violated' },
  132012: { title: 'Template parameter format mismatch' },
  132015: { title: 'Template is paused' },
  133004: { status: 503, title: 'Server temporarily unavailable' },
};

const parameter = z.object({ type: z.literal('text'), text: z.string() });
const templateMessage = z.object({
  messaging_product: z.literal('whatsapp'),
  recipient_type: z.literal('individual').optional(),
  to: z.string().min(1),
  biz_opaque_callback_data: z.string().max(512).optional(),
  type: z.literal('template'),
  template: z.object({
    name: z.string().min(1),
    language: z.object({ code: z.string().min(1) }),
    components: z
      .array(z.object({ type: z.enum(['header', 'body', 'button']), parameters: z.array(parameter) }))
      .default([]),
  }),
});
type Message = z.output<typeof templateMessage>;

/** The Cloud API for one number. */
export function whatsAppMessages(account: WhatsAppAccount): Protocol {
  const appSecret = account.appSecret ?? DEVELOPMENT_SECRET;
  const metadata = { display_phone_number: DISPLAY_NUMBER, phone_number_id: account.phoneNumberId };

  function webhook(value: Record<string, unknown>): Callback {
    const body = JSON.stringify({
      object: 'whatsapp_business_account',
      entry: [
        {
          id: WABA_ID,
          changes: [{ value: { messaging_product: 'whatsapp', metadata, ...value }, field: 'messages' }],
        },
      ],
    });
    return {
      path: WEBHOOK_PATH,
      headers: { 'Content-Type': 'application/json', 'X-Hub-Signature-256': hubSignature(appSecret, body) },
      body,
    };
  }

  return {
    name: 'whatsapp',
    serves: (path) => PATH.test(path),
    answer({ method, path, headers, body }, rejectWith) {
      if (headers.authorization !== `Bearer ${account.token}`) return failure(190);
      if (PATH.exec(path)?.[1] !== account.phoneNumberId || method !== 'POST')
        return failure(
          100,
          `Unsupported ${method.toLowerCase()} request. Object with ID '${PATH.exec(path)?.[1]}' does not exist`,
        );
      const sent = readMessage(headers['content-type'], body);
      if (typeof sent === 'string') return failure(100, sent);
      const refusal = whyRefused(sent, account) ?? rejectWith;
      return refusal === undefined ? taken(sent) : failure(Number(refusal));
    },
    callback: (receipt, base) =>
      base === undefined || receipt.state === 'complained'
        ? undefined
        : webhook({ statuses: [statusOf(receipt)] }),
    inbound: ({ from, text, at }) =>
      webhook({
        contacts: [{ profile: { name: 'A person' }, wa_id: digits(from) }],
        messages: [
          { from: digits(from), id: newId(), timestamp: seconds(at), text: { body: text }, type: 'text' },
        ],
      }),
    unreadable: () => failure(100, 'The request is too large'),
    tooMany: () => failure(130429),
    broken: () => failure(131000),
  };
}

/** What Meta signs a body with. */
export function hubSignature(appSecret: string, body: string): string {
  return `sha256=${createHmac('sha256', appSecret).update(body).digest('hex')}`;
}

function failure(code: number, details?: string): ProviderReply {
  const { status = 400, title = 'Message failed' } = ERRORS[code] ?? {};
  return {
    status,
    body: {
      error: {
        message: `(#${code}) ${title}`,
        type: 'OAuthException',
        code,
        error_data: { messaging_product: 'whatsapp', details: details ?? title },
        fbtrace_id: randomBytes(8).toString('base64url'),
      },
    },
  };
}

/** The message in a body, or what is wrong with it. */
function readMessage(contentType: string | undefined, body: string): Message | string {
  if (!contentType?.startsWith('application/json')) return 'The parameter messaging_product is required.';
  try {
    const { data, error } = templateMessage.safeParse(JSON.parse(body));
    return data ?? `Invalid parameter ${error?.issues[0]?.path.join('.') ?? ''}`;
  } catch {
    return 'The body is not JSON';
  }
}

function whyRefused({ to, template }: Message, { templates }: WhatsAppAccount): number | undefined {
  if (!/^[1-9]\d{6,14}$/.test(digits(to))) return 131009;
  const { name, components } = template;
  if (!/^[a-z0-9_]{1,512}$/.test(name)) return 132001;
  const texts = components.flatMap(({ parameters }) => parameters.map(({ text }) => text));
  if (texts.includes('')) return 131008;
  // "Param text cannot have new-line/tab characters or more than 4 consecutive spaces"
  if (texts.some((text) => /[\n\t]| {5}/.test(text))) return 100;
  if (texts.some((text) => text.length > 1024)) return 132005;
  if (!templates) return undefined;
  const expected = Object.hasOwn(templates, name) ? templates[name] : undefined;
  if (expected === undefined) return 132001;
  const given = components.find(({ type }) => type === 'body')?.parameters.length ?? 0;
  return given === expected ? undefined : 132000;
}

function taken({
  to,
  biz_opaque_callback_data: notificationId,
  template: { name, components },
}: Message): ProviderReply {
  const id = newId();
  const body = components.find(({ type }) => type === 'body');
  return {
    status: 200,
    body: {
      messaging_product: 'whatsapp',
      contacts: [{ input: to, wa_id: digits(to) }],
      messages: [{ id, message_status: 'accepted' }],
    },
    taken: [
      {
        id,
        channel: 'whatsapp',
        to: `+${digits(to)}`,
        template: name,
        text: (body?.parameters ?? []).map(({ text }) => text).join('\n'),
        ...(notificationId === undefined ? {} : { notificationId }),
      },
    ],
  };
}

function statusOf({ message, state, code, at }: Receipt): Record<string, unknown> {
  const { id, to, notificationId } = message;
  const base = {
    id,
    status: state,
    timestamp: seconds(at),
    recipient_id: digits(to),
    ...(notificationId === undefined ? {} : { biz_opaque_callback_data: notificationId }),
  };
  if (state === 'failed') {
    const failed = Number(code ?? 131026);
    const title = ERRORS[failed]?.title ?? 'Message failed';
    return { ...base, errors: [{ code: failed, title, message: title, error_data: { details: title } }] };
  }
  return {
    ...base,
    conversation: { id: randomBytes(16).toString('hex'), origin: { type: 'utility' } },
    pricing: { billable: true, pricing_model: 'PMP', category: 'utility', type: 'regular' },
  };
}

const newId = () => `wamid.${randomBytes(24).toString('base64')}`;
const digits = (number: string) => number.replace(/\D/g, '');
const seconds = (at: Date) => String(Math.floor(at.getTime() / 1000));
