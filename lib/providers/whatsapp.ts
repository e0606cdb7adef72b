import { currentOf, type Secret } from '../secret.ts';
import type { JsonAnswer } from './http.ts';
import { createHttpClient, isPermanentStatus, postJson, trimSlashes } from './http.ts';
import type { MessageProvider, WhatsAppMessage } from './provider.ts';
import { ProviderError } from './provider-error.ts';

/** How to reach the WhatsApp Cloud API. `phoneNumberId` is Meta's id of our number, `apiVersion` the Graph API's (`v23.0`). */
export interface WhatsAppOptions {
  phoneNumberId: string;
  token: Secret<string> | string;
  apiVersion: string;
  /** Replaces `https://graph.facebook.com`, for a simulator or an egress proxy. */
  baseUrl?: string;
}

const PROVIDER = 'whatsapp';
const BASE_URL = 'https://graph.facebook.com';

/**
 * Codes that a retry may cure, whatever status they come with: unknown or passing trouble of the API (1, 2, 131000, 131016,
 * 131057, 133004), and rates: the app's (4), the account's (80007), throughput (130429), spam (131048), and too many
 * messages to one person (131056). Every other code stays as it is: not on WhatsApp (131026), only templates may be sent (131047),
 * wrong variables or templates (132000 …), token (190).
 */
const TRANSIENT_CODES = new Set([1, 2, 4, 80007, 130429, 131000, 131016, 131048, 131056, 131057, 133004]);

/**
 * A WhatsApp adapter for Meta's Cloud API, which has no client of its own for Node. Template names have no hyphens at Meta: ours
 * are sent with underscores.
 *
 * Sources: https://developers.facebook.com/docs/whatsapp/cloud-api/guides/send-message-templates and
 * https://developers.facebook.com/docs/whatsapp/cloud-api/support/error-codes
 */
export function createWhatsApp(options: WhatsAppOptions): MessageProvider<WhatsAppMessage> {
  const base = trimSlashes(options.baseUrl ?? BASE_URL);
  const url = `${base}/${options.apiVersion}/${options.phoneNumberId}/messages`;
  const client = createHttpClient();
  return {
    name: PROVIDER,
    channel: 'whatsapp',
    async send(message, callOptions) {
      const headers = { Authorization: `Bearer ${currentOf(options.token)}` };
      return {
        providerMessageId: messageIdOf(
          await postJson(PROVIDER, client, { url, headers, body: bodyOf(message) }, callOptions),
        ),
      };
    },
  };
}

function bodyOf({ to, notificationId, template }: WhatsAppMessage) {
  const { name, language, variables, button } = template;
  const text = (value: string) => ({ type: 'text', text: value });
  return {
    messaging_product: 'whatsapp',
    recipient_type: 'individual',
    to: to.replace(/^\+/, ''),
    ...(notificationId === undefined ? {} : { biz_opaque_callback_data: notificationId }),
    type: 'template',
    template: {
      name: name.replaceAll('-', '_'),
      language: { code: language },
      components: [
        ...(variables.length > 0 ? [{ type: 'body', parameters: variables.map(text) }] : []),
        ...(button === undefined
          ? []
          : [{ type: 'button', sub_type: 'url', index: '0', parameters: [text(button)] }]),
      ],
    },
  };
}

interface Answer {
  messages?: { id?: unknown }[];
  error?: { code?: unknown };
}

function messageIdOf({ status, body, retryAfterMs }: JsonAnswer): string {
  const { messages, error } = (typeof body === 'object' && body !== null ? body : {}) as Answer;
  const id = Array.isArray(messages) ? messages[0]?.id : undefined;
  const ok = status >= 200 && status < 300;
  if (ok && typeof id === 'string') return id;

  const code = typeof error?.code === 'number' ? error.code : undefined;
  const permanent = isPermanentStatus(status) && !(code !== undefined && TRANSIENT_CODES.has(code));
  throw new ProviderError({
    provider: PROVIDER,
    code: code !== undefined ? String(code) : ok ? 'NO_ID' : `HTTP_${status}`,
    permanent,
    status,
    retryAfterMs,
  });
}
