/**
 * What Twilio answers at `/2010-04-01/Accounts/{Sid}/Messages.json` (`POST` sends, `GET` lists) and at `/Messages/{Sid}.json`
 * (`GET` shows one), and what it tells our webhooks.
 *
 * Sources of the formats:
 * - parameters, filters and the message resource: https://www.twilio.com/docs/messaging/api/message-resource
 * - pages: https://www.twilio.com/docs/usage/twilios-response#response-formats-list-paging-information
 * - recipients that always fail: https://www.twilio.com/docs/iam/test-credentials#test-sms-messages
 * - `accepted`, `from: null` and `num_segments: "0"` for a messaging service: Twilio's help article "Why does
 *   Twilio's response show num_segments as 0 when I send SMS using a Messaging Service?"
 * - status callbacks: https://www.twilio.com/docs/messaging/guides/track-outbound-message-status
 * - messages from people: https://www.twilio.com/docs/messaging/guides/webhook-request; who sent STOP gets nothing more (21610)
 *   until START: https://help.twilio.com/articles/223134027
 */
import { countSegments } from '../providers/segments.ts';
import type { Fate } from './outbox.ts';
import type { Protocol, ProviderReply, ProviderRequest } from './protocol.ts';
import { Recent } from './recent.ts';
import {
  isE164,
  isTwilioPath,
  newSid,
  rfc2822,
  TWILIO_API,
  type TwilioAccount,
  twilioCallback,
  twilioError,
  twilioFailures,
  twilioResource,
  whyNotServed,
} from './twilio-account.ts';

const MAX_BODY_CHARACTERS = 1600;
const DEFAULT_PAGE_SIZE = 50;
const MAX_PAGE_SIZE = 1000;

/** Twilio's test recipients that fail in a fixed way, so that a person can try a failure by hand. */
const FAILING_RECIPIENTS = new Map([
  ['+15005550001', 21211],
  ['+15005550002', 21612],
  ['+15005550003', 21408],
  ['+15005550004', 21610],
  ['+15005550009', 21614],
]);

interface NewMessage {
  to: string;
  text: string;
  from: string | null;
  messagingServiceSid: string | null;
}

/** A message as it is kept; its resource is made when somebody asks for it. */
interface Message extends NewMessage {
  sid: string;
  createdAt: Date;
  status: string;
  sentAt?: Date;
  errorCode?: number;
}

/** Twilio's default words (https://help.twilio.com/articles/223134027). */
const STOP_WORDS = new Set(['STOP', 'STOPALL', 'UNSUBSCRIBE', 'CANCEL', 'END', 'QUIT', 'REVOKE', 'OPTOUT']);
const START_WORDS = new Set(['START', 'UNSTOP', 'YES']);

const INBOUND_PATH = '/api/v1/webhooks/twilio/inbound';
const UNSUBSCRIBED = 21610;

/** Messages of one account, the newest `maxMessages` of which can be listed. */
export function twilioMessages(account: TwilioAccount, maxMessages: number): Protocol {
  const resource = twilioResource(account, 'Messages', true);
  const messages = new Recent<Message>(maxMessages, ({ to }) => to);
  const bySid = new Recent<Message>(maxMessages, ({ sid }) => sid);
  const unsubscribed = new Set<string>();
  const known = (sid: string) => bySid.newest(sid);

  function show(request: ProviderRequest, sid: string): ProviderReply {
    const notServed = whyNotServed(request, { ...resource, path: request.path });
    if (notServed) return notServed;
    const message = request.method === 'GET' ? known(sid) : undefined;
    return message ? { status: 200, body: resourceOf(message, account) } : twilioError(20404);
  }

  return {
    name: 'twilio',
    serves: (path) => isTwilioPath(path, false),
    answer(request, rejectWith) {
      const sid = /\/Messages\/(\w+)\.json$/.exec(request.path)?.[1];
      if (sid) return show(request, sid);
      const notServed = whyNotServed(request, resource);
      if (notServed) return notServed;
      if (request.method === 'GET') return list(messages, request, account);

      const form = new URLSearchParams(request.body);
      const message = readMessage(form);
      const callbackUrl = form.get('StatusCallback') ?? undefined;
      const refusal =
        whyRefused(message) ??
        (unsubscribed.has(message.to) ? UNSUBSCRIBED : undefined) ??
        (callbackUrl === undefined || URL.canParse(callbackUrl) ? undefined : 21609) ??
        rejectWith;
      if (refusal !== undefined) return twilioError(refusal);
      const taken: Message = {
        ...message,
        sid: newSid('SM'),
        createdAt: request.now,
        status: message.messagingServiceSid ? 'accepted' : 'queued',
      };
      messages.add(taken);
      bySid.add(taken);
      return {
        status: 201,
        body: resourceOf(taken, account),
        taken: [
          {
            id: taken.sid,
            channel: 'sms',
            to: taken.to,
            template: null,
            text: taken.text,
            ...(callbackUrl === undefined ? {} : { callbackUrl }),
          },
        ],
      };
    },
    moved({ message: { id }, state, code, at }) {
      const message = known(id);
      if (!message) return;
      message.status = statusOf(state);
      message.sentAt ??= at;
      if (code !== undefined) message.errorCode = Number(code);
    },
    callback({ message: { id, to, callbackUrl }, state, code }) {
      if (callbackUrl === undefined) return undefined;
      const status = statusOf(state);
      return twilioCallback(account, callbackUrl, {
        AccountSid: account.accountSid,
        ApiVersion: TWILIO_API,
        From: known(id)?.from ?? '',
        MessageSid: id,
        MessageStatus: status,
        SmsSid: id,
        SmsStatus: status,
        To: to,
        ...(code === undefined ? {} : { ErrorCode: String(code) }),
      });
    },
    inbound({ from, text }, base) {
      const word = text.trim().toUpperCase();
      const optOut = STOP_WORDS.has(word) ? 'STOP' : START_WORDS.has(word) ? 'START' : undefined;
      if (optOut === 'STOP') unsubscribed.add(from);
      if (optOut === 'START') unsubscribed.delete(from);
      const sid = newSid('SM');
      return twilioCallback(account, base + INBOUND_PATH, {
        AccountSid: account.accountSid,
        ApiVersion: TWILIO_API,
        Body: text,
        From: from,
        MessageSid: sid,
        NumMedia: '0',
        NumSegments: String(countSegments(text).segments),
        SmsMessageSid: sid,
        SmsSid: sid,
        SmsStatus: 'received',
        To: messages.newest(from)?.from ?? '+15005550006',
        ...(optOut ? { OptOutType: optOut } : {}),
      });
    },
    ...twilioFailures,
  };
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
  if (!isE164(to)) return 21211;
  if (!from && !messagingServiceSid) return 21603;
  if (!text) return 21602;
  if (text.length > MAX_BODY_CHARACTERS) return 21617;
  return FAILING_RECIPIENTS.get(to);
}

/** Twilio's word for it: a message that its network gave up is `undelivered`. */
function statusOf(state: Fate): string {
  return state === 'failed' ? 'undelivered' : state;
}

/** One page, newest first. Filters by DateSent leave nothing, as they do for what has just been sent. */
function list(
  messages: Recent<Message>,
  { path, query }: ProviderRequest,
  account: TwilioAccount,
): ProviderReply {
  const pageSize = Number(query.get('PageSize') ?? DEFAULT_PAGE_SIZE);
  if (!Number.isInteger(pageSize) || pageSize < 1 || pageSize > MAX_PAGE_SIZE) return twilioError(20001);
  const from = query.get('From');
  const bySentDate = [...query.keys()].some((key) => key.startsWith('DateSent'));
  const page: Message[] = [];
  for (const message of bySentDate ? [] : messages.newestFirst(query.get('To') ?? undefined)) {
    if (page.length >= pageSize) break;
    if (from === null || message.from === from) page.push(message);
  }
  const uri = `${path}?${query.toString()}`;
  return {
    status: 200,
    body: {
      messages: page.map((message) => resourceOf(message, account)),
      first_page_uri: uri,
      next_page_uri: null,
      previous_page_uri: null,
      page: 0,
      page_size: pageSize,
      start: 0,
      end: Math.max(0, page.length - 1),
      uri,
    },
  };
}

function resourceOf(message: Message, { accountSid }: TwilioAccount): Record<string, unknown> {
  const { sid, to, text, from, messagingServiceSid, createdAt, status, sentAt, errorCode = null } = message;
  const messagePath = `/${TWILIO_API}/Accounts/${accountSid}/Messages/${sid}`;
  const date = rfc2822(createdAt);
  return {
    account_sid: accountSid,
    api_version: TWILIO_API,
    body: text,
    date_created: date,
    date_sent: sentAt ? rfc2822(sentAt) : null,
    date_updated: sentAt ? rfc2822(sentAt) : date,
    direction: 'outbound-api',
    error_code: errorCode,
    error_message: null,
    // A messaging service picks the sender, and so the segments, only later.
    from: messagingServiceSid ? null : from,
    messaging_service_sid: messagingServiceSid,
    num_media: '0',
    num_segments: messagingServiceSid ? '0' : String(countSegments(text).segments),
    price: null,
    price_unit: 'USD',
    sid,
    status,
    subresource_uris: { media: `${messagePath}/Media.json` },
    to,
    uri: `${messagePath}.json`,
  };
}
