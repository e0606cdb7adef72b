/**
 * What all of Twilio's REST resources have in common: basic authentication and the error body.
 *
 * Sources: https://www.twilio.com/docs/usage/twilios-response, https://www.twilio.com/docs/iam/api-keys/keys-in-console,
 * https://www.twilio.com/docs/api/errors and https://www.twilio.com/docs/usage/security (signed requests to us)
 */
import { createHmac, randomUUID } from 'node:crypto';
import type { Callback, ProviderReply, ProviderRequest } from './protocol.ts';

/** The one account that the simulated Twilio knows. */
export interface TwilioAccount {
  accountSid: string;
  authToken: string;
}

export const TWILIO_API = '2010-04-01';
const TWILIO_PATH = `/${TWILIO_API}/Accounts/`;

/** Status (400 unless given) and text of the codes we answer with; others get a general text. */
const ERRORS: Record<number, { status?: number; message: string }> = {
  20003: { status: 401, message: 'Authenticate' },
  20004: { status: 405, message: 'Method not allowed' },
  20404: { status: 404, message: 'The requested resource was not found' },
  20429: { status: 429, message: 'Too Many Requests' },
  20500: { status: 500, message: 'An internal server error has occurred' },
  21201: { message: "No 'To' number is specified" },
  21205: { message: "Url parameter is required; none of 'Url', 'Twiml' and 'ApplicationSid' was given" },
  21211: { message: "Invalid 'To' Phone Number" },
  21212: { message: "Invalid 'From' Phone Number" },
  21213: { message: "No 'From' number is specified" },
  21214: { message: "'To' phone number cannot be reached" },
  21215: { message: 'Account not authorized to call this phone number' },
  21216: { message: 'Account not allowed to call this phone number' },
  21217: { message: 'Phone number does not appear to be valid' },
  21408: { message: "Permission to send an SMS has not been enabled for the region of 'To'" },
  21602: { message: 'A text message body or media urls must be specified.' },
  21603: { message: "A 'From' phone number is required." },
  21604: { message: "A 'To' phone number is required." },
  21609: { message: "Invalid 'StatusCallback' url" },
  21610: { message: 'Attempt to send to unsubscribed recipient' },
  21611: { message: "This 'From' number has exceeded the maximum number of queued messages" },
  21612: { message: "The message cannot be sent with the current combination of 'To' and 'From'" },
  21614: { message: "'To' number is not a valid mobile number" },
  21617: { message: 'The concatenated message body exceeds the 1600 character limit.' },
  32018: { message: 'Twiml size exceeded maximum allowed value of 4000 characters' },
};

/** A form that cannot be read; Twilio's code for an invalid parameter. */
const UNREADABLE = 20001;
const E164 = /^\+[1-9]\d{1,14}$/;

/** Twilio's error body for a code of its, with the status that goes with the code. */
export function twilioError(code: number | string): ProviderReply {
  const { status = 400, message = `Refused with code ${code}` } = ERRORS[Number(code)] ?? {};
  return {
    status,
    body: { code: Number(code), message, more_info: `https://www.twilio.com/docs/errors/${code}`, status },
  };
}

/** Why Twilio does not look at a request for `resource` at all; undefined when it does. */
export function whyNotServed(
  { headers, path, method }: ProviderRequest,
  resource: TwilioResource,
): ProviderReply | undefined {
  const { authorization, 'content-type': contentType } = headers;
  if (authorization !== resource.authorization) return twilioError(20003);
  if (path !== resource.path) return twilioError(20404);
  if (method !== 'POST' && !(method === 'GET' && resource.readable)) return twilioError(20004);
  const isForm = contentType?.startsWith('application/x-www-form-urlencoded');
  return method === 'POST' && !isForm ? twilioError(UNREADABLE) : undefined;
}

/** Where one kind of thing is found (`Messages`), and with what credentials. */
export interface TwilioResource {
  authorization: string;
  path: string;
  readable: boolean;
}

export function twilioResource(
  { accountSid, authToken }: TwilioAccount,
  name: string,
  readable: boolean,
): TwilioResource {
  return {
    authorization: `Basic ${Buffer.from(`${accountSid}:${authToken}`).toString('base64')}`,
    path: `${TWILIO_PATH}${accountSid}/${name}.json`,
    readable,
  };
}

/** Whether a path is Twilio's: calls go to its voice, everything else to messaging. */
export function isTwilioPath(path: string, voice: boolean): boolean {
  return path.startsWith(`/${TWILIO_API}/`) && /\/Calls\b/.test(path) === voice;
}

/** An id of Twilio's: what it is of in two letters, then 32 hex digits. (Random UUIDs come cheaper than bytes.) */
export function newSid(prefix: string): string {
  return prefix + randomUUID().replaceAll('-', '');
}

export function isE164(number: string): boolean {
  return E164.test(number);
}

/** The answers that all its resources give alike. */
export const twilioFailures = {
  unreadable: () => twilioError(UNREADABLE),
  tooMany: () => twilioError(20429),
  broken: () => twilioError(20500),
};

/** RFC 2822 with a numeric zone, as Twilio writes it: `Thu, 05 Sep 2019 00:45:02 +0000`. */
export function rfc2822(date: Date): string {
  return date.toUTCString().replace('GMT', '+0000');
}

/**
 * The signature of a request of Twilio's to us: over the URL as we gave it, and each field's name and value after it, by name.
 */
export function twilioSignature(authToken: string, url: string, fields: Record<string, string>): string {
  const signed = Object.keys(fields)
    .toSorted()
    .reduce((text, name) => text + name + (fields[name] ?? ''), url);
  return createHmac('sha1', authToken).update(signed).digest('base64');
}

/** A signed request of Twilio's to us. */
export function twilioCallback(
  { authToken }: TwilioAccount,
  url: string,
  fields: Record<string, string>,
): Callback {
  return {
    url,
    headers: {
      'Content-Type': 'application/x-www-form-urlencoded; charset=UTF-8',
      'User-Agent': 'TwilioProxy/1.1',
      'I-Twilio-Idempotency-Token': randomUUID(),
      'X-Twilio-Signature': twilioSignature(authToken, url, fields),
    },
    body: new URLSearchParams(fields).toString(),
  };
}
