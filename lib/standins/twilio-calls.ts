/**
 * What Twilio answers to `POST /2010-04-01/Accounts/{Sid}/Calls.json`.
 *
 * Sources of the formats:
 * - parameters and the call resource: https://www.twilio.com/docs/voice/api/call-resource
 * - recipients and callers that always fail: https://www.twilio.com/docs/iam/test-credentials#test-calls
 * - the size of TwiML: https://www.twilio.com/docs/api/errors/32018
 *
 * Like Twilio it takes TwiML that is none; such a call says nothing. A `Url` is never fetched.
 */
import type { Protocol } from './protocol.ts';
import {
  isE164,
  isTwilioPath,
  newSid,
  rfc2822,
  TWILIO_API,
  type TwilioAccount,
  twilioError,
  twilioFailures,
  twilioResource,
  whyNotServed,
} from './twilio-account.ts';

const MAX_TWIML_CHARACTERS = 4000;

const FAILING_RECIPIENTS = new Map([
  ['+15005550001', 21217],
  ['+15005550002', 21214],
  ['+15005550003', 21215],
  ['+15005550004', 21216],
]);
const FAILING_CALLER = '+15005550001';

const ENTITIES: Record<string, string> = { amp: '&', lt: '<', gt: '>', quot: '"', apos: "'" };

/** Calls of one account. */
export function twilioCalls(account: TwilioAccount): Protocol {
  const resource = twilioResource(account, 'Calls', false);
  return {
    name: 'twilio-voice',
    serves: (path) => isTwilioPath(path, true),
    answer(request, rejectWith) {
      const notServed = whyNotServed(request, resource);
      if (notServed) return notServed;

      const form = new URLSearchParams(request.body);
      const refusal = whyRefused(form) ?? rejectWith;
      if (refusal !== undefined) return twilioError(refusal);
      const sid = newSid('CA');
      const [to, from] = [form.get('To') ?? '', form.get('From') ?? ''];
      return {
        status: 201,
        body: resourceOf({ sid, to, from, at: request.now }, account),
        taken: [{ id: sid, channel: 'call', to, template: null, text: spoken(form.get('Twiml') ?? '') }],
      };
    },
    ...twilioFailures,
  };
}

function whyRefused(form: URLSearchParams): number | undefined {
  const [to, from, twiml] = [form.get('To'), form.get('From'), form.get('Twiml')];
  if (!to) return 21201;
  if (!isE164(to)) return 21211;
  if (!from) return 21213;
  if (!isE164(from) || from === FAILING_CALLER) return 21212;
  if (!twiml && !form.get('Url') && !form.get('ApplicationSid')) return 21205;
  if (twiml && twiml.length > MAX_TWIML_CHARACTERS) return 32018;
  return FAILING_RECIPIENTS.get(to);
}

/** What the call says once, without the markup. */
function spoken(twiml: string): string {
  return [...twiml.matchAll(/<Say\b[^>]*>([^<]*)<\/Say>/g)]
    .map(([, text = '']) => text.replace(/&(\w+);/g, (entity, name: string) => ENTITIES[name] ?? entity))
    .join(' ');
}

function resourceOf(
  { sid, to, from, at }: { sid: string; to: string; from: string; at: Date },
  { accountSid }: TwilioAccount,
): Record<string, unknown> {
  const callPath = `/${TWILIO_API}/Accounts/${accountSid}/Calls/${sid}`;
  return {
    account_sid: accountSid,
    annotation: null,
    answered_by: null,
    api_version: TWILIO_API,
    caller_name: null,
    date_created: rfc2822(at),
    date_updated: rfc2822(at),
    direction: 'outbound-api',
    duration: null,
    end_time: null,
    forwarded_from: null,
    from,
    from_formatted: from,
    group_sid: null,
    parent_call_sid: null,
    phone_number_sid: `PN${'0'.repeat(32)}`,
    price: null,
    price_unit: 'USD',
    queue_time: '0',
    sid,
    start_time: null,
    status: 'queued',
    subresource_uris: { notifications: `${callPath}/Notifications.json` },
    to,
    to_formatted: to,
    trunk_sid: null,
    uri: `${callPath}.json`,
  };
}
