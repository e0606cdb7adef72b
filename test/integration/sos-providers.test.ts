import { describe, expect, test } from '@jest/globals';
import { loadConfig } from '../../lib/config.ts';
import { createSosProviders } from '../../lib/providers/sos-providers.ts';
import { accountsOf, startProviderSimulator } from '../../lib/standins/providers.ts';

describe('createSosProviders', () => {
  test('R4.2 Twilio first, then MSG91; a voice and a pager, all from the configuration', async () => {
    const configured = loadConfig({ TWILIO_VOICE_FROM: '+12025550123', MSG91_SENDER_ID: 'RIDESF' });
    const simulator = await startProviderSimulator(accountsOf(configured));
    const { url } = simulator;
    const { sms, voice, pager } = createSosProviders({
      ...configured,
      twilioBaseUrl: url,
      msg91BaseUrl: url,
      pagerdutyBaseUrl: url,
    });
    const options = { timeoutMs: 5000 };
    const template = { name: 'sos_raised_v1_en', variables: { name: 'Asha' } };
    for (const provider of sms) await provider.send({ to: '+919800000001', body: 'SOS', template }, options);
    await voice.call({ to: configured.oncallPhone, say: 'SOS' }, options);
    await pager.trigger({ dedupKey: 'sos_1', summary: 'SOS', source: 'sos', at: 0 }, options);

    expect(sms.map((provider) => [provider.name, 'findSent' in provider])).toEqual([
      ['twilio', true],
      ['msg91', false],
    ]);
    expect(simulator.outbox().map(({ provider, channel }) => `${channel} ${provider}`)).toEqual([
      'pager pagerduty',
      'call twilio-voice',
      'sms msg91',
      'sms twilio',
    ]);
    await simulator.stop();
  });
});
