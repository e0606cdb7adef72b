/**
 * What is next for a notification: through the channels in the person's order, on each through its providers, in rounds, until it is
 * taken, or nothing is left to try. Pure.
 */
import { nextAttempt } from '../../lib/providers/attempts.ts';
import type { Channel, MessageProviderName } from '../../lib/providers/provider.ts';
import {
  type Attempt,
  isEnded,
  type Lane,
  type Progress,
  passesQuietHours,
  type Request,
  type Status,
  type Waiting,
} from './notification.ts';

export interface LaneRules {
  /** How long a provider has for one message, ms. */
  timeoutMs: number;
  /** Attempts with each provider in a round, with waits between them, ms. */
  perProvider: number;
  baseMs: number;
  /** Rounds, and the wait before the second, ms; doubled each time. */
  rounds: number;
  roundMs: number;
}

/**
 * A code that comes late is worth nothing, so a provider that fails is left at once (R4.7: out within 10 s). High: also when each provider
 * of each channel hangs, the last has been tried after 50 s (P4).
 */
export const laneRules: Record<Lane, LaneRules> = {
  otp: { timeoutMs: 3000, perProvider: 1, baseMs: 250, rounds: 5, roundMs: 1500 },
  high: { timeoutMs: 3000, perProvider: 2, baseMs: 500, rounds: 5, roundMs: 5000 },
  normal: { timeoutMs: 5000, perProvider: 3, baseMs: 1000, rounds: 4, roundMs: 60_000 },
  low: { timeoutMs: 5000, perProvider: 3, baseMs: 1000, rounds: 3, roundMs: 120_000 },
};
const longestWaitMs = 900_000;

/** A claim without an outcome for so long after it was made is one of somebody who died, ms. */
export const claimLastsMs = (lane: Lane): number => 2 * laneRules[lane].timeoutMs + 1000;

/** How often a provider is asked what became of a message: after `receiptAfterMs`, twice that, and four times that. */
const timesAsked = 3;

/** What is known besides the notification itself. */
export interface View {
  now: number;
  /** The person's channels that are open to this notification, in their order. */
  channels: readonly Channel[];
  /** When their quiet hours end, ms; null when it is in none. */
  quietUntil: number | null;
  /** Each channel's providers, in the order in which they are tried. */
  providers: Readonly<Record<Channel, readonly MessageProviderName[]>>;
  /** Until when a provider is left alone, ms; null when it may be called. */
  shunnedUntil: (provider: MessageProviderName) => number | null;
  canBeAsked: (provider: MessageProviderName) => boolean;
  /** From 0 to below 1. */
  random: () => number;
  pushAckMs: number;
  receiptAfterMs: number;
}

export type Next =
  | { do: 'nothing' }
  | { do: 'send'; channel: Channel; provider: MessageProviderName; round: number }
  /** Nobody knows what became of this attempt: find out, or take it for failed. */
  | { do: 'recover' | 'ask'; index: number }
  | { do: 'wait'; why: Waiting; until: number }
  | { do: 'end'; status: Status; reason: string };

export function next(request: Request, progress: Progress, view: View): Next {
  if (isEnded(progress)) return { do: 'nothing' };
  const { now } = view;
  const last = progress.attempts.at(-1);
  const lastIndex = progress.attempts.length - 1;
  if (last?.state === 'sending') {
    const lapses = last.at + claimLastsMs(request.lane);
    return now < lapses
      ? { do: 'wait', why: 'under-way', until: lapses }
      : { do: 'recover', index: lastIndex };
  }
  if (last?.state === 'accepted' || last?.state === 'sent') {
    const after = afterTaken(request, last, lastIndex, view);
    if (after) return after;
  }
  if (now >= request.expiresAt) {
    const isOut = progress.attempts.some(({ state }) => state === 'accepted' || state === 'sent');
    return { do: 'end', status: isOut ? 'unconfirmed' : 'expired', reason: 'expired' };
  }
  if (request.sendAt !== null && now < request.sendAt) return wait(request, 'scheduled', request.sendAt);
  if (view.quietUntil !== null && now < view.quietUntil && !passesQuietHours(request))
    return wait(request, 'quiet-hours', view.quietUntil);
  return nextWay(request, progress, view);
}

/** A wait beyond the end is the end. */
function wait({ expiresAt }: Request, why: Waiting, until: number): Next {
  return until < expiresAt ? { do: 'wait', why, until } : { do: 'end', status: 'expired', reason: why };
}

const isPressing = ({ lane }: Request): boolean => lane === 'otp' || lane === 'high';

/** A provider has the message: what is waited for; null when the next way is due all the same. */
function afterTaken(request: Request, last: Attempt, index: number, view: View): Next | null {
  const { now, pushAckMs, receiptAfterMs, canBeAsked } = view;
  if (last.channel === 'push') {
    // Nobody tells whether a push was shown but the app itself
    if (!isPressing(request)) return { do: 'end', status: 'unconfirmed', reason: 'taken' };
    const until = last.changedAt + pushAckMs;
    return now < until ? { do: 'wait', why: 'acknowledgement', until } : null;
  }
  const times = last.asked ?? 0;
  const until = last.changedAt + receiptAfterMs * (2 ** (times + 1) - 1);
  if (now < until) return { do: 'wait', why: 'receipt', until };
  if (times < timesAsked && canBeAsked(last.provider) && last.messageId !== undefined)
    return { do: 'ask', index };
  return { do: 'end', status: 'unconfirmed', reason: 'no-receipt' };
}

interface Way {
  channel: Channel;
  provider: MessageProviderName;
}
const nameOf = ({ channel, provider }: Way): string => `${channel}/${provider}`;

function nextWay(request: Request, progress: Progress, view: View): Next {
  const { now, shunnedUntil } = view;
  const { attempts, wait: waited } = progress;
  const ways = waysOf(progress, view);
  if (ways.length === 0) {
    const isOut = attempts.some(({ state }) => state === 'accepted' || state === 'sent');
    if (isOut) return { do: 'end', status: 'unconfirmed', reason: 'not-acknowledged' };
    const reason = attempts.length === 0 ? 'no-channel' : 'refused';
    return { do: 'end', status: 'failed', reason };
  }
  const rules = laneRules[request.lane];
  // Jitter is drawn once: what has waited after this very attempt goes when it is due
  const hasWaited = waited?.why === 'backoff' && waited.after === attempts.length;
  if (hasWaited && now < waited.until) return wait(request, 'backoff', waited.until);

  const open = ways.filter(({ provider }) => shunnedUntil(provider) === null);
  if (open.length === 0) {
    const until = Math.min(...ways.map(({ provider }) => shunnedUntil(provider) ?? now));
    return wait(request, 'providers-down', Math.max(until, now + 1));
  }
  const last = attempts.at(-1);
  const round = last?.round ?? 1;
  const limits = { perChannel: rules.perProvider, baseMs: rules.baseMs, capMs: longestWaitMs };
  const failures = attempts
    .filter((attempt) => attempt.round === round)
    .map((attempt) => ({ channel: nameOf(attempt), permanent: attempt.permanent === true }));
  const attempt = nextAttempt(open.map(nameOf), failures, view.random, limits);
  const found = attempt && open.find((way) => nameOf(way) === attempt.channel);
  if (attempt && found) {
    if (hasWaited || attempt.delayMs === 0 || !last) return { do: 'send', ...found, round };
    return wait(request, 'backoff', last.changedAt + Math.round(attempt.delayMs));
  }
  if (round >= rules.rounds) return { do: 'end', status: 'failed', reason: 'exhausted' };
  const [first] = open;
  if (hasWaited && first) return { do: 'send', ...first, round: round + 1 };
  const full = Math.min(longestWaitMs, rules.roundMs * 2 ** (round - 1));
  return wait(
    request,
    'backoff',
    (last?.changedAt ?? now) + Math.round(full / 2 + (full / 2) * view.random()),
  );
}

/** The ways that are left, in order: without those that would fail again, and without push once it was not acknowledged; then SMS is first. */
function waysOf({ attempts }: Progress, { channels, providers }: View): Way[] {
  const isUnanswered = attempts.some(
    ({ channel, state }) => channel === 'push' && (state === 'accepted' || state === 'sent'),
  );
  const order = isUnanswered
    ? [...channels].filter((channel) => channel !== 'push').toSorted((a, b) => rank(a) - rank(b))
    : channels;
  return order
    .flatMap((channel) => providers[channel].map((provider) => ({ channel, provider })))
    .filter(
      (way) => !attempts.some((attempt) => attempt.permanent === true && nameOf(attempt) === nameOf(way)),
    );
}

const rank = (channel: Channel): number => (channel === 'sms' ? 0 : 1);
