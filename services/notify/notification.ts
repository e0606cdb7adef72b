/**
 * A notification as it is kept while it is under way: what was asked for never changes, its progress moves by the functions
 * here, and only forward. Pure.
 */
import type { z } from 'zod';
import type { notificationStatus } from '../../contracts/notify.ts';
import type { Channel, DeliveryState, MessageProviderName } from '../../lib/providers/provider.ts';

/** Who goes before whom: sign-in codes have a lane of their own. */
export const lanes = ['otp', 'high', 'normal', 'low'] as const;
export type Lane = (typeof lanes)[number];

export type Status = z.infer<typeof notificationStatus>;

/** What was asked for. To whom it goes and what it says are sealed beside it. */
export interface Request {
  /** With its version, `otp@1`. */
  template: string;
  lane: Lane;
  /** Null: to an address. */
  userId: string | null;
  /** Only these, in this order; null: those of the preferences, or SMS for a number. */
  channels: Channel[] | null;
  /** ms */
  createdAt: number;
  expiresAt: number;
  sendAt: number | null;
}

export type AttemptState = 'sending' | DeliveryState;

/** One message to one provider. */
export interface Attempt {
  channel: Channel;
  provider: MessageProviderName;
  state: AttemptState;
  /** Ways are gone through in rounds, from 1. */
  round: number;
  /** The same would fail again. */
  permanent?: boolean;
  /** Nobody knows whether the provider took it. */
  unsure?: boolean;
  code?: string;
  messageId?: string;
  /** How often the provider was asked what became of it. */
  asked?: number;
  /** ms */
  at: number;
  changedAt: number;
}

/** How far it has come. */
export interface Progress {
  status: Status;
  attempts: Attempt[];
  /** What it waits for, until when (ms), and after how many attempts. */
  wait?: { why: Waiting; until: number; after: number };
  /** Why it ended as it did. */
  reason?: string;
  endedAt?: number;
}

export type Waiting =
  | 'scheduled'
  | 'quiet-hours'
  | 'backoff'
  | 'providers-down'
  | 'under-way'
  | 'receipt'
  | 'acknowledgement';

export interface Notification {
  id: string;
  request: Request;
  progress: Progress;
  /** Sealed JSON of `Contents`; null once it has ended. */
  sealed: string | null;
  /** Of the progress, counted by Redis. */
  version: number;
}

/** What nobody may read at rest. */
export interface Contents {
  phone?: string;
  email?: string;
  data: Record<string, string>;
}

export const begun: Progress = { status: 'queued', attempts: [] };

const ended = new Set<Status>(['delivered', 'failed', 'expired', 'unconfirmed']);
export const isEnded = ({ status }: Progress): boolean => ended.has(status);

/** These pass quiet hours, opt-outs and suppression: somebody's safety, or a code that they have just asked for. */
const passingAll = new Set(['otp', 'sos-raised', 'sos-over']);
/** About a ride that is under way: too late would be useless. */
const passingQuietHours = new Set([...passingAll, 'safety-check']);
const nameOf = (template: string): string => template.split('@')[0] ?? '';
export const passesAll = ({ template }: Request): boolean => passingAll.has(nameOf(template));
export const passesQuietHours = ({ template }: Request): boolean => passingQuietHours.has(nameOf(template));

/**
 * A later state in this order takes the place of an earlier one, so that the order in which they are told makes no difference. What
 * has arrived has arrived, whatever failed before.
 */
const order: AttemptState[] = ['sending', 'accepted', 'sent', 'failed', 'delivered', 'read'];
export const furthest = (a: AttemptState, b: AttemptState): AttemptState =>
  order.indexOf(b) > order.indexOf(a) ? b : a;

const arrived = ({ state }: Attempt): boolean => state === 'delivered' || state === 'read';

/** How it stands, by its attempts. What has ended stays so, but for what arrives late or fails late. */
function standing(before: Progress, attempts: Attempt[], now: number): Progress {
  const last = attempts.at(-1);
  if (attempts.some(arrived)) {
    const { reason: _, wait: __, ...rest } = before;
    return { ...rest, attempts, status: 'delivered', endedAt: before.endedAt ?? now };
  }
  if (isEnded(before)) {
    const failedLate = before.status === 'unconfirmed' && last?.state === 'failed';
    return { ...before, attempts, ...(failedLate ? { status: 'failed', reason: 'failed-late' } : {}) };
  }
  const isTaken = last?.state === 'accepted' || last?.state === 'sent';
  return { ...before, attempts, status: isTaken ? 'sent' : 'queued' };
}

const withAttempt = (progress: Progress, index: number, change: Partial<Attempt>): Attempt[] =>
  progress.attempts.map((attempt, at) => (at === index ? { ...attempt, ...change } : attempt));

/** One attempt begins: whoever writes this first makes it. */
export function claimed(
  progress: Progress,
  way: Pick<Attempt, 'channel' | 'provider' | 'round'>,
  now: number,
): Progress {
  const { wait: _, ...rest } = progress;
  const attempt: Attempt = { ...way, state: 'sending', at: now, changedAt: now };
  return { ...rest, attempts: [...progress.attempts, attempt] };
}

/** The provider has taken the attempt. Its receipt may have come before its answer. */
export function taken(progress: Progress, index: number, messageId: string, now: number): Progress {
  const attempt = progress.attempts[index];
  if (!attempt || attempt.messageId === messageId) return progress;
  const state = furthest(attempt.state === 'failed' ? 'accepted' : attempt.state, 'accepted');
  return standing(progress, withAttempt(progress, index, { state, messageId, changedAt: now }), now);
}

/** The attempt failed, as far as whoever made it knows. */
export function refused(
  progress: Progress,
  index: number,
  failure: { code: string; permanent: boolean; unsure: boolean },
  now: number,
): Progress {
  const attempt = progress.attempts[index];
  // A receipt knows better
  if (attempt?.state !== 'sending') return progress;
  const { code, permanent, unsure } = failure;
  const change: Partial<Attempt> = {
    state: 'failed',
    code,
    changedAt: now,
    ...(permanent ? { permanent } : {}),
    ...(unsure ? { unsure } : {}),
  };
  return standing(progress, withAttempt(progress, index, change), now);
}

/** What a provider tells of a message. */
export interface Receipt {
  provider: MessageProviderName;
  providerMessageId: string;
  state: DeliveryState;
  code?: string | undefined;
}

/**
 * A receipt: in any order and any number of times they lead to the same. One about a message that is not known by its id, but by whose
 * it is, tells that a claim without an outcome was sent after all.
 */
export function receipted(progress: Progress, receipt: Receipt, now: number): Progress {
  const { provider, providerMessageId } = receipt;
  const known = progress.attempts.findIndex(
    (attempt) => attempt.provider === provider && attempt.messageId === providerMessageId,
  );
  const open = progress.attempts.findLastIndex(
    (attempt) =>
      attempt.provider === provider &&
      attempt.messageId === undefined &&
      (attempt.state === 'sending' || attempt.unsure === true),
  );
  const index = known === -1 ? open : known;
  const attempt = progress.attempts[index];
  if (!attempt) return progress;
  const from = attempt.unsure === true && attempt.messageId === undefined ? 'accepted' : attempt.state;
  const state = furthest(furthest(from, 'accepted'), receipt.state);
  if (state === attempt.state && attempt.messageId !== undefined) return progress;
  const failed = state === 'failed' && receipt.state === 'failed';
  const change: Partial<Attempt> = {
    state,
    messageId: providerMessageId,
    changedAt: now,
    // Twice the same would be refused again: the way to this person does not work here
    ...(failed ? { permanent: true, code: receipt.code ?? 'UNDELIVERED' } : {}),
  };
  return standing(progress, withAttempt(progress, index, change), now);
}

/** The app has shown it. */
export function acknowledged(progress: Progress, now: number): Progress {
  const index = progress.attempts.findLastIndex(
    ({ channel, state }) => channel === 'push' && (state === 'accepted' || state === 'sent'),
  );
  if (index === -1) return progress;
  return standing(progress, withAttempt(progress, index, { state: 'delivered', changedAt: now }), now);
}

/** The provider was asked about an attempt, and knew nothing new. */
export function asked(progress: Progress, index: number): Progress {
  const times = (progress.attempts[index]?.asked ?? 0) + 1;
  return { ...progress, attempts: withAttempt(progress, index, { asked: times }) };
}

export const waiting = (progress: Progress, why: Waiting, until: number): Progress => ({
  ...progress,
  wait: { why, until, after: progress.attempts.length },
});

export function over(progress: Progress, status: Status, reason: string, now: number): Progress {
  const { wait: _, ...rest } = progress;
  return { ...rest, status, reason, endedAt: now };
}
