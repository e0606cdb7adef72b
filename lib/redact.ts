/**
 * What may be written down of what happened. It works by what may stay, not by what must go: a long run of digits is a
 * phone number unless it has one of a few shapes that are ours, and a value under a telling name is gone whatever it is.
 */

/** Names whose values never reach a log, also at the end of a longer one (`pushToken`, `caller_number`). */
const secretNames =
  'phone|msisdn|number|otp|pin|token|authorization|cookie|password|passwd|secret|credential|apikey|contact|sealed';
const secretKey = new RegExp(
  `(?:(?:${secretNames})s?|(?:^|[_-])(?:to|from|caller|callee|body|text)|code)$`,
  'i',
);
/** Codes of errors, ours and the system's, stand under the name of a sign-in code: letters first, never digits alone. */
/** What Zod calls it: `code: invalid_type` is about a code, and is none. */
const isIssue = (value: string): boolean =>
  /^(?:invalid_(?:type|value|format|union|key|element)|too_small|too_big|custom|unrecognized_keys)$/.test(
    value,
  );
const isErrorCode = (value: unknown): boolean =>
  typeof value === 'string' && /^[A-Z][A-Z0-9_]{2,63}$/.test(value) && !/\d{4}/.test(value);

/** A character as it may stand in a URL, also when the URL stands in one itself: `%20`, `%2520`. */
const escaped = (codes: string) => `%(?:25)*(?:${codes})`;
/** What people and encodings put between the digits of a number. */
const tail = (codes: string) => `%(?:25)*${codes}`;
const gap = `(?:[\\s\\p{Zs}\\p{Cf}\\p{Pd}().\\/·~+]|${escaped(
  [
    '0[9AD]|20|28|29|2B|2D|2E|2F|7E|A0',
    // No-break space, soft hyphen, middle dot
    `C2${tail('(?:A0|AD|B7)')}`,
    // Spaces, dashes and marks of direction
    `E2${tail('8[01]')}${tail('[89AB][0-9A-F]')}`,
    `E3${tail('80')}${tail('80')}`,
    `EF${tail('BB')}${tail('BF')}`,
    `EF${tail('BC')}${tail('8D')}`,
  ].join('|'),
)})`;
const plus = `(?:[+＋]|${escaped('2B')})`;

/** Shapes with many digits that are not phone numbers. */
const harmless = [
  // Ids of ours (lib/ids.ts; those of alerts may be hashes), and UUIDs
  '(?<![0-9a-z])(?:(?!shr_)[a-z]{3}_[0-9a-z]{24}|sos_[0-9a-f]{32})(?![0-9a-z])',
  '(?<![0-9a-z])[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}(?![0-9a-z])',
  // ISO 8601
  '(?<![\\p{Nd}+])(?:19|20)\\d\\d-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\\d|3[01])(?:[T ][0-2]\\d:[0-5]\\d(?::[0-6]\\d(?:[.,]\\d{1,9})?)?(?:Z|[+-]\\d\\d:?\\d\\d)?)?(?!\\p{Nd})',
  // Epoch ms from 2001 to 2033, and a stream's id made of it: no country has numbers like that
  '(?<![\\p{Nd}+])1\\d{12}(?:-\\d{1,10})?(?!\\p{Nd})',
  // Addresses of machines
  '(?<![\\p{Nd}.+])(?:(?:25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)\\.){3}(?:25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)(?![\\p{Nd}.])',
  // Degrees, metres, shares
  '(?<![\\p{Nd}.+])-?\\d{1,3}\\.\\d{1,17}(?![\\p{Nd}.])',
].join('|');

const credentials = [
  // Our session tokens, those of share links, JSON Web Tokens, and what follows a scheme of HTTP
  'v\\d\\.[\\w-]+\\.[\\w-]+\\.[\\w-]{16,}',
  'shr_[0-9a-z]{8,}',
  'eyJ[\\w-]{8,}\\.[\\w-]+(?:\\.[\\w-]*)?',
  `(?:Bearer|Basic)(?:\\s|\\+|${escaped('20|2B')})+[\\w.~+/%-]{4,}=*`,
].join('|');

/** `user:password@` of an address. */
const userInfo = `(?<=(?:/|${escaped('2F')}){2})[^\\s/@"']{1,256}?(?=@|${escaped('40')})`;
const digits = `(?:${plus}${gap}{0,2})?\\p{Nd}(?:${gap}{0,4}\\p{Nd}){6,}`;
/** One look from left to right: what is harmless is stepped over as a whole. */
const scan = new RegExp(
  `(?<harmless>${harmless})|(?<credential>${credentials}|${userInfo})|(?<digits>${digits})`,
  'giu',
);

/** `"code":"123456"`, `pin=1234`, `%22token%22%3A%22…`: names and values inside JSON, forms, URLs and dumps of objects. */
const quote = `(?:[\\\\"'\\s\\[{(]|${escaped('20|22|27|5B|7B')})`;
const named = new RegExp(
  `((?:${secretNames}|code)s?(?:\\\\*["']|${escaped('22|27')})?\\s{0,4}(?:[:=]|=>|${escaped('3A|3D')})${quote}{0,8}(?:(?:bearer|basic)(?:\\s|\\+|${escaped('20|2B')})+)?)([^\\s"'\\\\&,;\\]})]+)`,
  'gi',
);

/** A text that gives somebody a code to sign in with. */
const spaced = `(?:[\\s+_-]|${escaped('20|2B|2D')})+`;
const tellsCode = new RegExp(
  `(?:sign${spaced}?in|log${spaced}?in|verification|security|one${spaced}time)${spaced}(?:code|password|pin)|\\b(?:OTP|PIN)\\b`,
  'i',
);
const escapesAndDigits = /%(?:25)*[0-9A-F]{2}|\d+/gi;

const startsWithPlus = new RegExp(`^${plus}`, 'iu');

function cleanDigits(text: string): string {
  const count = text.replace(/%(?:25)*[0-9A-F]{2}/gi, '').match(/\p{Nd}/gu)?.length ?? 0;
  const hasPlus = startsWithPlus.test(text);
  // Without its country code a number has 8 digits at least
  return count < (hasPlus ? 7 : 8) ? text : '[phone]';
}

/** A text that may be written down: no phone number, token, password, code or PIN that can be told from it. */
export function cleanText(text: string): string {
  const withoutCodes = tellsCode.test(text)
    ? text.replace(escapesAndDigits, (run) => (/^\d{4,8}$/.test(run) ? '[code]' : run))
    : text;
  return withoutCodes
    .replace(named, (whole, name: string, value: string) =>
      isErrorCode(value) || isIssue(value) ? whole : `${name}[redacted]`,
    )
    .replace(scan, (whole, ...rest) => {
      const groups = rest.at(-1) as { harmless?: string; credential?: string };
      if (groups.harmless !== undefined) return whole;
      return groups.credential === undefined ? cleanDigits(whole) : '[token]';
    });
}

const mostItems = 50;
const mostDepth = 8;

/** An integer that could be a number to call: 10 to 15 digits, and not the time in ms. */
const isPhoneNumber = (value: number | bigint): boolean => /^-?(?!1\d{12}$)\d{10,15}$/.test(String(value));

/** Of what stands under a telling name, only what says nothing: that it is there, a status, the code of an error. */
const isSecret = (key: string, value: unknown): boolean =>
  secretKey.test(key) &&
  value != null &&
  typeof value !== 'boolean' &&
  !(/code$/i.test(key) && (typeof value === 'number' ? value < 1000 : isErrorCode(value)));

const isError = (value: object): value is Error =>
  value instanceof Error || Object.prototype.toString.call(value) === '[object Error]';

/** The parts of an error that help: what else it carries (a request, a payload) is somebody's data. */
function ofError(error: Error, depth: number): Record<string, unknown> {
  const { cause } = error;
  // Whoever throws may have put anything there
  const text = (key: 'name' | 'message' | 'stack') => {
    const value: unknown = Reflect.get(error, key);
    return typeof value === 'string' ? cleanText(value) : '';
  };
  const more: Record<string, unknown> = {};
  for (const key of ['code', 'type'] as const) {
    const value: unknown = Reflect.get(error, key);
    if (value !== undefined) more[key] = typeof value === 'object' ? '[object]' : redact(value, depth + 1);
  }
  const errors: unknown = Reflect.get(error, 'errors');
  return {
    name: text('name'),
    message: text('message'),
    ...more,
    stack: text('stack'),
    ...(cause === undefined ? {} : { cause: redact(cause, depth + 1) }),
    ...(Array.isArray(errors) ? { errors: redact(errors, depth + 1) } : {}),
  };
}

function ofEntries(entries: Iterable<[unknown, unknown]>, depth: number): Record<string, unknown> {
  const copy: Record<string, unknown> = Object.create(null) as Record<string, unknown>;
  let count = 0;
  for (const [name, item] of entries) {
    if (++count > mostItems * 4) break;
    const key = typeof name === 'string' ? name : String(redact(name, mostDepth));
    copy[cleanText(key)] = isSecret(key, item) ? '[redacted]' : redact(item, depth + 1);
  }
  return copy;
}

function ofObject(value: object, depth: number): unknown {
  if (value instanceof Date) return value;
  if (ArrayBuffer.isView(value) || value instanceof ArrayBuffer) return `[${value.byteLength} bytes]`;
  if (isError(value)) return ofError(value, depth);
  if (Array.isArray(value)) return value.slice(0, mostItems).map((item) => redact(item, depth + 1));
  if (value instanceof Set) return [...value].slice(0, mostItems).map((item) => redact(item, depth + 1));
  if (value instanceof Map) return ofEntries(value, depth);
  if (value instanceof URL || value instanceof URLSearchParams) return cleanText(String(value));
  // Boxed texts and numbers
  const inner: unknown = value.valueOf();
  if (typeof inner !== 'object') return redact(inner, depth);
  return ofEntries(Object.entries(value), depth);
}

/**
 * A copy of `value` that may be logged: plain data, without values under telling names, with every text cleaned, keys
 * too. Errors keep name, message, code, type, stack, cause; cycles and depth below 8 are cut. Never throws.
 */
export function redact(value: unknown, depth = 0): unknown {
  if (typeof value === 'string') return cleanText(value);
  if (typeof value === 'number') return isPhoneNumber(value) ? '[phone]' : value;
  if (typeof value === 'bigint') return isPhoneNumber(value) ? '[phone]' : String(value);
  if (typeof value === 'symbol' || typeof value === 'function') return `[${typeof value}]`;
  if (typeof value !== 'object' || value === null) return value;
  if (depth > mostDepth) return '[deep]';
  try {
    return ofObject(value, depth);
  } catch {
    // A getter or a proxy that throws
    return '[unreadable]';
  }
}
