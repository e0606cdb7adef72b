/** The providers that are simulated. */
export type ProviderName = 'twilio';

/**
 * How a simulated provider misbehaves, for the next `times` requests or, without it, until cleared.
 *
 * - `down`: the connection is reset, nothing is taken;
 * - `slow`: the request is handled at once but answered `delayMs` later, so that a caller who gives up cannot
 *   know that its message was taken: what makes real timeouts awkward;
 * - `429`: too many requests, with `Retry-After: retryAfterS` (1);
 * - `500`: an internal error, nothing is taken;
 * - `reject`: a valid request is refused with this code of the provider's.
 */
export type FailureScript = { times?: number } & (
  | { kind: 'down' }
  | { kind: 'slow'; delayMs: number }
  | { kind: '429'; retryAfterS?: number }
  | { kind: '500' }
  | { kind: 'reject'; code: number }
);

/** The script each provider is playing. A new one replaces the old. */
export class FailureScripts {
  readonly #playing = new Map<ProviderName, { script: FailureScript; left: number }>();

  play(provider: ProviderName, script: FailureScript): void {
    this.#playing.set(provider, { script, left: script.times ?? Number.POSITIVE_INFINITY });
  }

  clear(provider: ProviderName): void {
    this.#playing.delete(provider);
  }

  /** The script for one more request to the provider, which uses up one of its times. */
  next(provider: ProviderName): FailureScript | undefined {
    const playing = this.#playing.get(provider);
    if (!playing || playing.left < 1) return undefined;
    playing.left -= 1;
    return playing.script;
  }
}
