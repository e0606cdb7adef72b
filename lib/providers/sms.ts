import type { CallOptions } from './deadline.ts';
import type { MessageProvider } from './provider.ts';

/**
 * A text message. `to` is in E.164 (`+14155550100`). `body` is the whole text; a provider that only sends texts which
 * are registered beforehand (DLT in India) sends `template` instead: our name of it and the values that go into it.
 */
export interface SmsMessage {
  to: string;
  body: string;
  template?: { name: string; variables: Readonly<Record<string, string>> };
}

/** A provider of SMS. Whoever can be asked for a message by its text tells whether a send that failed without a status was taken. */
export interface SmsProvider extends MessageProvider<SmsMessage> {
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
