import { expect, test } from '@jest/globals';
import { bookingId } from '../../contracts/common.ts';
import { newId, randomId } from '../../lib/ids.ts';

test('ids have the shape that contracts take, and none comes twice', () => {
  const ids = Array.from({ length: 20_000 }, () => newId('trp'));
  for (const id of ids) expect(id).toMatch(/^trp_[0-9a-z]{24}$/);
  expect(bookingId.safeParse(ids[0]).success).toBe(true);
  expect(new Set(ids).size).toBe(ids.length);
});

test('every character is as likely as any other', () => {
  const counts = new Map<string, number>();
  for (let round = 0; round < 15_000; round += 1) {
    for (const character of randomId()) counts.set(character, (counts.get(character) ?? 0) + 1);
  }
  // 10,000 of each expected; 6 standard deviations are 600. A modulo of 256 would give some 12.5 % more
  expect(counts.size).toBe(36);
  for (const count of counts.values()) expect(Math.abs(count - 10_000)).toBeLessThan(600);
});
