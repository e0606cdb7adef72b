/**
 * What pumping of sign-in codes looks like: somebody earns by every text that we send to numbers of theirs, which often are many in
 * a row, from many addresses of few networks, and never signs in. Pure.
 */
import { isIP } from 'node:net';
import { parsePhoneNumberFromString } from 'libphonenumber-js/max';

/** All but the last four digits of a number (E.164): ranges are rented in blocks. */
export const prefixOf = (phone: string): string => phone.slice(0, -4);

/** The country (ISO 3166) of a number in E.164; `ZZ` for what belongs to none. */
export const countryOf = (phone: string): string => parsePhoneNumberFromString(phone)?.country ?? 'ZZ';

/** `allowed`: countries, `*` for all of them; empty for `region` alone. */
export const isAllowedCountry = (country: string, allowed: readonly string[], region: string): boolean =>
  allowed.length === 0 ? country === region : allowed.includes('*') || allowed.includes(country);

/** The first four of the eight groups of an IPv6 address. */
function first64(address: string): string {
  const [head = '', tail] = address.split('%')[0]?.split('::') ?? [];
  const groupsOf = (part: string) => part.split(':').filter(Boolean);
  const [before, after] = [groupsOf(head), groupsOf(tail ?? '')];
  // Dotted quads at the end stand for two groups
  const written = [...before, ...after].reduce((sum, group) => sum + (group.includes('.') ? 2 : 1), 0);
  const zeros = tail === undefined ? [] : Array.from({ length: Math.max(0, 8 - written) }, () => '0');
  const groups = [...before, ...zeros, ...after];
  return groups
    .slice(0, 4)
    .map((group) => Number.parseInt(group, 16).toString(16))
    .join(':');
}

/** The network that an address belongs to: its /24, or the /64 that one customer has of IPv6. What is no address is itself. */
export function networkOf(ip: string): string {
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(ip)?.[1] ?? ip;
  switch (isIP(mapped)) {
    case 4:
      return `${mapped.split('.').slice(0, 3).join('.')}.0/24`;
    case 6:
      return `${first64(mapped)}::/64`;
    default:
      return ip;
  }
}

/** What came of the codes of one country in one window. */
export interface CodesUsed {
  requested: number;
  used: number;
}

/** Of people who ask for a code, most sign in: fewer than this share is no crowd of people. */
const leastUsed = 0.2;

/**
 * Is this pumping, rather than a busy evening? Many codes in this window, and few used of its and of those of the window before,
 * since the newest have not had the time. `least`: as few codes as that are no matter.
 */
export const isSpike = (now: CodesUsed, before: CodesUsed, least: number): boolean =>
  now.requested >= least && now.used + before.used < leastUsed * (now.requested + before.requested);
