import type { Config } from '../config.ts';
import { createFcm } from './fcm.ts';
import { createMsg91Sms } from './msg91-sms.ts';
import type { MessageProvider, PushMessage, WhatsAppMessage } from './provider.ts';
import type { SmsProvider } from './sms.ts';
import { createTwilioSms } from './twilio-sms.ts';
import { createWhatsApp } from './whatsapp.ts';

/** What reaches a phone: each channel's providers in the order in which they are tried (R4.2). */
export interface PhoneProviders {
  sms: readonly SmsProvider[];
  whatsapp: readonly MessageProvider<WhatsAppMessage>[];
  push: readonly MessageProvider<PushMessage>[];
}

/** The Twilio account as it is configured. */
export const twilioAccountOf = (config: Config) => ({
  accountSid: config.twilioAccountSid,
  authToken: config.twilioAuthToken,
  ...given('baseUrl', config.twilioBaseUrl),
});

/**
 * The providers as they are configured. `statusCallback` is the URL that Twilio tells of what became of each message. Throws when
 * the Twilio account SID is not one.
 */
export function createPhoneProviders(config: Config, statusCallback?: string): PhoneProviders {
  return {
    sms: [
      createTwilioSms({
        ...twilioAccountOf(config),
        from: config.twilioFrom,
        ...given('statusCallback', statusCallback),
      }),
      createMsg91Sms({
        authKey: config.msg91AuthKey,
        templates: config.msg91TemplateIds,
        ...given('senderId', config.msg91SenderId),
        ...given('baseUrl', config.msg91BaseUrl),
      }),
    ],
    whatsapp: [
      createWhatsApp({
        phoneNumberId: config.whatsappPhoneNumberId,
        token: config.whatsappToken,
        apiVersion: config.whatsappApiVersion,
        ...given('baseUrl', config.whatsappBaseUrl),
      }),
    ],
    push: [createFcm({ account: config.fcmServiceAccount, ...given('baseUrl', config.fcmBaseUrl) })],
  };
}

/** An option that is there or not. */
export function given<K extends string>(key: K, value: string | undefined): Partial<Record<K, string>> {
  return value === undefined ? {} : ({ [key]: value } as Record<K, string>);
}
