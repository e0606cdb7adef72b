import { currentOf, type Secret } from '../secret.ts';
import type { JsonAnswer } from './http.ts';
import { createHttpClient, isPermanentStatus, postJson, trimSlashes } from './http.ts';
import { ProviderError } from './provider-error.ts';
import type { SmsProvider } from './sms.ts';

/** How to reach MSG91. `templates` has its id (24 hex digits) of each of our templates, by our name. */
export interface Msg91SmsOptions {
  authKey: Secret<string> | string;
  templates: Readonly<Record<string, string>>;
  /** The registered header that messages come from; by default the template's own. */
  senderId?: string;
  /** Replaces `https://control.msg91.com`, for a simulator or an egress proxy. */
  baseUrl?: string;
}

const PROVIDER = 'msg91';
const BASE_URL = 'https://control.msg91.com';

/**
 * Codes that a retry may cure: MSG91's own database or an internal error; and 311, the same request twice within 10 s,
 * which cannot say whether the first one was taken.
 */
const TRANSIENT_CODES = new Set(['001', '002', '311', '601']);

/**
 * An SMS adapter for MSG91's flow API, which sends templates that are registered with India's operators (DLT): what is
 * sent is the message's `template`, never its body. An error may come with status 200. MSG91 takes a template id that it
 * does not know and fails later, so ids are to be checked with a message to oneself.
 *
 * Sources: https://docs.msg91.com/sms/send-sms, https://api.msg91.com/apidoc/textsms/send-sms-flow.php and
 * MSG91's list of SMS API error codes (101 to 601)
 */
export function createMsg91Sms(options: Msg91SmsOptions): SmsProvider {
  const url = `${trimSlashes(options.baseUrl ?? BASE_URL)}/api/v5/flow`;
  const client = createHttpClient();
  return {
    name: PROVIDER,
    channel: 'sms',
    async send({ to, template }, callOptions) {
      const templateId = template && options.templates[template.name];
      if (!template || !templateId) {
        throw new ProviderError({ provider: PROVIDER, code: 'NO_TEMPLATE', permanent: true });
      }
      const body = {
        template_id: templateId,
        // Links stay as they are: MSG91's short ones would know who opens the map
        short_url: '0',
        ...(options.senderId ? { sender: options.senderId } : {}),
        recipients: [{ ...template.variables, mobiles: to.replace(/^\+/, '') }],
      };
      const answer = await postJson(
        PROVIDER,
        client,
        { url, headers: { authkey: currentOf(options.authKey) }, body },
        callOptions,
      );
      return { providerMessageId: requestIdOf(answer) };
    },
  };
}

function requestIdOf({ status, body, retryAfterMs }: JsonAnswer): string {
  const { type, message, code, apiError } = fieldsOf(body);
  const ok = status >= 200 && status < 300;
  if (ok && type === 'success' && message) return message;

  const ownCode = apiError ?? code ?? /\bcode:? *(\d{3})\b/i.exec(message ?? '')?.[1];
  // A 200 without success and without a code is tried again: twice beats never
  const permanent = ownCode
    ? (ok || isPermanentStatus(status)) && !TRANSIENT_CODES.has(ownCode)
    : isPermanentStatus(status);
  throw new ProviderError({
    provider: PROVIDER,
    code: ownCode ?? (ok ? 'NOT_TAKEN' : `HTTP_${status}`),
    permanent,
    status,
    retryAfterMs,
  });
}

/** The answer's fields, codes as text (they come as numbers too). */
function fieldsOf(body: unknown): Partial<Record<'type' | 'message' | 'code' | 'apiError', string>> {
  if (typeof body !== 'object' || body === null) return {};
  const fields: Partial<Record<string, string>> = {};
  for (const [key, value] of Object.entries(body)) {
    if (typeof value === 'string' || typeof value === 'number') fields[key] = String(value);
  }
  return fields;
}
