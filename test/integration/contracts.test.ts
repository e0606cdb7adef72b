import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { ServiceBroker, type ServiceSchema } from 'moleculer';
import type { Meta } from '../../lib/context.ts';
import { publicError } from '../../lib/errors.ts';
import { makeBroker } from '../support/broker.ts';
import { startNats, type TestNats } from '../support/nats.ts';

const noTrip = { type: 'Feature', geometry: { type: 'LineString', coordinates: [] } };

/** Services that do what an action of theirs must never do; the contracts are the real ones. */
const honest: ServiceSchema = {
  name: 'accounts',
  actions: {
    driverStatus: {
      permissions: 'internal',
      handler: async () => ({ verified: true, phone: '+919810000001', _id: 'private' }),
    },
    becomeDriver: { permissions: ['rider', 'driver'], handler: async () => null },
    logout: { permissions: 'user', handler: async () => undefined },
  },
};
const broken: ServiceSchema = {
  name: 'location-history',
  actions: {
    track: { permissions: 'public', handler: async () => ({ ...noTrip, properties: { tripId: 'trp_1' } }) },
    sync: { permissions: 'public', handler: async () => 'something' },
  },
};

const refusalOf = (call: Promise<unknown>) =>
  call.then(
    (result) => ({ code: 'none', result }),
    (error: unknown) => publicError(error),
  );

describe('a service that breaks the rules does not start', () => {
  const broker = makeBroker('rules');
  const handler = async () => null;

  test.each<[string, ServiceSchema, string]>([
    [
      'an action without a contract',
      { name: 'accounts', actions: { unknown: { permissions: 'public', handler } } },
      "'accounts.unknown' has no contract",
    ],
    [
      'an action without permissions',
      { name: 'accounts', actions: { logout: handler } },
      "'accounts.logout' declares no permissions",
    ],
    [
      'an internal action with a route',
      {
        name: 'accounts',
        actions: {
          driverStatus: { permissions: 'internal', rest: { method: 'GET', path: '/x' }, handler },
        },
      },
      "'accounts.driverStatus' is internal and must have no route",
    ],
  ])('%s', (_, schema, message) => {
    expect(() => broker.createService(schema)).toThrow(message);
  });

  test('a listener for an event without a contract', async () => {
    const starting = makeBroker('listener');
    starting.createService({ name: 'accounts', events: { 'user.unknown': () => undefined } });
    await expect(starting.start()).rejects.toThrow("'user.unknown' has no contract");
    await starting.stop();
  });
});

describe.each(['in one process', 'over NATS'])('contracts and permissions hold %s', (where) => {
  let nats: TestNats | undefined;
  let brokers: ServiceBroker[] = [];
  const call = (action: string, params: object, user?: Meta['user']) =>
    brokers[0]!.call(action, params, { meta: { user } });

  beforeAll(async () => {
    nats = where === 'over NATS' ? await startNats() : undefined;
    const serving = makeBroker('serving', { NATS_URL: nats?.url });
    const calling = nats ? makeBroker('calling', { NATS_URL: nats.url }) : serving;
    brokers = [...new Set([calling, serving])];
    for (const schema of [honest, broken]) serving.createService(schema);
    await Promise.all(brokers.map((broker) => broker.start()));
    await calling.waitForServices(['accounts', 'location-history'], 5000);
  });
  afterAll(async () => {
    await Promise.all(brokers.map((broker) => broker.stop()));
    await nats?.stop();
  });

  test('the call really goes where it should', () => {
    const local = brokers[0]!.registry.getActionList({ onlyLocal: true }).map(({ name }) => name);
    expect(local.includes('accounts.driverStatus')).toBe(where === 'in one process');
  });

  test('wrong parameters are refused by field', async () => {
    expect(await refusalOf(call('accounts.driverStatus', { userId: { $gt: '' } }))).toMatchObject({
      code: 'VALIDATION',
      fields: [{ path: 'userId', message: expect.any(String) }],
    });
    const user = { id: 'usr_a', role: 'rider', sessionId: 's' } as const;
    expect(await refusalOf(call('accounts.becomeDriver', { vehicle: { plate: 'x' } }, user))).toMatchObject({
      code: 'VALIDATION',
      fields: [{ path: 'vehicle.plate' }, { path: 'vehicle.model' }],
    });
  });

  test('fields that a result must not have are dropped', async () => {
    expect(await call('accounts.driverStatus', { userId: 'usr_a' })).toEqual({ verified: true });
  });

  test('a result that breaks its contract is our fault, and says nothing', async () => {
    const internal = { code: 'INTERNAL', message: 'Something went wrong on our side.' };
    expect(await refusalOf(call('location-history.track', { id: 'trp_1' }))).toEqual(internal);
    expect(await refusalOf(call('location-history.sync', {}))).toEqual(internal);
  });

  test("the caller's permission is asked where the action runs", async () => {
    const vehicle = { plate: 'KA01', model: 'Dzire' };
    const as = (role: 'rider' | 'viewer') => ({ id: 'usr_a', role, sessionId: 's' });
    expect(await refusalOf(call('accounts.logout', {}))).toMatchObject({ code: 'UNAUTHENTICATED' });
    expect(await refusalOf(call('accounts.becomeDriver', { vehicle }))).toMatchObject({
      code: 'UNAUTHENTICATED',
    });
    expect(await refusalOf(call('accounts.becomeDriver', { vehicle }, as('viewer')))).toMatchObject({
      code: 'FORBIDDEN',
    });
    // Permitted and valid: what is wrong now is the stub's own result
    expect(await refusalOf(call('accounts.becomeDriver', { vehicle }, as('rider')))).toMatchObject({
      code: 'INTERNAL',
    });
    expect(await refusalOf(call('accounts.logout', {}, as('rider')))).toEqual({ code: 'none', result: null });
  });
});
