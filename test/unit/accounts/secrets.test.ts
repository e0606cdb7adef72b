import { describe, expect, test } from '@jest/globals';
import * as fc from 'fast-check';
import { hashPin, isPin, keyedHash } from '../../../lib/pins.ts';
import { newCode } from '../../../services/accounts/login-codes.ts';

describe('PINs', () => {
  test('fit their own hash, and no other user, PIN or secret', async () => {
    const pin = fc.stringMatching(/^\d{4,6}$/);
    await fc.assert(
      fc.asyncProperty(pin, pin, async (one, other) => {
        const stored = await hashPin('secret', 'usr_a', one);
        expect(await isPin('secret', 'usr_a', one, stored)).toBe(true);
        expect(await isPin('secret', 'usr_a', other, stored)).toBe(one === other);
        expect(await isPin('secret', 'usr_b', one, stored)).toBe(false);
        expect(await isPin('other', 'usr_a', one, stored)).toBe(false);
        expect(stored).not.toContain(one.padEnd(6, '-'));
      }),
      { numRuns: 10 },
    );
  });

  test('nothing fits where no PIN is set', async () => {
    for (const stored of [null, '', '00'])
      for (const given of ['', '0000']) expect(await isPin('secret', 'usr_a', given, stored)).toBe(false);
  });
});

test('login codes are six digits and use the whole range', () => {
  const codes = Array.from({ length: 5000 }, newCode);
  for (const code of codes) expect(code).toMatch(/^\d{6}$/);
  expect(new Set(codes.map((code) => code[0])).size).toBe(10);
  expect(new Set(codes).size).toBeGreaterThan(4900);
});

test('a keyed hash depends on key and text', () => {
  expect(keyedHash('a', 'x')).toBe(keyedHash('a', 'x'));
  expect(new Set([keyedHash('a', 'x'), keyedHash('b', 'x'), keyedHash('a', 'y')]).size).toBe(3);
});
