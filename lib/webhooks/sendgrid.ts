/**
 * SendGrid's signed event webhook.
 *
 * Sources: https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/getting-started-event-webhook-security-features
 * (ECDSA on P-256 over SHA-256 of timestamp and raw body, as in @sendgrid/eventwebhook),
 * https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/event
 */
import { createPublicKey, createVerify } from 'node:crypto';
import { z } from 'zod';
import { AppError } from '../errors.ts';
import {
  type Callback,
  forged,
  jsonOf,
  notAhead,
  type Receipt,
  readable,
  receipt,
  type Suppression,
  type Told,
  told,
  unreadable,
} from './callback.ts';

export const sendGridSignatureHeader = 'x-twilio-email-event-webhook-signature';
const timestampHeader = 'x-twilio-email-event-webhook-timestamp';

/** SendGrid repeats what was not taken for a day, and does not say that it signs it anew. */
const oldestMs = 25 * 3_600_000;
const aheadMs = 5 * 60_000;

const event = z.object({
  email: z.string(),
  /** Seconds */
  timestamp: z.number(),
  event: z.string(),
  /** Begins with the X-Message-Id that the sender was answered. */
  sg_message_id: z.string(),
  /** Of a bounce: `blocked` may work again, `bounce` never will. */
  type: z.string().optional(),
  /** RFC 3463 */
  status: z.string().optional(),
  notificationId: z.string().optional(),
});
type Event = z.output<typeof event>;

const states = new Map<string, Receipt['state']>([
  ['processed', 'sent'],
  ['delivered', 'delivered'],
  ['open', 'read'],
  ['click', 'read'],
  ['bounce', 'failed'],
  ['dropped', 'failed'],
]);

function suppressionOf({ email, event: kind, type }: Event): Suppression[] {
  if (!z.email().max(254).safeParse(email).success) return [];
  if (kind === 'bounce' && type !== 'blocked') return [{ email, reason: 'bounce' }];
  return kind === 'spamreport' ? [{ email, reason: 'complaint' }] : [];
}

/** `publicKey` as SendGrid shows it: DER in base64. Throws where it is none. */
const sendGridKey = (publicKey: string) =>
  createPublicKey({ key: Buffer.from(publicKey, 'base64'), format: 'der', type: 'spki' });

/** @throws WEBHOOK_FORGED, WEBHOOK_TOO_OLD, WEBHOOK_UNREADABLE */
export function readSendGrid(
  { headers, body }: Callback,
  { publicKey, now }: { publicKey: string; now: number },
): Told {
  const timestamp = headers[timestampHeader] ?? '';
  const signature = Buffer.from(headers[sendGridSignatureHeader] ?? '', 'base64');
  if (
    !createVerify('sha256')
      .update(timestamp + body)
      .verify(sendGridKey(publicKey), signature)
  )
    forged();
  const age = now - Number(timestamp) * 1000;
  if (!(age <= oldestMs && age >= -aheadMs)) throw new AppError('WEBHOOK_TOO_OLD');
  const list = jsonOf(body);
  if (!Array.isArray(list)) unreadable();
  const events = readable(event, list);
  return told({
    receipts: events.flatMap((each) =>
      receipt({
        provider: 'sendgrid',
        providerMessageId: each.sg_message_id.split('.')[0] ?? '',
        state: states.get(each.event),
        code: states.get(each.event) === 'failed' ? (each.status ?? each.event) : undefined,
        at: notAhead(each.timestamp * 1000, now),
        notificationId: each.notificationId,
      }),
    ),
    suppressions: events.flatMap(suppressionOf),
  });
}
