import { ProviderError } from './provider-error.ts';
import type { SmsProvider } from './sms.ts';
import type { TwilioAccountOptions } from './twilio-client.ts';
import { createTwilioClient } from './twilio-client.ts';

/** One of `from` (E.164 or a sender id) and `messagingServiceSid` is needed. */
export interface TwilioSmsOptions extends TwilioAccountOptions {
  from?: string;
  messagingServiceSid?: string;
}

const PROVIDER = 'twilio';

/** Messages to one number that are looked through, newest first: a page of Twilio's. */
const LOOKED_THROUGH = 50;

/** States in which Twilio has given a message up: it has to be sent again. */
const GIVEN_UP = new Set(['failed', 'undelivered', 'canceled']);

/**
 * An SMS adapter over Twilio's own client. Throws when no sender is given or the account SID is not one.
 *
 * Source: https://www.twilio.com/docs/messaging/api/message-resource (create, and read multiple)
 */
export function createTwilioSms(options: TwilioSmsOptions): SmsProvider {
  const sender = senderOf(options);
  const twilio = createTwilioClient(PROVIDER, options);

  return {
    name: PROVIDER,
    async send({ to, body }, callOptions) {
      const { sid } = await twilio.call(callOptions, (client) =>
        client.messages.create({ to, body, ...sender }),
      );
      if (!sid) throw new ProviderError({ provider: PROVIDER, code: 'NO_SID', permanent: false });
      return { providerMessageId: sid };
    },
    async findSent({ to, body, since }, callOptions) {
      // Not by Twilio's DateSent filter: a message that is still queued has no such date, and is the one we look for.
      const messages = await twilio.call(callOptions, (client) =>
        client.messages.list({ to, pageSize: LOOKED_THROUGH, limit: LOOKED_THROUGH }),
      );
      const found = messages.find(
        (message) =>
          message.body === body &&
          !GIVEN_UP.has(message.status) &&
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
