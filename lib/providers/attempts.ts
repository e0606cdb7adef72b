/** An attempt that failed. `permanent` says that this channel would fail again, as a ProviderError does. */
export interface FailedAttempt {
  channel: string;
  permanent: boolean;
}

/** What to try next: the channel's how manieth attempt (from 1), and how long to wait before (ms). */
export interface NextAttempt {
  channel: string;
  attempt: number;
  delayMs: number;
}

/** How often each channel is tried (R3.6), and the waits between two attempts: `baseMs`, doubled each time to `capMs`. */
export interface AttemptLimits {
  perChannel: number;
  baseMs: number;
  capMs: number;
}

/** Three attempts for each channel (R3.6), 1 and 2 s apart. */
export const SOS_ATTEMPTS: AttemptLimits = { perChannel: 3, baseMs: 1000, capMs: 30_000 };

/**
 * The next attempt after those that failed, oldest first; null when every channel is exhausted. Channels are used up in
 * order and never returned to; the first attempt on a channel is due at once. Half of a wait is jitter, so that what
 * failed together does not come back together.
 *
 * `random` gives numbers from 0 to below 1. Failures of channels that are not listed are left out of account.
 */
export function nextAttempt(
  channels: readonly string[],
  failures: readonly FailedAttempt[],
  random: () => number = Math.random,
  limits: AttemptLimits = SOS_ATTEMPTS,
): NextAttempt | null {
  const reached = Math.max(0, ...failures.map(({ channel }) => channels.indexOf(channel)));
  for (const channel of channels.slice(reached)) {
    const failed = failures.filter((failure) => failure.channel === channel);
    const usedUp = failed.length >= limits.perChannel || failed.some(({ permanent }) => permanent);
    if (!usedUp)
      return { channel, attempt: failed.length + 1, delayMs: waitMs(failed.length, random, limits) };
  }
  return null;
}

function waitMs(failed: number, random: () => number, { baseMs, capMs }: AttemptLimits): number {
  if (failed === 0) return 0;
  const full = Math.min(capMs, baseMs * 2 ** (failed - 1));
  return full / 2 + (full / 2) * random();
}
