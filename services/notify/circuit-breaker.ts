/** Whether a provider is to be called, by how it has answered lately. A state machine without a clock of its own. Pure. */

export interface BreakerRules {
  /** Failures in a row that open it. */
  failures: number;
  /** How long it stays open, ms: doubled with each trial that fails, to `mostMs`. */
  openMs: number;
  mostMs: number;
}

export const breakerRules: BreakerRules = { failures: 10, openMs: 2000, mostMs: 30_000 };

/**
 * Closed: all calls. Open: none until `until`; then one, as a trial, which has until `trialUntil`: whoever makes it may die.
 * `opened`: how often it has been opened in a row.
 */
export type Breaker =
  | { state: 'closed'; failures: number }
  | { state: 'open'; until: number; opened: number; trialUntil: number };

export const closedBreaker: Breaker = { state: 'closed', failures: 0 };

/** Until when not to call, ms; null: call now. */
export function shunnedUntil(breaker: Breaker, now: number): number | null {
  if (breaker.state === 'closed') return null;
  const until = Math.max(breaker.until, breaker.trialUntil);
  return now < until ? until : null;
}

/** A call begins, of a provider that may be called; `forMs`: how long it can take. */
export const onCall = (breaker: Breaker, now: number, forMs: number): Breaker =>
  breaker.state === 'closed' ? breaker : { ...breaker, trialUntil: now + forMs };

/** The provider has answered, be it with a refusal: one answer is enough. */
export const onAnswer = (): Breaker => closedBreaker;

/** No answer, or one that says that it cannot. */
export function onFailure(breaker: Breaker, now: number, rules: BreakerRules = breakerRules): Breaker {
  if (breaker.state === 'closed') {
    const failures = breaker.failures + 1;
    return failures < rules.failures ? { state: 'closed', failures } : opened(1, now, rules);
  }
  // Calls that were under way when it opened tell nothing new
  return now < breaker.until ? breaker : opened(breaker.opened + 1, now, rules);
}

function opened(times: number, now: number, { openMs, mostMs }: BreakerRules): Breaker {
  const forMs = Math.min(mostMs, openMs * 2 ** Math.min(times - 1, 20));
  return { state: 'open', until: now + forMs, opened: times, trialUntil: 0 };
}
