import type { Config } from '../config.ts';
import { trimSlashes } from './http.ts';
import { createPhoneProviders, given } from './phone-providers.ts';
import type { EmailMessage, MessageProvider, PushMessage, WhatsAppMessage } from './provider.ts';
import { createSendGrid } from './sendgrid.ts';
import { createSes } from './ses.ts';
import type { SmsMessage } from './sms.ts';

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
    ...createPhoneProviders(config, statusCallbackOf(config)),
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
              credentials: {
                accessKeyId: config.sesAccessKeyId,
                secretAccessKey: config.sesSecretAccessKey,
              },
            }
          : {}),
        ...given('baseUrl', config.sesBaseUrl),
      }),
    ],
  };
}

/** Where Twilio tells what became of a message. Production without a public address is told nothing, and asks. */
function statusCallbackOf({ publicUrl, nodeEnv, apiPort }: Config): string | undefined {
  const api = publicUrl ?? (nodeEnv === 'production' ? undefined : `http://localhost:${apiPort}`);
  return api === undefined ? undefined : `${trimSlashes(api)}/api/v1/webhooks/twilio/messages`;
}
