import { describe, expect, test } from '@jest/globals';
import { isValidPhoneNumber } from 'libphonenumber-js/max';
import { MAX_TRIPS, people, runNumber } from '../../support/simulate/people.ts';

describe('made-up people', () => {
  test('have valid numbers of their own', () => {
    const phones = [0, 1, 77, MAX_TRIPS - 1].flatMap((trip) =>
      [1, 4321, 9999].flatMap((run) => {
        const { driver, rider } = people(run, trip);
        return [driver.phone, rider.phone];
      }),
    );
    expect(phones.filter((phone) => !isValidPhoneNumber(phone))).toEqual([]);
    expect(new Set(phones).size).toBe(phones.length);
  });

  test('are others in a run that begins a second later, and never the demo logins', () => {
    const now = Date.UTC(2026, 0, 1);
    expect(runNumber(now)).not.toBe(runNumber(now + 1000));
    const runs = Array.from({ length: 9999 }, (_, seconds) => runNumber(now + seconds * 1000));
    expect([Math.min(...runs), Math.max(...runs), new Set(runs).size]).toEqual([1, 9999, 9999]);
  });
});
