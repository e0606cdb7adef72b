import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import * as fc from 'fast-check';
import type { Service } from 'moleculer';
import type { Server } from 'socket.io';
import { type Role, role as roleSchema } from '../../contracts/common.ts';
import type { Sessions } from '../../mixins/sessions.ts';
import { type ClientSocket, connectSocket, request, signIn } from '../support/clients.ts';
import { eventually } from '../support/eventually.ts';
import { type System, startSystem } from '../support/system.ts';

let system: System;
let sessions: Sessions;
let io: Server;
beforeAll(async () => {
  system = await startSystem();
  const accounts: Service & { sessions?: Sessions } = system.broker.getLocalService('accounts');
  const gateway: Service & { io?: Server } = system.broker.getLocalService('gateway');
  sessions = accounts.sessions!;
  io = gateway.io!;
  // Every event is lost
  system.broker.emit = async () => undefined;
});
afterAll(() => system.stop());

/** What the gateway takes the user of a socket for; null when it has cut the socket. */
const known = (socket: ClientSocket): Role | null =>
  io.of('/').sockets.get(socket.id ?? '')?.data.caller.role ?? null;

const change = fc.oneof(
  fc.record({ act: fc.constant('role' as const), role: fc.constantFrom(...roleSchema.options) }),
  fc.record({ act: fc.constant('logout' as const), of: fc.nat(2) }),
  fc.constant({ act: 'logout-all' as const }),
);

let users = 0;

describe('when every event is lost', () => {
  test('P8 R8.3 what a gateway knows of a user follows any change within 1 s', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(change, { minLength: 1, maxLength: 3 }), async (changes) => {
        const userId = `usr_hint${++users}`;
        let version = 1;
        let role: Role = 'rider';
        const made = await Promise.all([1, 2, 3].map(() => sessions.create(userId, role, version)));
        const devices = await Promise.all(
          made.map(async ({ token, sessionId }) => ({
            sessionId,
            alive: true,
            socket: await connectSocket(system, token),
          })),
        );
        try {
          for (const one of changes) {
            if (one.act === 'role') {
              role = one.role;
              await sessions.setRole(userId, role, ++version);
            } else if (one.act === 'logout') {
              devices[one.of]!.alive = false;
              await sessions.revoke(userId, devices[one.of]!.sessionId);
            } else {
              for (const device of devices) device.alive = false;
              await sessions.revokeAll(userId);
            }
            await eventually(
              () =>
                expect(devices.map(({ socket }) => known(socket))).toEqual(
                  devices.map(({ alive }) => (alive ? role : null)),
                ),
              1000,
            );
          }
        } finally {
          for (const { socket } of devices) socket.close();
        }
      }),
      { numRuns: 8 },
    );
  }, 60_000);

  test('R8.1 an older role never replaces a newer one', async () => {
    const { token } = await sessions.create('usr_roles', 'driver', 2);
    await sessions.setRole('usr_roles', 'rider', 1);
    const slowLogin = await sessions.create('usr_roles', 'rider', 1);
    for (const each of [token, slowLogin.token])
      expect(await sessions.resolve(each)).toMatchObject({ role: 'driver' });
  });

  test('P8 R8.3 a change of contacts is in the next answer', async () => {
    const { id, token } = await signIn(system);
    for (const phone of ['+919876500001', '+919876500002']) {
      const body = { contacts: [{ name: 'Mother', phone }] };
      await request(system, 'PUT', '/api/v1/me/emergency-contacts', { token, body });
      expect(await system.broker.call('accounts.emergencyContacts', { userId: id })).toEqual({
        contacts: [{ name: 'Mother', phone, relation: '' }],
      });
    }
  });
});
