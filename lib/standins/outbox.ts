import type { DeliveryState } from '../providers/provider.ts';
import type { ProviderName } from './failure-scripts.ts';
import { Recent } from './recent.ts';

/** What can become of a message, or of one that was delivered: `complained` is an email that was marked as spam. */
export type Fate = DeliveryState | 'complained';

/**
 * Something that a simulated provider took. `to` is E.164 for SMS, WhatsApp and calls, an address for email, the
 * installation's token for push, the incident's key for a pager; `at` is ISO 8601, when it was taken.
 */
export interface OutboxMessage {
  id: string;
  channel: 'sms' | 'whatsapp' | 'email' | 'push' | 'call' | 'pager';
  provider: ProviderName;
  to: string;
  /** The template's name where the provider's protocol carries one; a pager's event (`trigger`). Else null. */
  template: string | null;
  /** What is read or heard; where only the provider knows the template's text, the values, a line each. */
  text: string;
  /** An email's subject and its HTML. */
  subject?: string;
  html?: string;
  at: string;
  /** What has become of it. */
  state: Fate;
}

/** Which messages to list: all given fields must be equal. `limit` is the most to return. */
export interface OutboxFilter {
  id?: string | undefined;
  to?: string | undefined;
  channel?: string | undefined;
  limit?: number | undefined;
}

/** What simulated providers took, in memory; the oldest go first once there are more than `maxMessages`. */
export class Outbox {
  readonly #messages: Recent<OutboxMessage>;

  constructor(maxMessages: number) {
    this.#messages = new Recent(maxMessages, ({ to }) => to);
  }

  add(message: OutboxMessage): void {
    this.#messages.add(message);
  }

  /** The messages that match, newest first. */
  list({ id, to, channel, limit = Number.POSITIVE_INFINITY }: OutboxFilter = {}): OutboxMessage[] {
    const found: OutboxMessage[] = [];
    for (const message of this.#messages.newestFirst(to)) {
      if (found.length >= limit) break;
      const matches = (id ?? message.id) === message.id && (channel ?? message.channel) === message.channel;
      if (matches) found.push(message);
    }
    return found;
  }
}
