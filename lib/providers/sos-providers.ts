import type { Config } from '../config.ts';
import type { Pager } from './pager.ts';
import { createPagerDuty } from './pagerduty.ts';
import { createPhoneProviders, given, type PhoneProviders, twilioAccountOf } from './phone-providers.ts';
import { createTwilioVoice } from './twilio-voice.ts';
import type { VoiceProvider } from './voice.ts';

/** What an SOS reaches people by. */
export interface SosProviders extends PhoneProviders {
  voice: VoiceProvider;
  pager: Pager;
}

/**
 * The providers of an SOS as they are configured. Apart from those of notifications (index.ts), since no door needs to load
 * clients for email. Throws when the Twilio account SID is not one.
 */
export function createSosProviders(config: Config): SosProviders {
  return {
    ...createPhoneProviders(config),
    voice: createTwilioVoice({
      ...twilioAccountOf(config),
      from: config.twilioVoiceFrom ?? config.twilioFrom,
    }),
    pager: createPagerDuty({
      routingKey: config.pagerdutyRoutingKey,
      ...given('baseUrl', config.pagerdutyBaseUrl),
    }),
  };
}
