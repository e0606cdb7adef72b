/** Texting emergency contacts: who they are, what they read, one attempt, and which comes next. */
import type { Contact } from '../../contracts/accounts.ts';
import type { AlertLocation, AlertStatus } from '../../contracts/sos.ts';
import { keyedHash } from '../../lib/pins.ts';
import { type NextAttempt, nextAttempt } from '../../lib/providers/attempts.ts';
import { SOS_TEMPLATE } from '../../lib/providers/index.ts';
import { ProviderError } from '../../lib/providers/provider-error.ts';
import type { SmsMessage, SmsProvider } from '../../lib/providers/sms.ts';
import type { Sealer } from '../../lib/sealed.ts';
import type { MessageState, Purpose } from './alert-record.ts';
import { mapUrl, overText, raisedText } from './message-text.ts';

/** A contact with the key under which its messages are kept: not the number, and the same for a number everywhere. */
export interface KeyedContact extends Contact {
  key: string;
}

/** The contacts of a card, each number once. */
export function openContacts(sealer: Sealer, hashSecret: string, sealed: string): KeyedContact[] {
  const contacts = new Map<string, KeyedContact>();
  for (const contact of JSON.parse(sealer.open(sealed)) as Contact[]) {
    const key = keyedHash(hashSecret, contact.phone).slice(0, 16);
    if (!contacts.has(key)) contacts.set(key, { ...contact, key });
  }
  return [...contacts.values()];
}

/** What the text is made of. */
export interface Told {
  name: string;
  status: AlertStatus;
  location: AlertLocation | null;
  link: string | null;
}

/** The message to a contact, for providers that send texts and for those that send registered templates. */
export function messageTo(contact: KeyedContact, purpose: Purpose, told: Told): SmsMessage {
  const body = purpose === 'raised' ? raisedText(told) : overText(told);
  // DLT allows 30 characters a variable
  const name = Array.from(told.name).slice(0, 30).join('');
  const place = told.location === null ? 'not known' : mapUrl(told.location).replace('https://', '');
  const variables = purpose === 'raised' ? { name, place, link: told.link ?? place } : { name };
  return {
    to: contact.phone,
    body,
    ...(purpose === 'raised' ? { template: { name: SOS_TEMPLATE, variables } } : {}),
  };
}

/** A message that nobody has tried yet. */
export const queued = (name: string, at: number, drill: boolean): MessageState => ({
  name,
  status: drill ? 'drill' : 'queued',
  channel: null,
  provider: null,
  tries: [],
  at,
});

/** The attempt that is due next; null when every provider is exhausted. */
export const dueNext = (providers: readonly SmsProvider[], state: MessageState): NextAttempt | null =>
  nextAttempt(
    providers.map(({ name }) => name),
    state.tries,
  );

export const claimed = (state: MessageState, provider: string, at: number): MessageState => ({
  ...state,
  status: 'sending',
  channel: 'sms',
  provider,
  at,
});

const sendTimeoutMs = 5000;

/**
 * Makes the attempt that a state claims; answers the state after it. Never rejects: a failure is a state too.
 * `since`: the claim is an earlier one without an outcome, of this time (ms). Then the provider is asked first, where it can
 * be: twice beats never, but once is better.
 */
export async function attempt(
  provider: SmsProvider,
  message: SmsMessage,
  state: MessageState,
  clock: () => number,
  since: number | null = null,
): Promise<{ state: MessageState; resent: boolean }> {
  const sent = (messageId: string): MessageState => ({ ...state, status: 'sent', at: clock(), messageId });
  try {
    if (since !== null && provider.findSent) {
      const { to, body } = message;
      const found = await provider
        .findSent({ to, body, since }, { timeoutMs: sendTimeoutMs })
        // Who cannot tell has not sent it, as far as anybody knows
        .catch(() => null);
      if (found) return { state: sent(found.providerMessageId), resent: false };
    }
    const { providerMessageId } = await provider.send(message, { timeoutMs: sendTimeoutMs });
    return { state: sent(providerMessageId), resent: since !== null };
  } catch (error) {
    const [code, permanent] =
      error instanceof ProviderError ? [error.code, error.permanent] : ['UNKNOWN', false];
    const tries = [...state.tries, { channel: provider.name, permanent }];
    return { state: { ...state, status: 'failed', at: clock(), code, tries }, resent: since !== null };
  }
}
