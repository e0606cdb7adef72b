import { z } from 'zod';

/** The providers that are simulated. */
export const providerNames = ['twilio', 'twilio-voice', 'msg91', 'pagerduty'] as const;
export type ProviderName = (typeof providerNames)[number];

const times = z.int().positive().optional();
const milliseconds = z.int().min(0).max(3_600_000);

/**
 * How a simulated provider misbehaves, for the next `times` requests or, without it, until cleared.
 *
 * - `down`: the connection is reset, nothing is taken;
 * - `dropped`: the request is handled, then the connection is reset without an answer;
 * - `slow`: the request is handled at once but answered `delayMs` later, so that a caller who gives up cannot
 *   know that its message was taken: what makes real timeouts awkward;
 * - `429`: too many requests, with `Retry-After: retryAfterS` (1);
 * - `500`: an internal error, nothing is taken;
 * - `error-in-200`: an error with status 200, nothing is taken (MSG91 only);
 * - `reject`: a valid request is refused with this code of the provider's (PagerDuty's are HTTP statuses).
 */
export const failureScript = z.discriminatedUnion('kind', [
  z.strictObject({ kind: z.literal('down'), times }),
  z.strictObject({ kind: z.literal('dropped'), times }),
  z.strictObject({ kind: z.literal('slow'), times, delayMs: milliseconds }),
  z.strictObject({ kind: z.literal('429'), times, retryAfterS: z.int().min(0).optional() }),
  z.strictObject({ kind: z.literal('500'), times }),
  z.strictObject({ kind: z.literal('error-in-200'), times }),
  z.strictObject({ kind: z.literal('reject'), times, code: z.int().min(1) }),
]);
export type FailureScript = z.input<typeof failureScript>;

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
