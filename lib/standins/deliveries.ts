/**
 * What becomes of messages after they were taken, and how our webhooks hear of it: sent after half of `afterMs`, delivered
 * after all of it. Of a message one callback waits for the first answer to the one before, and so comes behind it: they go
 * astray by script alone. One that is not answered with 2xx is tried twice more within seconds, where
 * the real ones try for hours (Meta for days, SNS for an hour, SendGrid for a day; Twilio not at all).
 */
import { createHttpClient, trimSlashes } from '../providers/http.ts';
import type { ReceiptScript } from './failure-scripts.ts';
import { Scripts } from './failure-scripts.ts';
import type { Fate } from './outbox.ts';
import type { Callback, Inbound, Protocol, Receipt, Taken } from './protocol.ts';
import type { Timers } from './timers.ts';

/** `onMoved` hears of every change of a message. */
export interface DeliveriesOptions {
  afterMs: number;
  timers: Timers;
  onMoved(message: Taken, state: Fate): void;
}

const ATTEMPTS_AFTER_MS = [0, 300, 1500];
const TIMEOUT_MS = 5000;

/** How many callbacks were answered with 2xx, and how many never were. */
export interface CallbackCounts {
  taken: number;
  lost: number;
}

export class Deliveries {
  readonly scripts = new Scripts<ReceiptScript>();
  readonly counts: CallbackCounts = { taken: 0, lost: 0 };
  readonly #options: DeliveriesOptions;
  readonly #client = createHttpClient();
  readonly #posts = new Set<AbortController>();
  /** When the next callback of a message may be sent. */
  readonly #turns = new WeakMap<Taken, Promise<unknown>>();
  #isStopped = false;
  #base: string | undefined;

  constructor(options: DeliveriesOptions) {
    this.#options = options;
  }

  /** Tells webhooks below this address from now on. */
  callbackTo(base: string | undefined): void {
    this.#base = base === undefined ? undefined : trimSlashes(base);
  }

  /** Lets a message take its way. */
  start(protocol: Protocol, message: Taken): void {
    const script = this.scripts.next(protocol.name);
    const { afterMs } = this.#options;
    const fates = protocol.fates?.(message) ?? fatesOf(script);
    const steps = fates.map((state, index) => ({ state, afterMs: (afterMs * (index + 1)) / 2 }));
    // What is told in the wrong order comes at the same times
    const told = script?.kind === 'reordered' ? steps.map(({ state }) => state).toReversed() : undefined;
    for (const [index, { state, afterMs: when }] of steps.entries()) {
      this.#options.timers.after(when, () => {
        const code = state === 'failed' && script?.kind === 'failed' ? script.code : undefined;
        const receipt: Receipt = { message, state, code, at: new Date() };
        protocol.moved?.(receipt);
        this.#options.onMoved(message, state);
        this.#tell(protocol, { ...receipt, state: told?.[index] ?? state }, script);
      });
    }
  }

  /** Ends the callbacks that are under way. */
  stop(): void {
    this.#isStopped = true;
    for (const post of this.#posts) post.abort();
  }

  /** Hands a person's message to our webhook; answers whether it was taken. */
  async receive(protocol: Protocol, message: Inbound): Promise<boolean> {
    if (this.#base === undefined || !protocol.inbound) return false;
    return this.#post(protocol.inbound(message, this.#base));
  }

  #tell(protocol: Protocol, receipt: Receipt, script: ReceiptScript | undefined): void {
    const callback = protocol.callback?.(receipt, this.#base);
    if (!callback || script?.kind === 'dropped') return;
    const { message } = receipt;
    const answered = () => new Promise<void>((resolve) => void this.#post(callback, resolve));
    const times = script?.kind === 'doubled' ? 2 : 1;
    const post = () => {
      const turn = this.#turns.get(message) ?? Promise.resolve();
      this.#turns.set(
        message,
        turn.then(() => Promise.all(Array.from({ length: times }, answered))),
      );
    };
    if (script?.kind === 'delayed') this.#options.timers.after(script.delayMs, post);
    else post();
  }

  /** Whether it was taken, in the end. Never rejects. `onAnswered`: the first attempt has ended. */
  async #post(callback: Callback, onAnswered: () => void = () => {}): Promise<boolean> {
    for (const waitMs of ATTEMPTS_AFTER_MS) {
      if (waitMs > 0) await this.#options.timers.wait(waitMs);
      if (this.#isStopped) return false;
      const status = await this.#attempt(callback);
      onAnswered();
      if (status >= 200 && status < 300) {
        this.counts.taken += 1;
        return true;
      }
    }
    this.counts.lost += 1;
    return false;
  }

  /** The status of one attempt's answer; 0 when none comes. */
  async #attempt(callback: Callback): Promise<number> {
    const { headers, body } = callback;
    const url = 'url' in callback ? callback.url : (this.#base ?? '') + callback.path;
    const ending = new AbortController();
    const timer = setTimeout(() => ending.abort(), TIMEOUT_MS);
    timer.unref();
    this.#posts.add(ending);
    try {
      return (await this.#client({ method: 'POST', url, headers, body }, ending.signal)).status;
    } catch {
      return 0;
    } finally {
      clearTimeout(timer);
      this.#posts.delete(ending);
    }
  }
}

function fatesOf(script: ReceiptScript | undefined): Fate[] {
  if (script?.kind === 'failed') return ['sent', 'failed'];
  if (script?.kind === 'read') return ['sent', 'delivered', 'read'];
  if (script?.kind === 'complained') return ['sent', 'delivered', 'complained'];
  return ['sent', 'delivered'];
}
