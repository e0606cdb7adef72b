import type { Config } from '../config.ts';
import { createFcm } from './fcm.ts';
import { trimSlashes } from './http.ts';
import { createMsg91Sms } from './msg91-sms.ts';
import type { Pager } from './pager.ts';
import { createPagerDuty } from './pagerduty.ts';
import type { EmailMessage, MessageProvider, PushMessage, WhatsAppMessage } from './provider.ts';
import { createSendGrid } from './sendgrid.ts';
import { createSes } from './ses.ts';
import type { SmsMessage, SmsProvider } from './sms.ts';
import { createTwilioSms } from './twilio-sms.ts';
import { createTwilioVoice } from './twilio-voice.ts';
import type { VoiceProvider } from './voice.ts';
import { createWhatsApp } from './whatsapp.ts';

/** Our name of the template that contacts get in an SOS. */
export const SOS_TEMPLATE = 'sos';
/** And of the one that tells them that it is over. */
export const SOS_OVER_TEMPLATE = 'sos-over';

/** What an SOS reaches people by. */
export interface SosProviders {
  /** In the order in which they are tried (R4.2). */
  sms: readonly SmsProvider[];
  whatsapp: MessageProviders['whatsapp'];
  push: MessageProviders['push'];
  voice: VoiceProvider;
  pager: Pager;
}

/** What carries notifications: each channel's providers in the order in which they are tried (R4.2, R4.4). */
export interface MessageProviders {
  sms: readonly MessageProvider<SmsMessage>[];
  whatsapp: readonly MessageProvider<WhatsAppMessage>[];
  email: readonly MessageProvider<EmailMessage>[];
  push: readonly MessageProvider<PushMessage>[];
}

/** The providers of notifications as they are configured. Throws when the Twilio account SID is not one. */
export function createMessageProviders(config: Config): MessageProviders {
  return {
    sms: [createTwilioSms({ ...twilioSmsOf(config), ...statusCallbackOf(config) }), msg91Of(config)],
    whatsapp: [
      createWhatsApp({
        phoneNumberId: config.whatsappPhoneNumberId,
        token: config.whatsappToken,
        apiVersion: config.whatsappApiVersion,
        ...given('baseUrl', config.whatsappBaseUrl),
      }),
    ],
    email: [
      createSendGrid({
        apiKey: config.sendgridApiKey,
        from: config.emailFrom,
        ...given('baseUrl', config.sendgridBaseUrl),
      }),
      createSes({
        region: config.sesRegion,
        from: config.emailFrom,
        configurationSet: config.sesConfigurationSet,
        ...(config.sesAccessKeyId && config.sesSecretAccessKey
          ? {
              credentials: { accessKeyId: config.sesAccessKeyId, secretAccessKey: config.sesSecretAccessKey },
            }
          : {}),
        ...given('baseUrl', config.sesBaseUrl),
      }),
    ],
    push: [createFcm({ account: config.fcmServiceAccount, ...given('baseUrl', config.fcmBaseUrl) })],
  };
}

/** The providers of an SOS as they are configured. Throws when the Twilio account SID is not one. */
export function createSosProviders(config: Config): SosProviders {
  const account = twilioAccountOf(config);
  const { whatsapp, push } = createMessageProviders(config);
  return {
    sms: [createTwilioSms(twilioSmsOf(config)), msg91Of(config)],
    whatsapp,
    push,
    voice: createTwilioVoice({ ...account, from: config.twilioVoiceFrom ?? config.twilioFrom }),
    pager: createPagerDuty({
      routingKey: config.pagerdutyRoutingKey,
      ...given('baseUrl', config.pagerdutyBaseUrl),
    }),
  };
}

function twilioAccountOf(config: Config) {
  return {
    accountSid: config.twilioAccountSid,
    authToken: config.twilioAuthToken,
    ...given('baseUrl', config.twilioBaseUrl),
  };
}

const twilioSmsOf = (config: Config) => ({ ...twilioAccountOf(config), from: config.twilioFrom });

function msg91Of(config: Config): SmsProvider {
  return createMsg91Sms({
    authKey: config.msg91AuthKey,
    templates: { ...config.msg91TemplateIds, [SOS_TEMPLATE]: config.msg91SosTemplateId },
    ...given('senderId', config.msg91SenderId),
    ...given('baseUrl', config.msg91BaseUrl),
  });
}

/** Where Twilio tells what became of a message. Production without a public address is told nothing, and asks. */
function statusCallbackOf({ publicUrl, nodeEnv, apiPort }: Config): { statusCallback?: string } {
  const api = publicUrl ?? (nodeEnv === 'production' ? undefined : `http://localhost:${apiPort}`);
  return api === undefined ? {} : { statusCallback: `${trimSlashes(api)}/api/v1/webhooks/twilio/messages` };
}

function given<K extends string>(key: K, value: string | undefined): Partial<Record<K, string>> {
  return value === undefined ? {} : ({ [key]: value } as Record<K, string>);
}
