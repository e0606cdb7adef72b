import type { ProviderName } from './failure-scripts.ts';

/** A message that a simulated provider took. `to` is E.164; `at` is ISO 8601, when it was taken. */
export interface OutboxMessage {
  id: string;
  channel: 'sms';
  provider: ProviderName;
  to: string;
  /** The template's name where the provider's protocol carries one; an SMS has none. */
  template: string | null;
  text: string;
  at: string;
}

/** Which messages to list: all given fields must be equal. `limit` is the most to return. */
export interface OutboxFilter {
  to?: string | undefined;
  channel?: string | undefined;
  limit?: number | undefined;
}

/** What simulated providers took, in memory; the oldest go first once there are more than `maxMessages`. */
export class Outbox {
  readonly #maxMessages: number;
  #messages: OutboxMessage[] = [];

  constructor(maxMessages: number) {
    this.#maxMessages = maxMessages;
  }

  add(message: OutboxMessage): void {
    this.#messages.push(message);
    // Dropping the old ones in bulk keeps an insert cheap.
    if (this.#messages.length >= 2 * this.#maxMessages) this.#messages = this.#kept();
  }

  /** The messages that match, newest first. */
  list({ to, channel, limit = Number.POSITIVE_INFINITY }: OutboxFilter = {}): OutboxMessage[] {
    const found: OutboxMessage[] = [];
    for (const message of this.#kept().toReversed()) {
      if (found.length >= limit) break;
      if (to !== undefined && message.to !== to) continue;
      if (channel !== undefined && message.channel !== channel) continue;
      found.push(message);
    }
    return found;
  }

  #kept(): OutboxMessage[] {
    return this.#messages.slice(-this.#maxMessages);
  }
}
