import type { CallOptions } from './deadline.ts';

/**
 * A text message. `to` is in E.164 (`+14155550100`). `body` is the whole text; a provider that only sends texts which
 * are registered beforehand (DLT in India) sends `template` instead: our name of it and the values that go into it.
 */
export interface SmsMessage {
  to: string;
  body: string;
  template?: { name: string; variables: Readonly<Record<string, string>> };
}

/** What every SMS provider looks like to its callers. */
export interface SmsProvider {
  readonly name: string;
  /**
   * Hands one message to the provider; resolves when the provider has taken it, not when it is delivered.
   *
   * Rejects with a ProviderError. After a transient one without a status (a timeout, a lost connection) the
   * provider may have taken the message all the same: `findSent`, where there is one, tells.
   */
  send(message: SmsMessage, options: CallOptions): Promise<{ providerMessageId: string }>;
  /**
   * Looks for a message with this text to this number that the provider took at `since` (ms) or later and that has not
   * failed since; null when it knows of none. Rejects with a ProviderError, also without permission to look.
   * Not every provider can be asked.
   */
  findSent?(sent: SentSms, options: CallOptions): Promise<{ providerMessageId: string } | null>;
}

/** What is known of a message that may have been sent. `since` (ms) is by the provider's clock: allow for a difference. */
export interface SentSms {
  to: string;
  body: string;
  since: number;
}
