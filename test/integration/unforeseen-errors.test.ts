/** What nobody foresaw: INTERNAL with an id to find it by, and no detail, whichever way it comes. */
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { ServiceBroker, type ServiceSchema } from 'moleculer';
import { loadConfig } from '../../lib/config.ts';
import { publicError } from '../../lib/errors.ts';
import type { Sessions } from '../../mixins/sessions.ts';
import { brokerOptions } from '../../moleculer.config.ts';
import { connectSocket, request } from '../support/clients.ts';
import { eventually } from '../support/eventually.ts';
import { startNats, type TestNats } from '../support/nats.ts';
import { type System, startSystem } from '../support/system.ts';

const detail = 'secret-detail-4711';
/** JavaScript throws anything; lint wants errors. */
const thrown: Record<string, () => Error> = {
  error: () =>
    Object.assign(new Error(detail), { data: { detail }, code: 403, type: detail, fields: [detail] }),
  'an error with a status': () => Object.assign(new TypeError(detail), { statusCode: 404, status: 404 }),
  'a text': () => detail as unknown as Error,
  nothing: () => undefined as unknown as Error,
};
let make = (): Error => new Error(detail);
const failing: ServiceSchema = {
  name: 'trips',
  settings: { rest: '/' },
  actions: {
    get: {
      permissions: 'public',
      rest: { method: 'GET', path: '/trips/:id' },
      handler: () => Promise.reject(make()),
    },
    authorize: { permissions: 'public', handler: () => Promise.reject(make()) },
  },
};
const internal = {
  code: 'INTERNAL',
  message: 'Something went wrong on our side.',
};

let nats: TestNats;
let system: System;
let other: ServiceBroker;
beforeAll(async () => {
  nats = await startNats();
  const NAMESPACE = `unforeseen-${process.pid}`;
  system = await startSystem({ only: ['api', 'gateway'], env: { NATS_URL: nats.url, NAMESPACE } });
  const config = loadConfig({
    NODE_ENV: 'test',
    LOG_LEVEL: 'fatal',
    LOG_FORMAT: 'json',
    NODE_ID: 'failing',
    NATS_URL: nats.url,
    NAMESPACE,
  });
  other = new ServiceBroker({ ...brokerOptions(config), skipProcessEventRegistration: true });
  other.createService(failing);
  await other.start();
  await system.broker.waitForServices('trips', 5000);
  await eventually(async () => {
    expect((await request(system, 'GET', '/api/v1/trips/trp_1')).status).toBe(500);
  });
}, 30_000);
afterAll(async () => {
  await other.stop();
  await system.stop();
  await nats.stop();
});

test.each(Object.entries(thrown))('%s over NATS, by REST and by a socket', async (_, thrower) => {
  make = thrower;
  const called = await system.broker.call('trips.get', { id: 'trp_1' }).then(
    () => 'answered',
    (error: unknown) => publicError(error, 'request'),
  );
  expect(called).toEqual({ ...internal, requestId: 'request' });

  const answer = await request(system, 'GET', '/api/v1/trips/trp_1', {
    headers: { 'x-request-id': 'an-id-of-the-client' },
  });
  expect([answer.status, answer.body]).toEqual([
    500,
    { error: { ...internal, requestId: expect.stringMatching(/^[\w-]{8,}$/) } },
  ]);
  expect(JSON.stringify([answer.body, ...answer.headers])).not.toContain(detail);

  const { sessions } = system.broker.getLocalService('api') as unknown as { sessions: Sessions };
  const socket = await connectSocket(system, (await sessions.create('usr_a', 'rider', 0)).token);
  const refused = await socket.emitWithAck('trip:join', { tripId: 'trp_1' });
  socket.close();
  expect(refused).toEqual({
    ok: false,
    error: { ...internal, requestId: expect.stringMatching(/^[\w-]{8,}$/) },
  });
});
