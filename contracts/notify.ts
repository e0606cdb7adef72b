import { z } from 'zod';
import { epochMs, isoTime, mayRefuse, nothing, readAgainMs, userId } from './common.ts';

/** What carries a message to a person. */
export const channel = z.enum(['push', 'whatsapp', 'sms', 'email']);

/** How far a message has come, as its provider tells it. A later state never gives way to an earlier one. */
const deliveryState = z.enum(['accepted', 'sent', 'delivered', 'read', 'failed']);

export const providerName = z.enum(['twilio', 'msg91', 'whatsapp', 'sendgrid', 'ses', 'fcm']);

const notificationId = z.string().regex(/^ntf_[\w-]{1,60}$/, 'must be the id of a notification');

const e164 = z.string().regex(/^\+[1-9]\d{6,14}$/, 'must be a number in E.164');
const email = z.email().max(254);

/** `high`: what somebody waits for. OTP and SOS go before all of it, whatever it says. */
const priority = z.enum(['high', 'normal', 'low']);

/** How a notification stands. The last four are its ends. */
export const notificationStatus = z.enum([
  'queued',
  /** A provider has taken it; nobody has said yet that it arrived. */
  'sent',
  'delivered',
  /** Every way was tried, or none is open. */
  'failed',
  'expired',
  /** A provider has taken it, and nobody will say whether it arrived. */
  'unconfirmed',
]);

/** One message handed, or to be handed, to one provider. */
const attempt = z.object({
  channel,
  provider: providerName,
  state: z.enum(['sending', ...deliveryState.options]),
  /** The provider's own, where it failed. */
  code: z.string().optional(),
  /** When it was begun, and when it last changed. */
  at: isoTime,
  changedAt: isoTime,
});

export const notify = {
  description: 'Messages to people: push, WhatsApp, SMS, email.',
  actions: {
    /**
     * Takes a notification. Answered once it is in Redis: it will be sent, or its failure is recorded, logged and counted.
     * To a user: channels, language, quiet hours by their preferences; to an address: in English, on the channels named.
     */
    send: {
      errors: mayRefuse(
        'TEMPLATE_UNKNOWN',
        'TEMPLATE_VARIABLE_MISSING',
        'TEMPLATE_VARIABLE_INVALID',
        'TEMPLATE_TOO_LONG',
      ),
      params: z.object({
        to: z.union([z.strictObject({ userId }), z.strictObject({ phone: e164 }), z.strictObject({ email })]),
        /** A template's name; the newest version is taken, and kept while it waits. */
        template: z.string().min(1).max(64),
        data: z.record(z.string().max(64), z.string().max(2000)).default({}),
        priority: priority.default('normal'),
        /** The same key is one notification, for a day at least; the same id is answered. */
        idempotencyKey: z.string().min(1).max(200),
        /** ms after which it is no longer worth sending. */
        expiresInMs: z
          .number()
          .int()
          .positive()
          .max(7 * 86_400_000),
        /** Not before this, ms since the epoch. */
        sendAt: epochMs.optional(),
        /** Only these, in this order; for a user those of the preferences are left. A number's is SMS, if left out. */
        channels: z.array(channel).min(1).max(4).optional(),
      }),
      result: z.object({ notificationId }),
    },
    /**
     * What providers tell of messages, in any order, twice or late: states only move forward. Answered once it is in Redis; a receipt
     * that comes before we have recorded the message it is about is kept for it.
     */
    receipts: {
      params: z.object({
        receipts: z
          .array(
            z.object({
              provider: providerName,
              providerMessageId: z.string().min(1).max(200),
              state: deliveryState,
              /** The provider's own, where it failed. */
              code: z.string().max(64).optional(),
              /** When it happened, as far as the provider says. */
              at: epochMs,
              /** Where the provider gives back what it was given. */
              notificationId: z.string().max(64).optional(),
            }),
          )
          .max(1000),
      }),
      result: nothing,
    },
    ack: {
      summary: 'The app has shown this push message. Without it an urgent one is sent by SMS too.',
      errors: mayRefuse('NOTIFICATION_NOT_FOUND'),
      params: z.object({ id: notificationId }),
      result: nothing,
    },
    /** Somebody asked by message not to be written to on a channel any more, or to be again (STOP, START). */
    optOut: {
      params: z.object({
        channel: z.enum(['sms', 'whatsapp']),
        phone: e164,
        optedOut: z.boolean(),
        provider: providerName,
      }),
      result: nothing,
    },
    /** An address that does not exist, or whose owner complained: nothing more goes there. */
    suppress: {
      params: z.object({ email, reason: z.enum(['bounce', 'complaint']) }),
      result: nothing,
    },
  },
  events: {},
};

/** What became of a notification: not what it said, nor to whom it went. */
export const loggedNotification = z
  .object({
    id: notificationId,
    template: z.string().describe('With its version'),
    priority: z.enum(['otp', ...priority.options]).describe('Sign-in codes go before all others'),
    userId: userId.nullable().describe('Null: to an address that is no user'),
    status: notificationStatus,
    reason: z.string().nullable().describe('Why it ended as it did'),
    waitsFor: z.string().nullable(),
    waitsUntil: isoTime.nullable(),
    attempts: z.array(attempt),
    createdAt: isoTime,
    expiresAt: isoTime,
    endedAt: isoTime.nullable(),
  })
  .meta({ id: 'Notification' });
export type LoggedNotification = z.infer<typeof loggedNotification>;

export const notifyLog = {
  description: 'What became of each message to a person.',
  actions: {
    get: {
      summary: 'A notification with every attempt to deliver it, for support. Kept for 90 days.',
      errors: mayRefuse('NOTIFICATION_NOT_FOUND'),
      params: z.object({ id: notificationId }),
      result: loggedNotification,
      repeatAfterMs: readAgainMs,
    },
  },
  events: {},
};
