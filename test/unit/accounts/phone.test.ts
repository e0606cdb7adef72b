import { describe, expect, test } from '@jest/globals';
import * as fc from 'fast-check';
import { toE164 } from '../../../services/accounts/phone.ts';

describe('toE164', () => {
  test.each([
    ['98765 43210', 'IN', '+919876543210'],
    ['098765-43210', 'IN', '+919876543210'],
    ['+91 98765 43210', 'IN', '+919876543210'],
    ['0091 98765 43210', 'IN', '+919876543210'],
    ['(415) 555-2671', 'US', '+14155552671'],
    ['+14155552671', 'IN', '+14155552671'],
  ])('%s in %s is %s', (written, region, expected) => {
    expect(toE164(written, region)).toBe(expected);
  });

  test.each([
    '',
    '12345',
    '+91',
    '+9198',
    '+910234567890',
    '+99999999999999',
    'phone',
    '+91987654321098765',
    '{"$gt":""}',
  ])('refuses %j', (written) => {
    expect(() => toE164(written, 'IN')).toThrow(expect.objectContaining({ type: 'PHONE_INVALID' }));
  });

  test('a region that is none leaves numbers with a country code readable', () => {
    expect(toE164('+919876543210', 'XX')).toBe('+919876543210');
    expect(() => toE164('9876543210', 'XX')).toThrow();
  });

  test('whatever is typed gives E.164 or a refusal, and E.164 stays as it is', () => {
    const typed = fc.oneof(fc.string(), fc.stringMatching(/^\+?[0-9 ()-]{4,20}$/));
    fc.assert(
      fc.property(typed, (written) => {
        let phone: string;
        try {
          phone = toE164(written, 'IN');
        } catch (error) {
          expect(error).toMatchObject({ type: 'PHONE_INVALID' });
          return;
        }
        expect(phone).toMatch(/^\+[1-9]\d{6,14}$/);
        expect(toE164(phone, 'IN')).toBe(phone);
      }),
    );
  });
});
