import twilio from 'twilio';
import { ProviderError } from './provider-error.ts';
import type { TwilioAccountOptions } from './twilio-client.ts';
import { createTwilioClient } from './twilio-client.ts';
import type { VoiceProvider } from './voice.ts';

/** `from` (E.164) is a number of ours that may make calls. */
export interface TwilioVoiceOptions extends TwilioAccountOptions {
  from: string;
}

const PROVIDER = 'twilio-voice';

/** Whoever is woken by a call misses its first words. */
const TIMES_SAID = 3;

/** What Twilio takes as TwiML in a request (error 32018). */
const MAX_TWIML_CHARACTERS = 4000;

/** `&quot;` */
const MAX_ESCAPED = 6;

/**
 * A voice adapter over Twilio's own client: the text is said three times, then the call ends. A text that is too long is
 * cut. Throws when the account SID is not one.
 *
 * Sources: https://www.twilio.com/docs/voice/api/call-resource#create-a-call-resource and
 * https://www.twilio.com/docs/voice/twiml/say
 */
export function createTwilioVoice(options: TwilioVoiceOptions): VoiceProvider {
  const client = createTwilioClient(PROVIDER, options);
  return {
    name: PROVIDER,
    async call({ to, say }, callOptions) {
      const twiml = twimlOf(say);
      const { sid } = await client.call(callOptions, ({ calls }) =>
        calls.create({ to, from: options.from, twiml }),
      );
      if (!sid) throw new ProviderError({ provider: PROVIDER, code: 'NO_SID', permanent: false });
      return { providerCallId: sid };
    },
  };
}

/** The longest beginning of the text that fits, escaped. */
function twimlOf(say: string): string {
  const render = (text: string) => {
    const response = new twilio.twiml.VoiceResponse();
    response.say({ loop: TIMES_SAID }, text);
    return response.toString();
  };
  const characters = Array.from(say).slice(0, MAX_TWIML_CHARACTERS);
  let twiml = render(characters.join(''));
  while (twiml.length > MAX_TWIML_CHARACTERS) {
    // No character takes more than MAX_ESCAPED, so that never too many go
    characters.length -= Math.ceil((twiml.length - MAX_TWIML_CHARACTERS) / MAX_ESCAPED);
    twiml = render(characters.join(''));
  }
  return twiml;
}
