import { describe, expect, test } from '@jest/globals';
import * as fc from 'fast-check';
import {
  countryOf,
  isAllowedCountry,
  isSpike,
  networkOf,
  prefixOf,
} from '../../services/accounts/otp-defence.ts';

const groups = fc.array(fc.integer({ min: 0, max: 0xffff }), { minLength: 8, maxLength: 8 });
const full = (parts: number[]) => parts.map((part) => part.toString(16)).join(':');
/** The same address as the platform shortens it. */
const shortened = (parts: number[]) => new URL(`http://[${full(parts)}]`).hostname.slice(1, -1);

describe('the network of an address', () => {
  test('R4.7 of IPv6 is its first 64 bits, however it is written', () => {
    fc.assert(
      fc.property(groups, groups, (parts, others) => {
        const network = networkOf(full(parts));
        expect(networkOf(shortened(parts))).toBe(network);
        expect(networkOf(full(parts).toUpperCase())).toBe(network);
        expect(networkOf(full([...parts.slice(0, 4), ...others.slice(4)]))).toBe(network);
        const neighbour = [...parts.slice(0, 3), (parts[3]! + 1) % 0x10000, ...parts.slice(4)];
        expect(networkOf(full(neighbour))).not.toBe(network);
      }),
    );
    expect(networkOf('::1')).toBe('0:0:0:0::/64');
    expect(networkOf('2001:db8::1%eth0')).toBe('2001:db8:0:0::/64');
  });

  test('R4.7 of IPv4 is its /24, also when it comes as IPv6; what is no address is itself', () => {
    fc.assert(
      fc.property(fc.ipV4(), fc.integer({ min: 0, max: 255 }), (ip, last) => {
        const network = networkOf(ip);
        expect(network).toBe(ip.replace(/\.\d+$/, '.0/24'));
        expect(networkOf(ip.replace(/\.\d+$/, `.${last}`))).toBe(network);
        expect(networkOf(`::ffff:${ip}`)).toBe(network);
      }),
    );
    fc.assert(fc.property(fc.string(), (text) => expect(typeof networkOf(text)).toBe('string')));
    for (const text of ['internal', 'unknown', '']) expect(networkOf(text)).toBe(text);
  });
});

test('R4.7 numbers of one block have a prefix in common, which is not the number', () => {
  fc.assert(
    fc.property(
      fc.stringMatching(/^\+[1-9]\d{7,10}$/),
      fc.stringMatching(/^\d{4}$/),
      fc.stringMatching(/^\d{4}$/),
      (block, one, other) => {
        expect(prefixOf(block + one)).toBe(prefixOf(block + other));
        expect(prefixOf(block + one)).toBe(block);
      },
    ),
  );
});

test('R4.7 countries are those that are allowed; without any, the region', () => {
  for (const [phone, country] of [
    ['+919810012345', 'IN'],
    ['+12025550123', 'US'],
    ['+14165550123', 'CA'],
    ['+442079460123', 'GB'],
    ['+80012345678', 'ZZ'],
  ] as const)
    expect([phone, countryOf(phone)]).toEqual([phone, country]);
  expect(isAllowedCountry('IN', [], 'IN')).toBe(true);
  expect(isAllowedCountry('US', [], 'IN')).toBe(false);
  expect(isAllowedCountry('US', ['IN', 'US'], 'IN')).toBe(true);
  expect(isAllowedCountry('IN', ['US'], 'IN')).toBe(false);
  expect(isAllowedCountry('ZZ', ['*'], 'IN')).toBe(true);
});

describe('a spike', () => {
  const counts = fc
    .record({ requested: fc.nat(100_000), share: fc.double({ min: 0, max: 1, noNaN: true }) })
    .map(({ requested, share }) => ({ requested, used: Math.floor(requested * share) }));
  const least = fc.integer({ min: 1, max: 1000 });

  test('R4.7 is never seen in few codes, nor where most are used, and always where many are and none is', () => {
    fc.assert(
      fc.property(counts, counts, least, (now, before, few) => {
        if (now.requested < few) expect(isSpike(now, before, few)).toBe(false);
        if (now.used + before.used >= 0.5 * (now.requested + before.requested))
          expect(isSpike(now, before, few)).toBe(false);
        const pumped = { requested: few + now.requested, used: 0 };
        expect(isSpike(pumped, { ...before, used: 0 }, few)).toBe(true);
      }),
    );
  });

  test('R4.7 does not end by more codes that nobody uses, nor begin by codes that are used', () => {
    fc.assert(
      fc.property(counts, counts, least, fc.nat(1000), (now, before, few, more) => {
        const worse = { requested: now.requested + more, used: now.used };
        if (isSpike(now, before, few)) expect(isSpike(worse, before, few)).toBe(true);
        const better = { ...now, used: Math.min(now.requested, now.used + more) };
        if (!isSpike(now, before, few)) expect(isSpike(better, before, few)).toBe(false);
      }),
    );
  });
});
