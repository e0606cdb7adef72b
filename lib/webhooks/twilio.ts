/**
 * Twilio's callbacks. Twilio repeats none that was answered, whatever the answer: what is lost is asked for later.
 *
 * Sources: https://www.twilio.com/docs/usage/security#validating-requests (the signature),
 * https://www.twilio.com/docs/messaging/guides/track-outbound-message-status and
 * https://www.twilio.com/docs/messaging/guides/webhook-request (the fields)
 */
import twilio from 'twilio';
import {
  type Callback,
  e164Of,
  forged,
  type Receipt,
  receipt,
  type Told,
  told,
  unreadable,
  wantsOut,
} from './callback.ts';

export const twilioSignatureHeader = 'x-twilio-signature';

/** Twilio's words for how far a message has come. What is not there, such as `receiving`, is of no message of ours. */
const states = new Map<string, Receipt['state']>([
  ['accepted', 'accepted'],
  ['scheduled', 'accepted'],
  ['queued', 'accepted'],
  ['sending', 'accepted'],
  ['sent', 'sent'],
  ['delivered', 'delivered'],
  ['read', 'read'],
  ['undelivered', 'failed'],
  ['failed', 'failed'],
  ['canceled', 'failed'],
]);

/**
 * The signed form of a callback. The signature is over the URL that Twilio called, with its query, and the fields.
 * @throws WEBHOOK_FORGED
 */
function verified({ url, headers, body }: Callback, authToken: string): URLSearchParams {
  const form = new URLSearchParams(body);
  const fields = Object.create(null) as Record<string, string | string[]>;
  for (const name of new Set(form.keys())) {
    const values = form.getAll(name);
    fields[name] = values.length === 1 ? (values[0] ?? '') : values;
  }
  const signature = headers[twilioSignatureHeader] ?? '';
  if (!URL.canParse(url) || !twilio.validateRequest(authToken, signature, url, fields)) forged();
  return form;
}

/** A status callback. @throws WEBHOOK_FORGED, WEBHOOK_UNREADABLE */
export function readTwilioStatus(callback: Callback, options: { authToken: string; now: number }): Told {
  const form = verified(callback, options.authToken);
  const id = form.get('MessageSid') ?? form.get('SmsSid') ?? '';
  const status = form.get('MessageStatus') ?? form.get('SmsStatus') ?? '';
  if (!/^[SM]M[0-9a-f]{32}$/i.test(id)) unreadable();
  return told({
    receipts: receipt({
      provider: 'twilio',
      providerMessageId: id,
      state: states.get(status),
      code: form.get('ErrorCode') ?? undefined,
      at: options.now,
    }),
  });
}

/** A text that somebody sent to our number: Twilio's own judgement counts, where it gives one. @throws WEBHOOK_FORGED */
export function readTwilioInbound(callback: Callback, options: { authToken: string }): Told {
  const form = verified(callback, options.authToken);
  const type = form.get('OptOutType')?.toUpperCase();
  const optedOut = type === 'STOP' ? true : type === 'START' ? false : wantsOut(form.get('Body') ?? '');
  const phone = e164Of(form.get('From') ?? '');
  if (optedOut === undefined || phone === undefined) return told();
  return told({ optOuts: [{ channel: 'sms', phone, optedOut, provider: 'twilio' }] });
}
