/**
 * What Amazon SES tells by SNS: events of a configuration set, or feedback of an identity.
 *
 * Sources: https://docs.aws.amazon.com/ses/latest/dg/event-publishing-retrieving-sns-contents.html and
 * https://docs.aws.amazon.com/ses/latest/dg/notification-contents.html
 */
import { z } from 'zod';
import {
  jsonOf,
  notAhead,
  type Receipt,
  receipt,
  type Suppression,
  type Told,
  told,
  unreadable,
} from './callback.ts';
import type { SnsMessage } from './sns.ts';

const recipients = z.array(z.object({ emailAddress: z.string(), status: z.string().optional() }));
const event = z.object({
  eventType: z.string().optional(),
  notificationType: z.string().optional(),
  mail: z.object({
    messageId: z.string(),
    tags: z.record(z.string(), z.array(z.string())).default({}),
  }),
  bounce: z
    .object({ bounceType: z.string(), bouncedRecipients: recipients, timestamp: z.string() })
    .optional(),
  complaint: z.object({ complainedRecipients: recipients, timestamp: z.string() }).optional(),
  delivery: z.object({ timestamp: z.string() }).optional(),
  reject: z.object({ reason: z.string() }).optional(),
});

const states = new Map<string, Receipt['state']>([
  ['Send', 'sent'],
  ['Delivery', 'delivered'],
  ['Open', 'read'],
  ['Click', 'read'],
  ['Bounce', 'failed'],
  ['Reject', 'failed'],
  ['Rendering Failure', 'failed'],
]);

/** An address as it stands in a bounce: `<a@b.c>`, `Asha <a@b.c>` or bare. */
const addressIn = (text: string): string => /<([^<>]+)>\s*$/.exec(text)?.[1] ?? text;

const suppressionsOf = (those: z.output<typeof recipients>, reason: Suppression['reason']): Suppression[] =>
  those
    .map(({ emailAddress }) => addressIn(emailAddress))
    .filter((email) => z.email().max(254).safeParse(email).success)
    .map((email) => ({ email, reason }));

/** A message that is known to be from SNS and of our topic. @throws WEBHOOK_UNREADABLE */
export function readSes(
  { Message, Timestamp }: Pick<SnsMessage, 'Message' | 'Timestamp'>,
  now: number,
): Told {
  // SNS tries a new subscription with a sentence
  if (Message.startsWith('Successfully validated SNS topic')) return told();
  const parsed = event.safeParse(jsonOf(Message));
  if (!parsed.success) unreadable();
  const { eventType, notificationType, mail, bounce, complaint, delivery } = parsed.data;
  const kind = eventType ?? notificationType ?? '';
  const state = states.get(kind);
  const at = Date.parse((bounce ?? complaint ?? delivery)?.timestamp ?? Timestamp);
  return told({
    receipts: receipt({
      provider: 'ses',
      providerMessageId: mail.messageId,
      state,
      code:
        state === 'failed' ? (bounce?.bouncedRecipients[0]?.status ?? bounce?.bounceType ?? kind) : undefined,
      at: notAhead(at, now),
      notificationId: mail.tags['notificationId']?.[0],
    }),
    suppressions: [
      // A mailbox that is full today may take mail tomorrow
      ...(bounce?.bounceType === 'Permanent' ? suppressionsOf(bounce.bouncedRecipients, 'bounce') : []),
      ...(complaint ? suppressionsOf(complaint.complainedRecipients, 'complaint') : []),
    ],
  });
}
