import { describe, expect, test } from '@jest/globals';
import { ProviderError } from '../../../lib/providers/provider-error.ts';
import type { SmsProvider } from '../../../lib/providers/sms.ts';
import { createSealer } from '../../../lib/sealed.ts';
import { render } from '../../../lib/templates/index.ts';
import {
  attempt,
  claimed,
  claimLastsMs,
  dueNext,
  openContacts,
  placeOf,
} from '../../../services/sos/contact-messages.ts';
import { type ContactMessage, type Way, waysOf } from '../../../services/sos/ways.ts';
import { state } from './records.ts';

const place = (lat: number) => ({ lat, lng: 1, accuracy: null, source: 'gps' as const, ageMs: 0 });
const message: ContactMessage = {
  to: '+919812345678',
  said: { template: 'sos-raised', language: 'en', data: { name: 'Asha' } },
  devices: [],
  opens: null,
};
const by = (name: string) => ({ name, channel: 'sms' as const });
const silent = new ProviderError({ provider: 'twilio', code: 'ECONNRESET', permanent: false });
const busy = new ProviderError({ provider: 'twilio', code: '20429', permanent: false, status: 429 });
const unknown = new ProviderError({ provider: 'twilio', code: '21211', permanent: true, status: 400 });

/** Providers that fail with what is listed, one after the other, and then succeed. */
function providers(failures: ProviderError[], found: string | null = null) {
  const calls: string[] = [];
  const send = (name: string) => async () => {
    calls.push(name);
    const failure = failures.shift();
    if (failure) throw failure;
    return { providerMessageId: `${name}-${calls.length}` };
  };
  const twilio: Way = {
    name: 'twilio',
    channel: 'sms',
    send: send('twilio'),
    async findSent(_message, since) {
      calls.push(`asked since ${since}`);
      return found === null ? null : { providerMessageId: found };
    },
  };
  const msg91: Way = { name: 'msg91', channel: 'sms', send: send('msg91') };
  return { calls, sms: [twilio, msg91] };
}

/** Attempts as they come due, the clock a second on each time, until one succeeds or none is left. */
async function sendAll(sms: Way[]) {
  let at = 0;
  let now = state();
  for (let due = dueNext(sms, now); due && now.status !== 'sent'; due = dueNext(sms, now)) {
    at += 1000;
    ({ state: now } = await attempt(sms, message, claimed(now, by(due.channel), at, null), () => at));
  }
  return now;
}

describe('attempts at one message', () => {
  test('R3.6 three times each, then the next; a permanent refusal goes on at once', async () => {
    const all = providers(Array.from({ length: 6 }, () => busy));
    expect(await sendAll(all.sms)).toMatchObject({ status: 'failed', code: '20429' });
    expect(all.calls).toEqual(['twilio', 'twilio', 'twilio', 'msg91', 'msg91', 'msg91']);
    const wrong = providers([unknown]);
    expect(await sendAll(wrong.sms)).toMatchObject({ status: 'sent', provider: 'msg91' });
    expect(wrong.calls).toEqual(['twilio', 'msg91']);
  });

  test('an attempt that may have arrived is asked for before the next, also by the next provider', async () => {
    const arrived = providers([silent], 'SM1');
    expect(await sendAll(arrived.sms)).toMatchObject({
      status: 'sent',
      provider: 'twilio',
      messageId: 'SM1',
    });
    expect(arrived.calls).toEqual(['twilio', 'asked since 1000']);
    const not = providers([silent, busy, busy]);
    const sent = await sendAll(not.sms);
    expect(sent).toMatchObject({ status: 'sent', provider: 'msg91' });
    expect(sent.unsure).toBeUndefined();
    const asked = 'asked since 1000';
    expect(not.calls).toEqual(['twilio', asked, 'twilio', asked, 'twilio', asked, 'msg91']);
  });

  test('a refusal leaves no doubt: nobody is asked', async () => {
    const { sms, calls } = providers([busy], 'SM1');
    await sendAll(sms);
    expect(calls).toEqual(['twilio', 'twilio']);
  });

  test('a claim that died is asked for too, and the text names the place that it named', async () => {
    const died = claimed(state(), by('twilio'), 500, place(1));
    expect(placeOf(died, place(2))).toEqual(place(1));
    const again = claimed(died, by('twilio'), 9000, placeOf(died, place(2)));
    expect(again).toMatchObject({ unsure: { provider: 'twilio', since: 500 }, where: place(1) });
    expect(claimLastsMs(again)).toBeGreaterThan(claimLastsMs(died));
    const { sms, calls } = providers([], 'SM7');
    const { state: after, resent } = await attempt(sms, message, again, () => 9001);
    expect([after.status, after.messageId, resent, calls]).toEqual([
      'sent',
      'SM7',
      false,
      ['asked since 500'],
    ]);
    const unasked = providers([]);
    const other = claimed(claimed(state(), by('msg91'), 500, null), by('msg91'), 9000, null);
    expect((await attempt(unasked.sms, message, other, () => 9001)).resent).toBe(true);
    // Not in doubt any more: where they are now
    expect(placeOf(state({ status: 'failed', where: place(1) }), place(2))).toEqual(place(2));
  });
});

describe('contacts of a card', () => {
  const sealer = createSealer([{ id: 'k', key: Buffer.alloc(32, 1) }]);
  test('each number once, under a key that does not tell it', () => {
    const listed = ['Ravi', 'Ravi again'].map((name) => ({
      name,
      phone: '+919812345678',
      relation: 'friend',
    }));
    const contacts = openContacts(sealer, 'secret', sealer.seal(JSON.stringify(listed)));
    expect(contacts).toEqual([{ ...listed[0], key: expect.stringMatching(/^[0-9a-f]{16}$/) }]);
  });
});

describe('ways to a contact', () => {
  const calls: unknown[] = [];
  const taking = (
    name: 'whatsapp' | 'fcm',
    channel: 'whatsapp' | 'push',
    failing: Record<string, Error> = {},
  ) => ({
    name,
    channel,
    async send(sent: { to?: string; token?: string }) {
      calls.push(sent);
      const failure = failing[sent.token ?? ''];
      if (failure) throw failure;
      return { providerMessageId: `${name}-1` };
    },
  });
  const options = { timeoutMs: 1000 };
  const raised: ContactMessage = {
    ...message,
    said: { template: 'sos-raised', language: 'hi', data: { name: 'Asha', link: 'https://x' } },
    devices: ['one', 'two'],
    opens: 'https://x',
  };
  const over: ContactMessage = {
    ...raised,
    said: { template: 'sos-over', language: 'hi', data: { name: 'Asha', how: 'resolved' } },
  };

  test('R3.6 WhatsApp comes after all SMS; each gets its template, to the letter what is registered', async () => {
    calls.length = 0;
    const sms: SmsProvider = {
      name: 'twilio',
      channel: 'sms',
      async send(sent) {
        calls.push(sent);
        return { providerMessageId: 'SM1' };
      },
      async findSent(sent) {
        calls.push(sent);
        return null;
      },
    };
    const { texts } = waysOf({ sms: [sms], whatsapp: [taking('whatsapp', 'whatsapp')], push: [] });
    expect(texts.map(({ name, channel }) => [name, channel])).toEqual([
      ['twilio', 'sms'],
      ['whatsapp', 'whatsapp'],
    ]);
    const { to } = message;
    for (const one of [raised, over]) {
      calls.length = 0;
      for (const way of texts) await way.send(one, options);
      // Looked for by the text that was sent
      expect(await texts[0]?.findSent?.(one, 7, options)).toBeNull();
      const text = render({ ...one.said, channel: 'sms' });
      expect(calls).toEqual([
        { to, ...text },
        { to, template: render({ ...one.said, channel: 'whatsapp' }) },
        { to, body: text.body, since: 7 },
      ]);
    }
    const blind: SmsProvider = { name: 'msg91', channel: 'sms', send: sms.send.bind(sms) };
    expect(waysOf({ sms: [blind], whatsapp: [], push: [] }).texts[0]).not.toHaveProperty('findSent');
    const unknownTemplate = { ...raised, said: { ...raised.said, template: 'other' } };
    await expect(texts[1]?.send(unknownTemplate, options)).rejects.toMatchObject({
      type: 'TEMPLATE_UNKNOWN',
    });
  });

  test('+ a push message goes to all devices; one that takes it is enough', async () => {
    calls.length = 0;
    const gone = new ProviderError({ provider: 'fcm', code: 'UNREGISTERED', permanent: true, status: 404 });
    const pushBy = (failing: Record<string, Error>) =>
      waysOf({ sms: [], whatsapp: [], push: [taking('fcm', 'push', failing)] }).push[0]!;
    await expect(pushBy({ one: gone }).send(raised, options)).resolves.toEqual({
      providerMessageId: 'fcm-1',
    });
    expect(calls).toHaveLength(2);
    expect(calls[1]).toMatchObject({
      token: 'two',
      title: 'SOS: Asha',
      body: 'अभी मदद चाहिए। जगह पता नहीं। उन्हें फ़ोन करें।',
      priority: 'high',
      data: { template: 'sos-raised@1', link: 'https://x' },
    });
    await expect(pushBy({ one: gone, two: busy }).send(raised, options)).rejects.toBe(busy);
    await expect(pushBy({ one: gone, two: gone }).send(raised, options)).rejects.toBe(gone);
    await expect(pushBy({}).send({ ...raised, devices: [] }, options)).rejects.toMatchObject({
      code: 'NO_DEVICE',
      permanent: true,
    });
  });
});
