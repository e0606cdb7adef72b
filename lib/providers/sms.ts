/** A text message. `to` is in E.164 (`+14155550100`). */
export interface SmsMessage {
  to: string;
  body: string;
}

/** What every SMS provider looks like to its callers. */
export interface SmsProvider {
  readonly name: string;
  /**
   * Hands one message to the provider; resolves when the provider has taken it, not when it is delivered.
   *
   * `timeoutMs` bounds the whole call: waiting for a connection, the request and the answer.
   * Rejects with a ProviderError. After a transient one without a status (a timeout, a lost connection) the
   * provider may have taken the message all the same.
   */
  send(message: SmsMessage, options: { timeoutMs: number }): Promise<{ providerMessageId: string }>;
}
