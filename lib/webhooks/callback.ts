/** What all readers of providers' callbacks have in common. A reader is pure: it checks who speaks, and says what was told. */
import { createHash, timingSafeEqual } from 'node:crypto';
import type { z } from 'zod';
import type { ActionInput } from '../../contracts/index.ts';
import { AppError } from '../errors.ts';

/** A request as it came: `url` as the outside sees it, names of headers in lower case, the body as it is signed. */
export interface Callback {
  url: string;
  headers: Readonly<Record<string, string>>;
  body: string;
}

export type Receipt = ActionInput<'notify.receipts'>['receipts'][number];
export type OptOut = ActionInput<'notify.optOut'>;
export type Suppression = ActionInput<'notify.suppress'>;

/** What a callback tells. What it tells of things that nobody here asked about is left out. */
export interface Told {
  receipts: Receipt[];
  optOuts: OptOut[];
  suppressions: Suppression[];
}

export const told = (what: Partial<Told> = {}): Told => ({
  receipts: [],
  optOuts: [],
  suppressions: [],
  ...what,
});

/** Compares in a time that tells nothing of how much is right. */
export function sameSecret(given: string, expected: string): boolean {
  const digest = (text: string) => createHash('sha256').update(text).digest();
  return timingSafeEqual(digest(given), digest(expected));
}

/** A signed body that is not what its provider sends. @throws WEBHOOK_UNREADABLE */
export function unreadable(): never {
  throw new AppError('WEBHOOK_UNREADABLE');
}

/** @throws WEBHOOK_FORGED */
export function forged(): never {
  throw new AppError('WEBHOOK_FORGED');
}

/** @throws WEBHOOK_UNREADABLE */
export function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return unreadable();
  }
}

/** Those of the items that are what the schema wants: a new kind of event must not stop the others. */
export const readable = <S extends z.ZodType>(schema: S, items: readonly unknown[]): z.output<S>[] =>
  items.flatMap((item) => {
    const parsed = schema.safeParse(item);
    return parsed.success ? [parsed.data] : [];
  });

/** ms since the epoch, never ahead of us: a provider's clock may be. */
export const notAhead = (at: number, now: number): number =>
  Number.isFinite(at) && at > 0 ? Math.min(Math.trunc(at), now) : now;

const longestId = 200;
const longestCode = 64;

/** A receipt of these fields; none where the id cannot be one. */
export function receipt(fields: {
  provider: Receipt['provider'];
  providerMessageId: string;
  state: Receipt['state'] | undefined;
  at: number;
  code?: string | undefined;
  notificationId?: string | undefined;
}): Receipt[] {
  const { state, providerMessageId, code, notificationId, ...rest } = fields;
  if (!state || providerMessageId === '' || providerMessageId.length > longestId) return [];
  return [
    {
      ...rest,
      providerMessageId,
      state,
      ...(code ? { code: code.slice(0, longestCode) } : {}),
      ...(notificationId && notificationId.length <= longestCode ? { notificationId } : {}),
    },
  ];
}

/** E.164 of digits with or without a plus; undefined for what is none. */
export const e164Of = (number: string): string | undefined =>
  /^\+?([1-9]\d{6,14})$/.exec(number.trim())?.[1]?.replace(/^/, '+');

/**
 * Does a text ask us to stop, or to write again? Only when it says nothing else: "stop at the next corner" is no such request.
 * The words are Twilio's (https://help.twilio.com/articles/223134027), and Hindi for them.
 */
const stopWords = /^(?:stop|stop ?all|unsubscribe|cancel|end|quit|revoke|opt ?out|बंद|बंद करो|बंद करें|रोकें|रोको)$/;
const startWords = /^(?:start|unstop|yes|शुरू|शुरू करो|शुरू करें)$/;

export function wantsOut(text: string): boolean | undefined {
  const word = text
    .slice(0, 40)
    .normalize('NFC')
    .toLowerCase()
    .replace(/[\p{P}\p{Cf}]/gu, '')
    .replace(/\s+/g, ' ')
    .trim();
  if (stopWords.test(word)) return true;
  return startWords.test(word) ? false : undefined;
}
