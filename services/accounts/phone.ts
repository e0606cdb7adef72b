import { type CountryCode, isSupportedCountry, parsePhoneNumberFromString } from 'libphonenumber-js/max';
import { AppError } from '../../lib/errors.ts';

/**
 * A number as a person writes it, as E.164. Without a country code it is read as one of `region` (ISO 3166).
 * @throws PHONE_INVALID
 */
export function toE164(written: string, region: string): string {
  const country: CountryCode | undefined = isSupportedCountry(region) ? region : undefined;
  const parsed = parsePhoneNumberFromString(written, country);
  if (!parsed?.isValid()) throw new AppError('PHONE_INVALID');
  return parsed.number;
}
