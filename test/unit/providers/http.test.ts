import { describe, expect, test } from '@jest/globals';
import { retryAfterMsOf } from '../../../lib/providers/http.ts';

describe('retryAfterMsOf', () => {
  const now = Date.parse('2026-11-24T20:00:00Z');

  test.each([
    ['7', 7000],
    ['0', 0],
    ['Tue, 24 Nov 2026 20:00:30 GMT', 30_000],
    ['Tue, 24 Nov 2026 19:00:00 GMT', 0],
    ['soon', undefined],
    [undefined, undefined],
  ])('reads %j', (value, expected) => {
    expect(retryAfterMsOf(value === undefined ? {} : { 'retry-after': value }, now)).toBe(expected);
  });
});
