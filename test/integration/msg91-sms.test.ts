import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import type { Msg91SmsOptions } from '../../lib/providers/msg91-sms.ts';
import { createMsg91Sms } from '../../lib/providers/msg91-sms.ts';
import type { SmsProvider } from '../../lib/providers/sms.ts';
import type { ProviderSimulator } from '../../lib/standins/providers.ts';
import { startProviderSimulator } from '../../lib/standins/providers.ts';
import { answeringServer, failureOf } from '../support/providers.ts';

const twilio = { accountSid: `AC${'0'.repeat(32)}`, authToken: 'secret' };
const authKey = 'key-of-a-test';
const template = {
  name: 'sos',
  variables: { name: 'Asha', map: 'https://maps.example.com/?q=12.9716,77.5946' },
};
const message = { to: '+919800000001', body: 'never sent', template };
const patient = { timeoutMs: 5000 };

let simulator: ProviderSimulator;

beforeAll(async () => {
  simulator = await startProviderSimulator({ twilio, msg91: { authKey } });
});
afterEach(() => simulator.clear('msg91'));
afterAll(() => simulator.stop());

function adapter(overrides: Partial<Msg91SmsOptions> = {}): SmsProvider {
  return createMsg91Sms({
    authKey,
    templates: { sos: 'a'.repeat(24) },
    baseUrl: simulator.url,
    ...overrides,
  });
}

describe('createMsg91Sms', () => {
  test('R4.2 hands a registered template with its values to MSG91', async () => {
    const { providerMessageId } = await adapter({ senderId: 'RIDESF' }).send(message, patient);
    expect(providerMessageId).toMatch(/^[0-9a-f]{24}$/);
    expect(simulator.outbox({ limit: 1 })).toEqual([
      {
        id: providerMessageId,
        channel: 'sms',
        provider: 'msg91',
        to: message.to,
        template: 'a'.repeat(24),
        text: 'name: Asha\nmap: https://maps.example.com/?q=12.9716,77.5946',
        at: expect.any(String),
        state: 'accepted',
      },
    ]);
  });

  test('a value cannot redirect the message', async () => {
    const variables = { ...template.variables, mobiles: '919811111111' };
    await adapter().send({ ...message, template: { name: 'sos', variables } }, patient);
    expect(simulator.outbox({ limit: 1 })).toMatchObject([{ to: message.to }]);
  });

  test.each([
    ['no template', { to: message.to, body: 'text' }],
    ['a template that is not registered', { ...message, template: { name: 'other', variables: {} } }],
  ])('fails for good on %s, without asking', async (_, unregistered) => {
    const before = simulator.outbox().length;
    const error = await failureOf(adapter().send(unregistered, patient));
    expect(error).toMatchObject({ provider: 'msg91', code: 'NO_TEMPLATE', permanent: true });
    expect(simulator.outbox()).toHaveLength(before);
  });

  test.each([
    ['a number that is none', '202', 200, {}, { ...message, to: '+12' }],
    ['a wrong key', '207', 401, { authKey: 'wrong' }, message],
    ['a template id that is none', '211', 200, { templates: { sos: '1107160000000000' } }, message],
    ['a wrong sender', '203', 200, { senderId: 'TOOLONG' }, message],
  ])('fails for good on %s', async (_, code, status, options, refused) => {
    const error = await failureOf(adapter(options).send(refused, patient));
    expect(error).toMatchObject({ code, permanent: true, status });
  });

  test.each([
    [{ kind: '429' } as const, { code: '429', permanent: false, status: 429 }],
    [{ kind: '500' } as const, { code: '601', permanent: false, status: 500 }],
    [{ kind: 'down' } as const, { code: 'ECONNRESET', permanent: false }],
    [{ kind: 'error-in-200' } as const, { code: '418', permanent: true, status: 200 }],
    [{ kind: 'reject', code: 301 } as const, { code: '301', permanent: true }],
    [{ kind: 'reject', code: 311 } as const, { code: '311', permanent: false }],
    [{ kind: 'reject', code: 1 } as const, { code: '001', permanent: false }],
  ])('reports %j', async (script, expected) => {
    simulator.fail('msg91', { ...script, times: 1 });
    const before = simulator.outbox().length;
    expect(await failureOf(adapter().send(message, patient))).toMatchObject(expected);
    expect(simulator.outbox()).toHaveLength(before);
    await adapter().send(message, patient);
  });

  test('a lost answer is transient, though the message was taken', async () => {
    simulator.fail('msg91', { kind: 'dropped', times: 1 });
    const before = simulator.outbox().length;
    const error = await failureOf(adapter().send(message, patient));
    expect(error).toMatchObject({ code: 'ECONNRESET', permanent: false });
    expect(error.status).toBeUndefined();
    expect(simulator.outbox()).toHaveLength(before + 1);
  });

  test.each([
    ['an error without a code', 200, '{"type":"error","message":"Something"}', 'NOT_TAKEN', false],
    ['a success without an id', 200, '{"type":"success"}', 'NOT_TAKEN', false],
    ['a page', 200, '<html></html>', 'NOT_TAKEN', false],
    ['a code in the message', 200, '{"type":"error","message":"code: 207"}', '207', true],
    ['a code beside another', 401, '{"hasError":true,"code":"401","apiError":"201"}', '201', true],
    ['a page that is not there', 404, 'nothing', 'HTTP_404', true],
    ['a redirect', 302, '', 'HTTP_302', true],
    ['a bad gateway', 502, '<html></html>', 'HTTP_502', false],
    ['a known code of a broken server', 503, '{"type":"error","code":301}', '301', false],
  ])('judges %s', async (_, status, body, code, permanent) => {
    await using server = await answeringServer((response) => response.writeHead(status).end(body));
    const error = await failureOf(adapter({ baseUrl: server.url }).send(message, patient));
    expect(error).toMatchObject({ code, permanent, status });
  });

  test('gives up on an answer without end', async () => {
    await using server = await answeringServer((response) => {
      response.writeHead(200);
      response.end('x'.repeat(2 * 1024 * 1024));
    });
    const error = await failureOf(adapter({ baseUrl: server.url }).send(message, patient));
    expect(error).toMatchObject({ permanent: false });
  });

  test('gives up at the timeout, or when told to', async () => {
    simulator.fail('msg91', { kind: 'slow', delayMs: 60_000 });
    expect(await failureOf(adapter().send(message, { timeoutMs: 50 }))).toMatchObject({
      code: 'TIMEOUT',
      permanent: false,
    });
    const stopping = new AbortController();
    const sending = failureOf(adapter().send(message, { ...patient, signal: stopping.signal }));
    stopping.abort();
    expect(await sending).toMatchObject({ code: 'ABORTED', permanent: false });
    expect(await failureOf(adapter().send(message, { ...patient, signal: stopping.signal }))).toMatchObject({
      code: 'ABORTED',
    });
  });

  test('an error shows neither the number, the values nor the key', async () => {
    const refused = `{"type":"error","message":"${message.to} ${authKey} Asha"}`;
    await using server = await answeringServer((response) => response.end(refused));
    for (const error of [
      await failureOf(adapter({ baseUrl: server.url }).send(message, patient)),
      await failureOf(adapter({ baseUrl: 'http://127.0.0.1:1' }).send(message, patient)),
    ]) {
      const shown = `${error.stack} ${JSON.stringify(error)} ${String(error.cause)}`;
      expect(shown).not.toMatch(/9800000001|key-of-a-test|Asha/);
    }
  });

  test('cannot be asked what it took', () => {
    expect('findSent' in adapter()).toBe(false);
  });
});
