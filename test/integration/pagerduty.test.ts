import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import type { Incident, Pager } from '../../lib/providers/pager.ts';
import { createPagerDuty } from '../../lib/providers/pagerduty.ts';
import type { ProviderSimulator } from '../../lib/standins/providers.ts';
import { startProviderSimulator } from '../../lib/standins/providers.ts';
import { answeringServer, failureOf } from '../support/providers.ts';

const twilio = { accountSid: `AC${'0'.repeat(32)}`, authToken: 'secret' };
const routingKey = 'k'.repeat(32);
const patient = { timeoutMs: 5000 };

let simulator: ProviderSimulator;
let keys = 0;

beforeAll(async () => {
  simulator = await startProviderSimulator({ twilio, pagerduty: { routingKey } });
});
afterEach(() => simulator.clear('pagerduty'));
afterAll(() => simulator.stop());

function pager(baseUrl = simulator.url, key = routingKey): Pager {
  return createPagerDuty({ routingKey: key, baseUrl });
}

function incident(change: Partial<Incident> = {}): Incident {
  keys += 1;
  return {
    dedupKey: `sos-${keys}`,
    summary: 'An SOS is not acknowledged',
    source: 'sos',
    at: Date.now(),
    ...change,
  };
}

const stateOf = (key: string) => simulator.incidents().find(({ dedupKey }) => dedupKey === key)?.state;

describe('createPagerDuty', () => {
  test('R3.6 opens an incident, acknowledges and resolves it', async () => {
    const links = [{ href: 'https://ride.example.com/admin/sos/1', text: 'The alert' }];
    const opened = incident({ details: { alertId: 'sos_1', waitedS: 30 }, links });
    await pager().trigger(opened, patient);
    expect(simulator.incidents().at(-1)).toEqual({
      dedupKey: opened.dedupKey,
      state: 'triggered',
      summary: opened.summary,
      source: 'sos',
      severity: 'critical',
      details: { alertId: 'sos_1', waitedS: 30 },
      links,
      triggers: 1,
    });
    expect(simulator.outbox({ to: opened.dedupKey })).toMatchObject([
      { channel: 'pager', provider: 'pagerduty', template: 'trigger', text: opened.summary },
    ]);
    await pager().acknowledge(opened.dedupKey, patient);
    expect(stateOf(opened.dedupKey)).toBe('acknowledged');
    await pager().resolve(opened.dedupKey, patient);
    expect(stateOf(opened.dedupKey)).toBe('resolved');
  });

  test('events for one key meet in one incident, until it is resolved', async () => {
    const opened = incident();
    await pager().trigger(opened, patient);
    await pager().trigger(opened, patient);
    expect(simulator.incidents().filter(({ dedupKey }) => dedupKey === opened.dedupKey)).toMatchObject([
      { triggers: 2, state: 'triggered' },
    ]);
    await pager().resolve(opened.dedupKey, patient);
    await pager().acknowledge(opened.dedupKey, patient);
    expect(stateOf(opened.dedupKey)).toBe('resolved');
    await pager().trigger(opened, patient);
    expect(simulator.incidents().at(-1)).toMatchObject({ dedupKey: opened.dedupKey, triggers: 1 });
    await pager().resolve('nobody-knows-it', patient);
    expect(stateOf('nobody-knows-it')).toBeUndefined();
  });

  test('no phone number leaves, and what is too long is cut', async () => {
    const summary = `SOS of +91 98000 00001 ${'x'.repeat(2000)}`;
    const details = { phone: '+919800000001', note: 'call 9800000001', alertId: 'sos_2' };
    await pager().trigger(incident({ summary, details }), patient);
    const kept = simulator.incidents().at(-1);
    expect(kept?.summary).toHaveLength(1024);
    expect(kept?.details).toMatchObject({ alertId: 'sos_2' });
    expect(JSON.stringify(kept)).not.toMatch(/98000/);
  });

  test.each([
    ['a key of another length', 'short'],
    ['a key that nobody knows', 'z'.repeat(32)],
  ])('fails for good on %s', async (_, key) => {
    const error = await failureOf(pager(simulator.url, key).trigger(incident(), patient));
    expect(error).toMatchObject({ provider: 'pagerduty', code: 'HTTP_400', permanent: true, status: 400 });
  });

  test.each([
    [{ kind: '429' } as const, { code: 'HTTP_429', permanent: false, status: 429 }],
    [{ kind: '500' } as const, { code: 'HTTP_500', permanent: false, status: 500 }],
    [{ kind: 'down' } as const, { code: 'ECONNRESET', permanent: false }],
    [{ kind: 'reject', code: 400 } as const, { code: 'HTTP_400', permanent: true, status: 400 }],
  ])('reports %j', async (script, expected) => {
    simulator.fail('pagerduty', { ...script, times: 1 });
    const opened = incident();
    expect(await failureOf(pager().trigger(opened, patient))).toMatchObject(expected);
    expect(stateOf(opened.dedupKey)).toBeUndefined();
    await pager().trigger(opened, patient);
  });

  test('a lost answer is transient, and sending again makes no second incident', async () => {
    simulator.fail('pagerduty', { kind: 'dropped', times: 1 });
    const opened = incident();
    expect(await failureOf(pager().trigger(opened, patient))).toMatchObject({ permanent: false });
    expect(stateOf(opened.dedupKey)).toBe('triggered');
    await pager().trigger(opened, patient);
    expect(simulator.incidents().filter(({ dedupKey }) => dedupKey === opened.dedupKey)).toHaveLength(1);
  });

  test('only 202 means that it was taken', async () => {
    await using server = await answeringServer((response) => response.end('{}'));
    const error = await failureOf(pager(server.url).trigger(incident(), patient));
    expect(error).toMatchObject({ code: 'HTTP_200', permanent: false, status: 200 });
  });

  test('gives up at the timeout, or when told to', async () => {
    simulator.fail('pagerduty', { kind: 'slow', delayMs: 60_000 });
    const late = await failureOf(pager().trigger(incident(), { timeoutMs: 50 }));
    expect(late).toMatchObject({ code: 'TIMEOUT', permanent: false });
    const error = await failureOf(
      pager().trigger(incident(), { ...patient, signal: AbortSignal.timeout(50) }),
    );
    expect(error).toMatchObject({ code: 'ABORTED', permanent: false });
  });

  test('an error does not show the key', async () => {
    const error = await failureOf(pager('http://127.0.0.1:1').trigger(incident(), patient));
    expect(error).toMatchObject({ code: 'ECONNREFUSED', permanent: false });
    expect(`${error.stack} ${JSON.stringify(error)} ${String(error.cause)}`).not.toContain(routingKey);
  });
});
