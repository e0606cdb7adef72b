import { expect, test } from '@jest/globals';
import * as fc from 'fast-check';
import { role } from '../../contracts/common.ts';
import { requirePermission } from '../../lib/permissions.ts';

const anyRole = fc.constantFrom(...role.options);
const refusal = (act: () => void): unknown => {
  try {
    act();
    return 'allowed';
  } catch (error) {
    return (error as { type: string }).type;
  }
};

test('nobody needs to sign in for what is public; everybody for the rest', () => {
  expect(refusal(() => requirePermission('public', null))).toBe('allowed');
  expect(refusal(() => requirePermission('user', null))).toBe('UNAUTHENTICATED');
  expect(refusal(() => requirePermission('user', undefined))).toBe('UNAUTHENTICATED');
  expect(refusal(() => requirePermission(['rider'], null))).toBe('UNAUTHENTICATED');
});

test('a list lets its roles in and no other', () => {
  fc.assert(
    fc.property(fc.subarray([...role.options]), anyRole, (allowed, mine) => {
      const caller = { id: 'usr_a', role: mine, sessionId: 's' };
      expect(refusal(() => requirePermission('user', caller))).toBe('allowed');
      expect(refusal(() => requirePermission(allowed, caller))).toBe(
        allowed.includes(mine) ? 'allowed' : 'FORBIDDEN',
      );
    }),
  );
});
