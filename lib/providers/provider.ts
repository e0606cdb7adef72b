import type { CallOptions } from './deadline.ts';

/** What carries a message to a person. */
export type Channel = 'push' | 'whatsapp' | 'sms' | 'email';

/** The account that a message is handed to; also its name in metrics and in the delivery log. */
export type MessageProviderName = 'twilio' | 'msg91' | 'whatsapp' | 'sendgrid' | 'ses' | 'fcm';

/** How far a message has come, as a provider tells it; a later state never gives way to an earlier one. */
export type DeliveryState = 'accepted' | 'sent' | 'delivered' | 'read' | 'failed';

/** What a provider says of one message. `code` is its own, and says why it failed. */
export interface Delivery {
  state: DeliveryState;
  code?: string;
}

/**
 * A message of an approved WhatsApp template: the values of its body's variables, in order. `to` is in E.164. `button` is the
 * value of its first button's URL; a template of the category "authentication" needs its code there once more.
 * `notificationId` comes back in the provider's events.
 */
export interface WhatsAppMessage {
  to: string;
  notificationId?: string;
  template: { name: string; language: string; variables: readonly string[]; button?: string };
}

/** An email in both forms. `notificationId` comes back in the provider's events. */
export interface EmailMessage {
  to: string;
  subject: string;
  html: string;
  text: string;
  notificationId: string;
}

/**
 * A push message to one installation of the app. `high` wakes the phone; whoever collapses replaces an earlier one of the
 * same key. `data` reaches the app beside what is shown.
 */
export interface PushMessage {
  token: string;
  title: string;
  body: string;
  data: Readonly<Record<string, string>>;
  priority: 'high' | 'normal';
  ttlMs: number;
  collapseKey?: string;
}

/** What every provider of messages looks like to its callers. */
export interface MessageProvider<M> {
  readonly name: MessageProviderName;
  readonly channel: Channel;
  /**
   * Hands one message to the provider; resolves when the provider has taken it, not when it is delivered.
   *
   * Rejects with a ProviderError. After a transient one without a status (a timeout, a lost connection) the
   * provider may have taken the message all the same.
   */
  send(message: M, options: CallOptions): Promise<{ providerMessageId: string }>;
  /**
   * What became of a message; null when the provider does not know it. Rejects with a ProviderError. Not every provider can
   * be asked.
   */
  deliveryOf?(providerMessageId: string, options: CallOptions): Promise<Delivery | null>;
}
