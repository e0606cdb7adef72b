import { z } from 'zod';

/** The providers that are simulated. */
export const providerNames = [
  'twilio',
  'twilio-voice',
  'msg91',
  'whatsapp',
  'sendgrid',
  'ses',
  'fcm',
  'pagerduty',
] as const;
export type ProviderName = (typeof providerNames)[number];

const times = z.int().positive().optional();
const milliseconds = z.int().min(0).max(3_600_000);
const code = z.union([z.int().min(1), z.string().min(1).max(100)]);

/**
 * How a simulated provider misbehaves, for the next `times` requests or, without it, until cleared.
 *
 * - `down`: the connection is reset, nothing is taken;
 * - `dropped`: the request is handled, then the connection is reset without an answer;
 * - `slow`: the request is handled at once but answered `delayMs` later, so that a caller who gives up cannot
 *   know that its message was taken: what makes real timeouts awkward;
 * - `429`: too many requests, with `Retry-After: retryAfterS` (1);
 * - `500`: an internal error, nothing is taken;
 * - `flaky`: an internal error for a `share` (0 to 1) of the requests, by chance;
 * - `error-in-200`: an error with status 200, nothing is taken (MSG91 only);
 * - `reject`: a valid request is refused with this code of the provider's (PagerDuty's and SendGrid's are HTTP statuses).
 */
export const failureScript = z.discriminatedUnion('kind', [
  z.strictObject({ kind: z.literal('down'), times }),
  z.strictObject({ kind: z.literal('dropped'), times }),
  z.strictObject({ kind: z.literal('slow'), times, delayMs: milliseconds }),
  z.strictObject({ kind: z.literal('429'), times, retryAfterS: z.int().min(0).optional() }),
  z.strictObject({ kind: z.literal('500'), times }),
  z.strictObject({ kind: z.literal('flaky'), times, share: z.number().min(0).max(1) }),
  z.strictObject({ kind: z.literal('error-in-200'), times }),
  z.strictObject({ kind: z.literal('reject'), times, code }),
]);
export type FailureScript = z.input<typeof failureScript>;

/**
 * What becomes of the next `times` messages that a provider takes, and of the callbacks that tell of it. Without a script
 * they are sent and delivered, and each is told once.
 *
 * - `dropped`: no callback comes, though the message does;
 * - `doubled`: each callback comes twice;
 * - `reordered`: the callbacks come in the wrong order;
 * - `delayed`: each comes `delayMs` later;
 * - `failed`: the message is never delivered, with this code of the provider's;
 * - `read`: it is read after it was delivered (WhatsApp tells);
 * - `complained`: it is marked as spam after it was delivered (of an email).
 */
export const receiptScript = z.discriminatedUnion('kind', [
  z.strictObject({ kind: z.literal('dropped'), times }),
  z.strictObject({ kind: z.literal('doubled'), times }),
  z.strictObject({ kind: z.literal('reordered'), times }),
  z.strictObject({ kind: z.literal('delayed'), times, delayMs: milliseconds }),
  z.strictObject({ kind: z.literal('failed'), times, code }),
  z.strictObject({ kind: z.literal('read'), times }),
  z.strictObject({ kind: z.literal('complained'), times }),
]);
export type ReceiptScript = z.input<typeof receiptScript>;

/** The script each provider is playing. A new one replaces the old. */
export class Scripts<S extends { times?: number | undefined }> {
  readonly #playing = new Map<ProviderName, { script: S; left: number }>();

  play(provider: ProviderName, script: S): void {
    this.#playing.set(provider, { script, left: script.times ?? Number.POSITIVE_INFINITY });
  }

  clear(provider: ProviderName): void {
    this.#playing.delete(provider);
  }

  /** The script for one more request to the provider, which uses up one of its times. */
  next(provider: ProviderName): S | undefined {
    const playing = this.#playing.get(provider);
    if (!playing || playing.left < 1) return undefined;
    playing.left -= 1;
    return playing.script;
  }
}
