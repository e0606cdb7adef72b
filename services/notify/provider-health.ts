/** The providers of messages as this process has found them: who is to be left alone, and how fast they may be called. */
import type { Log } from '../../lib/context.ts';
import type { MessageProviderName } from '../../lib/providers/provider.ts';
import { ProviderError } from '../../lib/providers/provider-error.ts';
import { type Breaker, closedBreaker, onAnswer, onCall, onFailure, shunnedUntil } from './circuit-breaker.ts';
import { RateBudget } from './turns.ts';

/** A 429 stops us for so long, ms. */
const pauseMs = 1000;

/** The provider has looked at the message and refused it: it works. A key that it does not take is not that. */
const isAnswer = (error: ProviderError): boolean =>
  error.permanent && error.status !== 401 && error.status !== 403;

export class ProviderHealth {
  readonly #breakers = new Map<MessageProviderName, Breaker>();
  readonly #budgets = new Map<MessageProviderName, RateBudget>();
  readonly #perSecond: ReadonlyMap<string, number>;
  readonly #logger: Log;

  constructor(options: { perSecond: ReadonlyMap<string, number>; logger: Log }) {
    this.#perSecond = options.perSecond;
    this.#logger = options.logger;
  }

  /** Until when to leave it alone, ms; null: it may be called. */
  shunnedUntil(provider: MessageProviderName, now: number): number | null {
    return shunnedUntil(this.#of(provider), now);
  }

  /** Resolves when a message may go to the provider; the lowest rank first. */
  async turn(provider: MessageProviderName, rank: number): Promise<void> {
    await this.#budget(provider)?.take(rank);
  }

  began(provider: MessageProviderName, now: number, forMs: number): void {
    this.#breakers.set(provider, onCall(this.#of(provider), now, forMs));
  }

  answered(provider: MessageProviderName): void {
    if (this.#of(provider).state === 'open')
      this.#logger.warn('A provider of messages answers again', { provider });
    this.#breakers.set(provider, onAnswer());
  }

  failed(provider: MessageProviderName, error: unknown, now: number): void {
    if (error instanceof ProviderError) {
      if (isAnswer(error)) return this.answered(provider);
      if (error.status === 429) return this.#budget(provider)?.pause(pauseMs);
    }
    const before = this.#of(provider);
    const after = onFailure(before, now);
    this.#breakers.set(provider, after);
    if (after.state === 'open' && before.state === 'closed') {
      const code = error instanceof ProviderError ? error.code : 'UNKNOWN';
      this.#logger.error('A provider of messages fails and is left alone', { provider, code });
    }
  }

  #of(provider: MessageProviderName): Breaker {
    return this.#breakers.get(provider) ?? closedBreaker;
  }

  #budget(provider: MessageProviderName): RateBudget | undefined {
    const known = this.#budgets.get(provider);
    if (known) return known;
    const perSecond = this.#perSecond.get(provider);
    if (perSecond === undefined) return undefined;
    const budget = new RateBudget(perSecond);
    this.#budgets.set(provider, budget);
    return budget;
  }
}
