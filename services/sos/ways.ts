/**
 * The ways to a contact: a text, by SMS and where that fails by WhatsApp; and beside it a push message to whoever has the
 * app, which rings on a phone that lies face down.
 */
import type { CallOptions } from '../../lib/providers/deadline.ts';
import { SOS_OVER_TEMPLATE, SOS_TEMPLATE } from '../../lib/providers/phone-providers.ts';
import type { Channel, MessageProvider, PushMessage, WhatsAppMessage } from '../../lib/providers/provider.ts';
import { ProviderError } from '../../lib/providers/provider-error.ts';
import type { SmsMessage, SmsProvider } from '../../lib/providers/sms.ts';
import type { SosProviders } from '../../lib/providers/sos-providers.ts';

/** What a contact is told. `devices` are the tokens of their installations of the app, for push alone. */
export interface ContactMessage extends SmsMessage {
  template: NonNullable<SmsMessage['template']>;
  devices: readonly string[];
}

/** A provider that can bring a message to a contact; like an SmsProvider, by whichever channel. */
export interface Way extends Pick<SmsProvider, 'findSent'> {
  readonly name: string;
  readonly channel: Channel;
  send(message: ContactMessage, options: CallOptions): Promise<{ providerMessageId: string }>;
}

/** The ways that the providers of an SOS make: texts in the order in which they are tried. */
export const waysOf = ({ sms, whatsapp, push }: Pick<SosProviders, 'sms' | 'whatsapp' | 'push'>) => ({
  texts: [...sms, ...whatsapp.map(byWhatsApp)] as readonly Way[],
  push: push.map(byPush) as readonly Way[],
});

/** What is registered with Meta for an SOS, as lib/templates has it: the name, and which values it takes in which order. */
const registered = new Map([
  [SOS_TEMPLATE, { name: 'sos_raised_v1', takes: ['name', 'link'] }],
  [SOS_OVER_TEMPLATE, { name: 'sos_over_v1', takes: ['name'] }],
]);

/** By WhatsApp. */
const byWhatsApp = (provider: MessageProvider<WhatsAppMessage>): Way => ({
  name: provider.name,
  channel: provider.channel,
  async send({ to, template }, options) {
    const known = registered.get(template.name);
    if (!known) throw new ProviderError({ provider: provider.name, code: 'NO_TEMPLATE', permanent: true });
    const variables = known.takes.map((name) => template.variables[name] ?? '');
    return provider.send({ to, template: { name: known.name, language: 'en', variables } }, options);
  },
});

/** After an hour a push message is no longer worth bringing: the texts are there. */
const pushTtlMs = 3_600_000;

/** By push, to all of a contact's devices: one that takes it is enough. */
const byPush = (provider: MessageProvider<PushMessage>): Way => ({
  name: provider.name,
  channel: provider.channel,
  async send({ devices, body, template }, options) {
    const { name = '', link } = template.variables;
    const push = {
      title: template.name === SOS_OVER_TEMPLATE ? `The SOS of ${name} is over` : `SOS: ${name} needs help`,
      body,
      data: { kind: template.name, ...(link === undefined ? {} : { link }) },
      priority: 'high' as const,
      ttlMs: pushTtlMs,
    };
    const outcomes = await Promise.allSettled(
      devices.map((token) => provider.send({ token, ...push }, options)),
    );
    const taken = outcomes.find((outcome) => outcome.status === 'fulfilled');
    if (taken) return taken.value;
    const failures = outcomes.flatMap((outcome) =>
      outcome.status === 'rejected' && outcome.reason instanceof Error ? [outcome.reason] : [],
    );
    // Worth another try if one of them is
    const isFinal = (error: Error) => error instanceof ProviderError && error.permanent;
    const none = new ProviderError({ provider: provider.name, code: 'NO_DEVICE', permanent: true });
    throw failures.find((error) => !isFinal(error)) ?? failures[0] ?? none;
  },
});

const pushMark = '+push';
/** Under which a contact's push message is kept, beside their text under the contact's own key. */
export const pushKeyOf = (key: string): string => `${key}${pushMark}`;
export const isPushKey = (key: string): boolean => key.endsWith(pushMark);
/** The contact's own key, from that of either message. */
export const contactKeyOf = (key: string): string => (isPushKey(key) ? key.slice(0, -pushMark.length) : key);
