/** Texting emergency contacts: who they are, what they read, one attempt, and which comes next. */
import type { Contact } from '../../contracts/accounts.ts';
import type { AlertLocation, AlertStatus } from '../../contracts/sos.ts';
import { keyedHash } from '../../lib/pins.ts';
import { type NextAttempt, nextAttempt } from '../../lib/providers/attempts.ts';
import { ProviderError } from '../../lib/providers/provider-error.ts';
import type { Sealer } from '../../lib/sealed.ts';
import { type Language, withoutWrong } from '../../lib/templates/index.ts';
import { numberKeyOf } from '../../mixins/cards.ts';
import type { MessageState, Purpose } from './alert-record.ts';
import { coordinatesOf, mapUrl } from './map-url.ts';
import type { ContactMessage, Way } from './ways.ts';

/** A contact with the key under which its messages are kept: not the number, and the same for a number everywhere. */
export interface KeyedContact extends Contact {
  key: string;
}

/** The contacts of a card, each number once. */
export function openContacts(sealer: Sealer, hashSecret: string, sealed: string): KeyedContact[] {
  const contacts = new Map<string, KeyedContact>();
  for (const contact of JSON.parse(sealer.open(sealed)) as Contact[]) {
    const key = numberKeyOf(keyedHash(hashSecret, contact.phone));
    if (!contacts.has(key)) contacts.set(key, { ...contact, key });
  }
  return [...contacts.values()];
}

/** What a message is made of. `language` is the raiser's: contacts have none of their own. */
export interface Told {
  name: string;
  language: Language;
  status: AlertStatus;
  location: AlertLocation | null;
  link: string | null;
}

/** The message to a contact, as a template that each way renders for its channel. */
export function messageTo(
  contact: Pick<KeyedContact, 'phone'>,
  purpose: Purpose,
  { name, language, status, location, link }: Told,
  devices: readonly string[] = [],
): ContactMessage {
  const to = contact.phone;
  if (purpose === 'over') {
    const how = status === 'resolved' ? 'resolved' : 'called-off';
    return { to, said: { template: 'sos-over', language, data: { name, how } }, opens: null, devices };
  }
  const data = {
    name,
    ...(location === null
      ? {}
      : { fix: location.source, place: coordinatesOf(location), age: minutesOf(location.ageMs) }),
    ...(link === null ? {} : { link }),
  };
  const opens = link ?? (location === null ? null : mapUrl(location));
  const asked = { template: 'sos-raised', language, data };
  return { to, said: { ...asked, data: withoutWrong(asked) }, opens, devices };
}

const minutesOf = (ms: number): string => String(Math.min(Math.max(0, Math.round(ms / 60_000)), 999_999_999));

/** The attempt that is due next; null when every provider is exhausted. */
export const dueNext = (ways: readonly Way[], state: MessageState): NextAttempt | null =>
  nextAttempt(
    ways.map(({ name }) => name),
    state.tries,
  );

/** `where`: what the text will say of the place. A claim without an outcome leaves it open whether its provider sent it. */
export const claimed = (
  state: MessageState,
  { name: provider, channel }: Pick<Way, 'name' | 'channel'>,
  at: number,
  where: AlertLocation | null,
): MessageState => ({
  ...state,
  ...(state.status === 'sending' && state.provider !== null && state.unsure === undefined
    ? { unsure: { provider: state.provider, since: state.at } }
    : {}),
  status: 'sending',
  channel,
  provider,
  at,
  where,
});

/** The place that the next text names: while an attempt may have arrived, its own, or that could not be found again. */
export const placeOf = (state: MessageState, now: AlertLocation | null): AlertLocation | null =>
  (state.status === 'sending' || state.unsure) && state.where !== undefined ? state.where : now;

const sendTimeoutMs = 3500;

/** After so long without an outcome its owner is dead, ms: until then a claim is left alone. */
export const claimLastsMs = (state: MessageState): number => sendTimeoutMs * (state.unsure ? 2 : 1) + 500;

/** No answer, or none that says no: the message may have been taken all the same. */
const mayHaveArrived = (error: unknown): boolean =>
  !(error instanceof ProviderError) || (error.status === undefined && !error.permanent);

const sentBy = (state: MessageState, provider: string, messageId: string, at: number): MessageState => {
  const { unsure: _found, ...known } = state;
  return { ...known, provider, status: 'sent', at, messageId };
};

const failedBy = (state: MessageState, code: string, permanent: boolean, at: number): MessageState => {
  const tries = [...state.tries, { channel: state.provider ?? '', permanent }];
  return { ...state, status: 'failed', at, code, tries };
};

/** The state after a message that an earlier attempt sent after all, as its provider says; null when nobody can say that. */
async function found(
  ways: readonly Way[],
  message: ContactMessage,
  state: MessageState,
  clock: () => number,
): Promise<MessageState | null> {
  const { unsure } = state;
  const asked = ways.find(({ name }) => name === unsure?.provider);
  if (!unsure || !asked?.findSent) return null;
  const sent = await asked
    .findSent(message, unsure.since, { timeoutMs: sendTimeoutMs })
    // Who cannot tell has not sent it, as far as anybody knows
    .catch(() => null);
  return sent && sentBy(state, asked.name, sent.providerMessageId, clock());
}

/**
 * Makes the attempt that a state claims; answers the state after it. Never rejects: a failure is a state too.
 * While it is not known whether an earlier attempt arrived, its provider is asked first, where it can be: twice beats
 * never, but once is better.
 */
export async function attempt(
  ways: readonly Way[],
  message: ContactMessage,
  state: MessageState,
  clock: () => number,
): Promise<{ state: MessageState; resent: boolean }> {
  const resent = state.unsure !== undefined;
  try {
    const before = await found(ways, message, state, clock);
    if (before) return { state: before, resent: false };
    const way = ways.find(({ name }) => name === state.provider);
    if (!way) throw new Error(`No provider ${state.provider}`);
    const { providerMessageId } = await way.send(message, { timeoutMs: sendTimeoutMs });
    return { state: sentBy(state, way.name, providerMessageId, clock()), resent };
  } catch (error) {
    const [code, permanent] =
      error instanceof ProviderError ? [error.code, error.permanent] : ['UNKNOWN', false];
    const after = failedBy(state, code, permanent, clock());
    const doubt =
      resent || !mayHaveArrived(error) ? {} : { unsure: { provider: state.provider ?? '', since: state.at } };
    return { state: { ...after, ...doubt }, resent };
  }
}

/** The state after a claim without an outcome when nothing may be sent any more: what its provider says, or failed. */
export async function lookBack(
  ways: readonly Way[],
  message: ContactMessage,
  state: MessageState,
  clock: () => number,
): Promise<MessageState> {
  return (await found(ways, message, state, clock)) ?? failedBy(state, 'UNKNOWN', false, clock());
}
