import { describe, expect, test } from '@jest/globals';
import * as fc from 'fast-check';
import { adminRoles, type Role, role } from '../../../contracts/common.ts';
import { mayAccess, mayShare, mayStep } from '../../../services/trips/trip-access.ts';

const trip = { riderId: 'usr_rider', driverId: 'usr_driver' };
const as = (id: string, mine: Role) => ({ id, role: mine, sessionId: 's' });
const rider = as('usr_rider', 'rider');
const driver = as('usr_driver', 'driver');
const steps = ['start', 'end', 'cancel'] as const;

describe('R2.5 who may watch and drive a trip', () => {
  test('a stranger who is no admin may do nothing, whatever the role', () => {
    const stranger = fc.constantFrom<Role>('rider', 'driver').map((mine) => as('usr_other', mine));
    const driverless = fc.boolean();
    fc.assert(
      fc.property(stranger, driverless, (who, alone) => {
        const seen = { ...trip, driverId: alone ? null : trip.driverId };
        expect(mayAccess(seen, who, 'watch')).toBe(false);
        expect(mayAccess(seen, who, 'drive')).toBe(false);
        for (const step of steps) expect(mayStep(seen, who, step)).toBe(false);
      }),
    );
  });

  test('rider, driver and every admin watch; only the driver drives', () => {
    for (const who of [rider, driver, ...adminRoles.map((mine) => as('usr_admin', mine))]) {
      expect(mayAccess(trip, who, 'watch')).toBe(true);
      expect(mayAccess(trip, who, 'drive')).toBe(who === driver);
    }
  });

  test('only the rider shares it', () => {
    for (const who of [
      rider,
      driver,
      as('usr_other', 'rider'),
      ...adminRoles.map((mine) => as('usr_admin', mine)),
    ])
      expect(mayShare(trip, who)).toBe(who === rider);
  });

  test.each<[string, ReturnType<typeof as>, boolean[]]>([
    // start, end, cancel
    ['the driver', driver, [true, true, true]],
    ['the rider', rider, [false, false, true]],
    ['a viewer', as('usr_a', 'viewer'), [false, false, false]],
    ['support', as('usr_a', 'support'), [false, false, false]],
    ['operations', as('usr_a', 'operations'), [false, true, true]],
    ['a super-admin', as('usr_a', 'super-admin'), [false, true, true]],
  ])('%s: start, end, cancel', (_, who, allowed) => {
    expect(role.options).toContain(who.role);
    expect(steps.map((step) => mayStep(trip, who, step))).toEqual(allowed);
  });
});
