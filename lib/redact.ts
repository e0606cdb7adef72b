/** Keys whose values never reach a log, whatever they hold. */
const secretKey =
  /^(phone|to|from|caller|callee|msisdn|code|otp|pin|duresspin|currentpin|token|pushtoken|authorization|cookie|password|secret|authtoken|body|text|contacts|emergencycontacts)$/i;

/** `+` (in a URL `%2B`) and 7 to 15 digits, also when spaces, dots, dashes or brackets stand between them; or 10 or 12
 * digits alone, as national numbers are written (13 are a time in ms). */
const phoneLike = /(?:\+|%2B)\d(?:[\s().-]{0,2}\d){6,14}|(?<![\d.:a-z_-])\d{10}(?:\d{2})?(?![\d.a-z_-])/gi;
const tokenLike = /shr_[0-9a-z]{26}|v1\.usr_[0-9a-z]+\.[0-9a-z]+\.[\w-]+|Bearer\s+[\w.~+/-]+=*/gi;

const cleanText = (text: string): string => text.replace(tokenLike, '[token]').replace(phoneLike, '[phone]');

/**
 * A copy of `value` that may be logged: values under secret keys are gone, phone numbers and tokens inside texts
 * are blotted out, errors keep type, message and stack, cycles and depth below 8 are cut.
 */
export function redact(value: unknown, depth = 0): unknown {
  if (typeof value === 'string') return cleanText(value);
  if (typeof value !== 'object' || value === null) return value;
  if (depth > 8) return '[deep]';
  if (value instanceof Date) return value;
  if (Buffer.isBuffer(value)) return `[${value.length} bytes]`;
  if (value instanceof Error) {
    return {
      name: value.name,
      message: cleanText(value.message),
      ...('code' in value ? { code: value.code } : {}),
      ...('type' in value ? { type: value.type } : {}),
      stack: cleanText(value.stack ?? ''),
    };
  }
  if (Array.isArray(value)) return value.slice(0, 50).map((item) => redact(item, depth + 1));
  const copy: Record<string, unknown> = {};
  for (const [key, item] of Object.entries(value)) {
    copy[key] =
      secretKey.test(key) && item !== null && item !== undefined ? '[redacted]' : redact(item, depth + 1);
  }
  return copy;
}
