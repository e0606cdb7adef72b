/** What the benchmark `notify` queues, to whom, and what of it arrived. Pure, but for the clock. */
import { setTimeout as pause } from 'node:timers/promises';
import type { Channel } from '../../../lib/providers/provider.ts';

export const channels = ['sms', 'whatsapp', 'email', 'push'] as const satisfies Channel[];

/** One message: every address gets at most one on each channel, so that channel and address name it. */
export interface Message {
  channel: Channel;
  /** As the provider knows it: E.164, an email address, an installation's token. */
  to: string;
  person: number;
  priority: 'high' | 'normal' | 'low';
}

/** Where a person is reached. */
export const personOf = (n: number) => ({
  name: `Rider ${n}`,
  phone: `+91${7_000_000_000 + n}`,
  email: `rider${n}@example.com`,
  pushToken: `bench-installation-${n}`,
});

/** Nobody else's numbers. */
export const otpPhone = (n: number): string => `+91${8_000_000_000 + n}`;

/** The n-th message: four to a person, one on each channel; of ten people's one is urgent and three are not. */
export function messageOf(n: number): Message {
  const channel = channels[n % channels.length] ?? 'sms';
  const person = Math.floor(n / channels.length);
  const { phone, email, pushToken } = personOf(person);
  const to = channel === 'push' ? pushToken : channel === 'email' ? email : phone;
  const of10 = person % 10;
  return { channel, to, person, priority: of10 === 0 ? 'high' : of10 <= 3 ? 'low' : 'normal' };
}

/** What was queued, and what its sender says of it. Times are ms since the epoch. */
export interface Queued {
  channel: Channel;
  to: string;
  at: number;
  /** When its failure was recorded; null: it was not. */
  failedAt: number | null;
  /** Attempts of which the sender never learned whether the provider had taken it: each may have been one more. */
  unsure: number;
}

/** What a provider took; `at` is when it said so. */
export interface Taken {
  channel: string;
  to: string;
  at: number;
}

export interface Tally {
  /** Neither taken nor recorded as failed. */
  lost: number;
  /** Taken once too often, or never queued. */
  doubled: number;
  /** Taken once more because the provider's first answer never came. */
  doubledUnanswered: number;
  failed: number;
  /** From queueing until the first acceptance, of each that was taken, ms. */
  acceptedMs: number[];
  /** When the last one was taken or given up. */
  lastAt: number;
}

/** What became of what was queued, by what the providers took. */
export function tallyOf(queued: readonly Queued[], taken: readonly Taken[]): Tally {
  const key = ({ channel, to }: { channel: string; to: string }) => `${channel} ${to}`;
  const byAddress = Map.groupBy(taken, key);
  const tally: Tally = {
    lost: 0,
    doubled: 0,
    doubledUnanswered: 0,
    failed: 0,
    acceptedMs: [],
    lastAt: Number.NEGATIVE_INFINITY,
  };
  for (const one of queued) {
    const times = (byAddress.get(key(one)) ?? []).map(({ at }) => at);
    byAddress.delete(key(one));
    const extra = Math.max(0, times.length - 1);
    const unanswered = Math.min(extra, one.unsure);
    tally.doubledUnanswered += unanswered;
    tally.doubled += extra - unanswered;
    if (times.length > 0) {
      const first = Math.min(...times);
      tally.acceptedMs.push(first - one.at);
      tally.lastAt = Math.max(tally.lastAt, first);
    } else if (one.failedAt === null) tally.lost++;
    else {
      tally.failed++;
      tally.lastAt = Math.max(tally.lastAt, one.failedAt);
    }
  }
  for (const unexpected of byAddress.values()) tally.doubled += unexpected.length;
  return tally;
}

/** Makes `count` calls, `atOnce` of them under way at any time. */
export async function inParallel(
  count: number,
  atOnce: number,
  call: (n: number) => Promise<void>,
): Promise<void> {
  let next = 0;
  const caller = async () => {
    for (let n = next++; n < count; n = next++) await call(n);
  };
  await Promise.all(Array.from({ length: Math.min(atOnce, count) }, caller));
}

/** Calls that go on beside something else. */
export interface Steady {
  /** Begins no more; resolves with how many there were once all are answered, rejects with the first error. */
  stop(): Promise<number>;
}

/** One call every `everyMs`, whether those before have been answered or not; each is told when it was due, ms since the epoch. */
export function steadily(everyMs: number, call: (n: number, dueAt: number) => Promise<void>): Steady {
  const stopping = new AbortController();
  const open: Promise<void>[] = [];
  const began = Date.now();
  const running = (async () => {
    for (let n = 0; !stopping.signal.aborted; n++) {
      const dueAt = began + n * everyMs;
      const early = dueAt - Date.now();
      if (early > 0) await pause(early, undefined, { signal: stopping.signal }).catch(() => undefined);
      if (stopping.signal.aborted) return;
      const called = call(n, dueAt);
      // Told by `stop`
      called.catch(() => undefined);
      open.push(called);
    }
  })();
  return {
    async stop() {
      stopping.abort();
      await running;
      await Promise.all(open);
      return open.length;
    },
  };
}
