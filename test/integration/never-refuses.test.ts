/** What `neverRefuses` promises for the routes that declare it, shown by one that only a test has. */
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import type { ServiceSchema } from 'moleculer';
import { request } from '../support/clients.ts';
import { eventually } from '../support/eventually.ts';
import { type System, startSystem } from '../support/system.ts';

const taken: unknown[] = [];
/** Two actions that differ in the flag alone; the contract is one that takes any object. */
const canary = (name: 'location' | 'accounts', action: string, neverRefuses: boolean): ServiceSchema => ({
  name,
  settings: { rest: '/' },
  actions: {
    [action]: {
      permissions: 'public',
      rest: { method: 'POST', path: `/canary/${action}`, neverRefuses, unlimited: true },
      handler: async (ctx) => {
        taken.push(ctx.params);
        return null;
      },
    },
  },
});

let system: System;
beforeAll(async () => {
  system = await startSystem({ only: ['api'] });
  system.broker.createService(canary('location', 'flush', true));
  system.broker.createService(canary('accounts', 'logout', false));
  await eventually(async () => {
    for (const action of ['flush', 'logout'])
      expect((await request(system, 'POST', `/api/v1/canary/${action}`, { body: {} })).status).toBe(204);
  });
}, 30_000);
afterAll(() => system.stop());

const deep = `${'{"a":'.repeat(40)}1${'}'.repeat(40)}`;
test.each<[string, string, string]>([
  ['a broken body', '{"broken":', 'BAD_JSON'],
  ['a body that is no object', '7', 'BAD_JSON'],
  ['a body that is too large', `{"x":"${'x'.repeat(1_000_000)}"}`, 'PAYLOAD_TOO_LARGE'],
  ['nesting that is too deep', deep, 'VALIDATION'],
  ['keys that change prototypes', '{"__proto__":{"role":"super-admin"}}', 'VALIDATION'],
])('%s is taken where nothing is refused, and refused elsewhere', async (_, body, code) => {
  const before = taken.length;
  expect((await request(system, 'POST', '/api/v1/canary/flush', { body })).status).toBe(204);
  expect(taken).toHaveLength(before + 1);
  const refused = await request(system, 'POST', '/api/v1/canary/logout', { body });
  expect(refused.body.error.code).toBe(code);
  expect(taken).toHaveLength(before + 1);
  expect(Reflect.get({}, 'role')).toBeUndefined();
});

test('a query that is hostile is taken too, and a charset or an encoding that nobody knows', async () => {
  const headers = [
    { 'content-type': 'application/json; charset=klingon' },
    { 'content-encoding': 'rot13' },
    { 'content-type': 'text/plain' },
  ];
  for (const each of headers) {
    const answer = await request(system, 'POST', '/api/v1/canary/flush?a=1&a[__proto__]=x', {
      body: '{"x":1}',
      headers: each,
    });
    expect([each, answer.status]).toEqual([each, 204]);
  }
});
