import type { DeliveryState } from './provider.ts';
import { ProviderError } from './provider-error.ts';
import type { SmsProvider } from './sms.ts';
import type { TwilioAccountOptions } from './twilio-client.ts';
import { createTwilioClient } from './twilio-client.ts';

/**
 * One of `from` (E.164 or a sender id) and `messagingServiceSid` is needed. `statusCallback` is the URL that Twilio tells of
 * each message's states; without it Twilio tells of none.
 */
export interface TwilioSmsOptions extends TwilioAccountOptions {
  from?: string;
  messagingServiceSid?: string;
  statusCallback?: string;
}

const PROVIDER = 'twilio';

/** Messages to one number that are looked through, newest first: a page of Twilio's. */
const LOOKED_THROUGH = 50;

/** Twilio's states of a message. In the failed ones it has given the message up: it has to be sent again. */
const STATES: Readonly<Record<string, DeliveryState>> = {
  accepted: 'accepted',
  scheduled: 'accepted',
  queued: 'accepted',
  sending: 'accepted',
  sent: 'sent',
  delivered: 'delivered',
  read: 'read',
  failed: 'failed',
  undelivered: 'failed',
  canceled: 'failed',
};

/** Twilio's `The requested resource was not found`. */
const NOT_FOUND = '20404';

/**
 * An SMS adapter over Twilio's own client. Throws when no sender is given or the account SID is not one.
 *
 * Sources: https://www.twilio.com/docs/messaging/api/message-resource (create, fetch, read multiple, status values)
 */
export function createTwilioSms(options: TwilioSmsOptions): SmsProvider {
  const sender = senderOf(options);
  const twilio = createTwilioClient(PROVIDER, options);
  const callback = options.statusCallback ? { statusCallback: options.statusCallback } : {};

  return {
    name: PROVIDER,
    channel: 'sms',
    async send({ to, body }, callOptions) {
      const { sid } = await twilio.call(callOptions, (client) =>
        client.messages.create({ to, body, ...sender, ...callback }),
      );
      if (!sid) throw new ProviderError({ provider: PROVIDER, code: 'NO_SID', permanent: false });
      return { providerMessageId: sid };
    },
    async deliveryOf(sid, callOptions) {
      try {
        const { status, errorCode } = await twilio.call(callOptions, (client) =>
          client.messages(sid).fetch(),
        );
        return {
          state: STATES[status] ?? 'accepted',
          ...(errorCode ? { code: String(errorCode) } : {}),
        };
      } catch (error) {
        if (error instanceof ProviderError && error.code === NOT_FOUND) return null;
        throw error;
      }
    },
    async findSent({ to, body, since }, callOptions) {
      // Not by Twilio's DateSent filter: a message that is still queued has no such date, and is the one we look for.
      const messages = await twilio.call(callOptions, (client) =>
        client.messages.list({ to, pageSize: LOOKED_THROUGH, limit: LOOKED_THROUGH }),
      );
      const found = messages.find(
        (message) =>
          message.body === body &&
          STATES[message.status] !== 'failed' &&
          message.dateCreated.getTime() >= wholeSecond(since),
      );
      return found ? { providerMessageId: found.sid } : null;
    },
  };
}

/** Twilio's dates have no fractions. */
function wholeSecond(ms: number): number {
  return Math.floor(ms / 1000) * 1000;
}

function senderOf({ from, messagingServiceSid }: TwilioSmsOptions) {
  if (messagingServiceSid) return { messagingServiceSid };
  if (from) return { from };
  throw new Error('Twilio needs a sender: set from or messagingServiceSid');
}
