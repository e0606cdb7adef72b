/**
 * The ways to a contact: a text, by SMS and where that fails by WhatsApp; and beside it a push message to whoever has the
 * app, which rings on a phone that lies face down.
 */
import type { CallOptions } from '../../lib/providers/deadline.ts';
import type { Channel, MessageProvider, PushMessage, WhatsAppMessage } from '../../lib/providers/provider.ts';
import { ProviderError } from '../../lib/providers/provider-error.ts';
import type { SmsProvider } from '../../lib/providers/sms.ts';
import type { SosProviders } from '../../lib/providers/sos-providers.ts';
import { type Rendering, render } from '../../lib/templates/index.ts';

/**
 * What a contact is told. `devices` are the tokens of their installations of the app, `opens` is the address that a tap
 * on the message there leads to; both for push alone.
 */
export interface ContactMessage {
  to: string;
  said: Omit<Rendering, 'channel'>;
  devices: readonly string[];
  opens: string | null;
}

type Sent = { providerMessageId: string };

/** A provider that can bring a message to a contact, by whichever channel. */
export interface Way {
  readonly name: string;
  readonly channel: Channel;
  send(message: ContactMessage, options: CallOptions): Promise<Sent>;
  /** As of an SmsProvider: this message, if it was taken at `since` (ms) or later. */
  findSent?(message: ContactMessage, since: number, options: CallOptions): Promise<Sent | null>;
}

/** The ways that the providers of an SOS make: texts in the order in which they are tried. */
export const waysOf = ({ sms, whatsapp, push }: Pick<SosProviders, 'sms' | 'whatsapp' | 'push'>) => ({
  texts: [...sms.map(bySms), ...whatsapp.map(byWhatsApp)] as readonly Way[],
  push: push.map(byPush) as readonly Way[],
});

/** By SMS. */
const bySms = (provider: SmsProvider): Way => ({
  name: provider.name,
  channel: provider.channel,
  async send({ to, said }, options) {
    return provider.send({ to, ...render({ ...said, channel: 'sms' }) }, options);
  },
  ...(provider.findSent
    ? {
        async findSent({ to, said }, since, options) {
          const { body } = render({ ...said, channel: 'sms' });
          return (await provider.findSent?.({ to, body, since }, options)) ?? null;
        },
      }
    : {}),
});

/** By WhatsApp. */
const byWhatsApp = (provider: MessageProvider<WhatsAppMessage>): Way => ({
  name: provider.name,
  channel: provider.channel,
  async send({ to, said }, options) {
    return provider.send({ to, template: render({ ...said, channel: 'whatsapp' }) }, options);
  },
});

/** After an hour a push message is no longer worth bringing: the texts are there. */
const pushTtlMs = 3_600_000;

/** By push, to all of a contact's devices: one that takes it is enough. */
const byPush = (provider: MessageProvider<PushMessage>): Way => ({
  name: provider.name,
  channel: provider.channel,
  async send({ devices, said, opens }, options) {
    const { data, ...shown } = render({ ...said, channel: 'push' });
    const push = {
      ...shown,
      data: { ...data, ...(opens === null ? {} : { link: opens }) },
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
