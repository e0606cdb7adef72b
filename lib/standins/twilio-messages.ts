/**
 * What Twilio answers to `POST /2010-04-01/Accounts/{Sid}/Messages.json`, as a pure function of the request.
 *
 * Sources of the formats:
 * - parameters and the message resource: https://www.twilio.com/docs/messaging/api/message-resource
 * - basic authentication and the error body: https://www.twilio.com/docs/usage/twilios-response and
 *   https://www.twilio.com/docs/iam/api-keys/keys-in-console
 * - error codes: https://www.twilio.com/docs/api/errors
 * - recipients that always fail: https://www.twilio.com/docs/iam/test-credentials#test-sms-messages
 * - `accepted`, `from: null` and `num_segments: "0"` for a messaging service: Twilio's help article "Why does
 *   Twilio's response show num_segments as 0 when I send SMS using a Messaging Service?"
 */
import { randomBytes } from 'node:crypto';
import { countSegments } from '../providers/segments.ts';

/** The one account that the simulated Twilio knows. */
export interface TwilioAccount {
  accountSid: string;
  authToken: string;
}

/** The parts of an HTTP request that Twilio's answer depends on. `body` is the raw form. */
export interface TwilioRequest {
  method: string;
  path: string;
  authorization: string | undefined;
  contentType: string | undefined;
  body: string;
}

/** An answer to be sent as JSON; `taken` is the message when there is one. */
export interface TwilioReply {
  status: number;
  headers?: Record<string, string>;
  body: Record<string, unknown>;
  taken?: { id: string; to: string; text: string };
}

/** Where Twilio's part of the simulator begins. */
export const TWILIO_PATH = '/2010-04-01/';

const MAX_BODY_CHARACTERS = 1600;
const E164 = /^\+[1-9]\d{1,14}$/;

/** Status (400 unless given) and text of the codes we answer with; others get a general text. */
const ERRORS: Record<number, { status?: number; message: string }> = {
  20003: { status: 401, message: 'Authenticate' },
  20004: { status: 405, message: 'Method not allowed' },
  20404: { status: 404, message: 'The requested resource was not found' },
  20429: { status: 429, message: 'Too Many Requests' },
  20500: { status: 500, message: 'An internal server error has occurred' },
  21211: { message: "Invalid 'To' Phone Number" },
  21408: { message: "Permission to send an SMS has not been enabled for the region of 'To'" },
  21602: { message: 'A text message body or media urls must be specified.' },
  21603: { message: "A 'From' phone number is required." },
  21604: { message: "A 'To' phone number is required." },
  21610: { message: 'Attempt to send to unsubscribed recipient' },
  21611: { message: "This 'From' number has exceeded the maximum number of queued messages" },
  21612: { message: "The message cannot be sent with the current combination of 'To' and 'From'" },
  21614: { message: "'To' number is not a valid mobile number" },
  21617: { message: 'The concatenated message body exceeds the 1600 character limit.' },
};

/** A form that cannot be read; Twilio's code for an invalid parameter. */
const UNREADABLE = 20001;

/** Twilio's test recipients that fail in a fixed way, so that a person can try a failure by hand. */
const FAILING_RECIPIENTS = new Map([
  ['+15005550001', 21211],
  ['+15005550002', 21612],
  ['+15005550003', 21408],
  ['+15005550004', 21610],
  ['+15005550009', 21614],
]);

/** Answers one request. `rejectWith` refuses an otherwise valid message with that code. */
export function answerTwilio(
  request: TwilioRequest,
  account: TwilioAccount,
  now: Date,
  rejectWith?: number,
): TwilioReply {
  if (!isAuthentic(request.authorization, account)) return twilioError(20003);
  if (request.path !== `${TWILIO_PATH}Accounts/${account.accountSid}/Messages.json`)
    return twilioError(20404);
  if (request.method !== 'POST') return twilioError(20004);
  if (!request.contentType?.startsWith('application/x-www-form-urlencoded')) return twilioError(UNREADABLE);

  const message = readMessage(new URLSearchParams(request.body));
  const refusal = whyRefused(message) ?? rejectWith;
  return refusal === undefined ? taken(message, account, now) : twilioError(refusal);
}

/** Twilio's error body for a code of its, with the status that goes with the code. */
export function twilioError(code: number): TwilioReply {
  const { status = 400, message = `Refused with code ${code}` } = ERRORS[code] ?? {};
  return {
    status,
    body: { code, message, more_info: `https://www.twilio.com/docs/errors/${code}`, status },
  };
}

/** Twilio's error for a request that it could not read. */
export function twilioUnreadable(): TwilioReply {
  return twilioError(UNREADABLE);
}

interface NewMessage {
  to: string;
  text: string;
  from: string | null;
  messagingServiceSid: string | null;
}

function isAuthentic(authorization: string | undefined, { accountSid, authToken }: TwilioAccount): boolean {
  return authorization === `Basic ${Buffer.from(`${accountSid}:${authToken}`).toString('base64')}`;
}

function readMessage(form: URLSearchParams): NewMessage {
  return {
    to: form.get('To') ?? '',
    text: form.get('Body') ?? '',
    from: form.get('From') || null,
    messagingServiceSid: form.get('MessagingServiceSid') || null,
  };
}

function whyRefused({ to, text, from, messagingServiceSid }: NewMessage): number | undefined {
  if (!to) return 21604;
  if (!E164.test(to)) return 21211;
  if (!from && !messagingServiceSid) return 21603;
  if (!text) return 21602;
  if (text.length > MAX_BODY_CHARACTERS) return 21617;
  return FAILING_RECIPIENTS.get(to);
}

function taken(message: NewMessage, { accountSid }: TwilioAccount, now: Date): TwilioReply {
  const { to, text, from, messagingServiceSid } = message;
  const sid = `SM${randomBytes(16).toString('hex')}`;
  const messagePath = `${TWILIO_PATH}Accounts/${accountSid}/Messages/${sid}`;
  const date = rfc2822(now);
  return {
    status: 201,
    taken: { id: sid, to, text },
    body: {
      account_sid: accountSid,
      api_version: '2010-04-01',
      body: text,
      date_created: date,
      date_sent: null,
      date_updated: date,
      direction: 'outbound-api',
      error_code: null,
      error_message: null,
      // A messaging service picks the sender, and so the segments, only later.
      from: messagingServiceSid ? null : from,
      messaging_service_sid: messagingServiceSid,
      num_media: '0',
      num_segments: messagingServiceSid ? '0' : String(countSegments(text).segments),
      price: null,
      price_unit: 'USD',
      sid,
      status: messagingServiceSid ? 'accepted' : 'queued',
      subresource_uris: { media: `${messagePath}/Media.json` },
      to,
      uri: `${messagePath}.json`,
    },
  };
}

/** RFC 2822 with a numeric zone, as Twilio writes it: `Thu, 05 Sep 2019 00:45:02 +0000`. */
function rfc2822(date: Date): string {
  return date.toUTCString().replace('GMT', '+0000');
}
