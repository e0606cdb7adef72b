import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import type { TwilioVoiceOptions } from '../../lib/providers/twilio-voice.ts';
import { createTwilioVoice } from '../../lib/providers/twilio-voice.ts';
import type { VoiceProvider } from '../../lib/providers/voice.ts';
import type { ProviderSimulator } from '../../lib/standins/providers.ts';
import { startProviderSimulator } from '../../lib/standins/providers.ts';
import { failureOf } from '../support/providers.ts';

const account = { accountSid: `AC${'0'.repeat(32)}`, authToken: 'secret' };
const call = { to: '+12025550199', say: 'An SOS has waited for 30 seconds. <Open> the "dashboard" & look.' };
const patient = { timeoutMs: 5000 };

let simulator: ProviderSimulator;

beforeAll(async () => {
  simulator = await startProviderSimulator({ twilio: account });
});
afterEach(() => simulator.clear('twilio-voice'));
afterAll(() => simulator.stop());

function voice(overrides: Partial<TwilioVoiceOptions> = {}): VoiceProvider {
  return createTwilioVoice({ ...account, from: '+15005550006', baseUrl: simulator.url, ...overrides });
}

describe('createTwilioVoice', () => {
  test('R3.6 has Twilio call and say the text', async () => {
    const { providerCallId } = await voice().call(call, patient);
    expect(providerCallId).toMatch(/^CA[0-9a-f]{32}$/);
    expect(simulator.outbox({ limit: 1 })).toEqual([
      {
        id: providerCallId,
        channel: 'call',
        provider: 'twilio-voice',
        to: call.to,
        template: null,
        text: call.say,
        at: expect.any(String),
        state: 'accepted',
      },
    ]);
  });

  test.each([
    ['&'.repeat(5000)],
    ['a'.repeat(5000)],
    ['🙂'.repeat(3000)],
    [`${'a'.repeat(3900)}<`.repeat(2)],
  ])('a text that is too long is cut, not refused', async (say) => {
    await voice().call({ ...call, say }, patient);
    const text = simulator.outbox({ channel: 'call', limit: 1 })[0]?.text ?? '';
    expect(say.startsWith(text)).toBe(true);
    expect(text.length).toBeGreaterThan(500);
  });

  test.each([
    ['a number that is none', '21211', { to: '12345' }, {}],
    ['a number that cannot be valid', '21217', { to: '+15005550001' }, {}],
    ['a number that cannot be reached', '21214', { to: '+15005550002' }, {}],
    ['a country that is not allowed', '21215', { to: '+15005550003' }, {}],
    ['a caller that is none', '21212', {}, { from: 'RIDE' }],
    ['no caller', '21213', {}, { from: '' }],
  ])('fails for good on %s', async (_, code, change, options) => {
    const error = await failureOf(voice(options).call({ ...call, ...change }, patient));
    expect(error).toMatchObject({ provider: 'twilio-voice', code, permanent: true, status: 400 });
  });

  test.each([
    [{ kind: '429' } as const, { code: '20429', permanent: false, status: 429 }],
    [{ kind: '500' } as const, { code: '20500', permanent: false, status: 500 }],
    [{ kind: 'down' } as const, { code: 'ECONNRESET', permanent: false }],
    [{ kind: 'dropped' } as const, { code: 'ECONNRESET', permanent: false }],
    [{ kind: 'reject', code: 21216 } as const, { code: '21216', permanent: true, status: 400 }],
  ])('reports %j, of calls alone', async (script, expected) => {
    simulator.fail('twilio', { kind: '500' });
    simulator.fail('twilio-voice', { ...script, times: 1 });
    expect(await failureOf(voice().call(call, patient))).toMatchObject(expected);
    await voice().call(call, patient);
    simulator.clear('twilio');
  });

  test('gives up at the timeout, showing neither number nor token', async () => {
    simulator.fail('twilio-voice', { kind: 'slow', delayMs: 60_000 });
    const error = await failureOf(voice().call(call, { timeoutMs: 50 }));
    expect(error).toMatchObject({ code: 'TIMEOUT', permanent: false });
    expect(`${error.stack} ${JSON.stringify(error)} ${String(error.cause)}`).not.toMatch(/2025550199|secret/);
  });
});
