/**
 * What the WhatsApp Cloud API tells: statuses of our messages, and messages from people.
 *
 * Sources: https://developers.facebook.com/docs/graph-api/webhooks/getting-started (handshake and X-Hub-Signature-256: HMAC over the
 * raw body, keyed with the app's secret), https://developers.facebook.com/docs/whatsapp/cloud-api/webhooks/components
 */
import { createHmac } from 'node:crypto';
import { z } from 'zod';
import {
  type Callback,
  e164Of,
  forged,
  jsonOf,
  notAhead,
  type Receipt,
  readable,
  receipt,
  sameSecret,
  type Told,
  told,
  unreadable,
  wantsOut,
} from './callback.ts';

export const whatsAppSignatureHeader = 'x-hub-signature-256';

const states = new Map<string, Receipt['state']>([
  ['sent', 'sent'],
  ['delivered', 'delivered'],
  ['read', 'read'],
  ['played', 'read'],
  ['failed', 'failed'],
]);

const status = z.object({
  id: z.string(),
  status: z.string(),
  /** Seconds */
  timestamp: z.coerce.number(),
  errors: z.array(z.object({ code: z.union([z.number(), z.string()]) })).default([]),
  biz_opaque_callback_data: z.string().optional(),
});
const message = z.object({
  from: z.string(),
  text: z.object({ body: z.string() }).optional(),
  /** A tap on a button of a template */
  button: z.object({ text: z.string() }).optional(),
});
const body = z.object({
  object: z.literal('whatsapp_business_account'),
  entry: z.array(z.object({ changes: z.array(z.unknown()).default([]) })),
});
const change = z.object({
  field: z.literal('messages'),
  value: z.object({ statuses: z.array(z.unknown()).default([]), messages: z.array(z.unknown()).default([]) }),
});

/**
 * Meta asks once whether this is our webhook: the answer is the challenge.
 * @throws WEBHOOK_FORGED
 */
export function whatsAppChallenge(url: string, verifyToken: string): string {
  const query = URL.parse(url)?.searchParams;
  const challenge = query?.get('hub.challenge') ?? '';
  const isOurs =
    query?.get('hub.mode') === 'subscribe' && sameSecret(query.get('hub.verify_token') ?? '', verifyToken);
  // It is sent back: nothing but what a challenge is made of
  if (!isOurs || !/^[\w.-]{1,200}$/.test(challenge)) forged();
  return challenge;
}

/** @throws WEBHOOK_FORGED, WEBHOOK_UNREADABLE */
export function readWhatsApp(
  { headers, body: text }: Callback,
  { appSecret, now }: { appSecret: string; now: number },
): Told {
  const expected = `sha256=${createHmac('sha256', appSecret).update(text).digest('hex')}`;
  if (!sameSecret(headers[whatsAppSignatureHeader] ?? '', expected)) forged();
  const parsed = body.safeParse(jsonOf(text));
  if (!parsed.success) unreadable();
  const values = parsed.data.entry.flatMap(({ changes }) =>
    readable(change, changes).map(({ value }) => value),
  );
  return told({
    receipts: values
      .flatMap(({ statuses }) => readable(status, statuses))
      .flatMap((each) =>
        receipt({
          provider: 'whatsapp',
          providerMessageId: each.id,
          state: states.get(each.status),
          code: each.errors[0] && String(each.errors[0].code),
          at: notAhead(each.timestamp * 1000, now),
          notificationId: each.biz_opaque_callback_data,
        }),
      ),
    optOuts: values
      .flatMap(({ messages }) => readable(message, messages))
      .flatMap(({ from, text: written, button }) => {
        const phone = e164Of(from);
        const optedOut = wantsOut(written?.body ?? button?.text ?? '');
        if (phone === undefined || optedOut === undefined) return [];
        return [{ channel: 'whatsapp' as const, phone, optedOut, provider: 'whatsapp' as const }];
      }),
  });
}
