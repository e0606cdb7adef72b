import { createHmac, scrypt, timingSafeEqual } from 'node:crypto';
import { promisify } from 'node:util';

const scryptAsync = promisify<string, string, number, Buffer>(scrypt);

/** HMAC-SHA-256, hex: what is stored in place of a code or a number that must be looked up. */
export const keyedHash = (secret: string, text: string): string =>
  createHmac('sha256', secret).update(text).digest('hex');

/** The stored form of a PIN: scrypt over a keyed hash, so that neither the database nor the key alone tells it. */
export async function hashPin(secret: string, userId: string, pin: string): Promise<string> {
  return (await scryptAsync(keyedHash(secret, pin), userId, 32)).toString('hex');
}

/** Does the PIN fit its stored form? */
export async function isPin(
  secret: string,
  userId: string,
  pin: string,
  stored: string | null,
): Promise<boolean> {
  if (!stored) return false;
  const given = Buffer.from(await hashPin(secret, userId, pin), 'hex');
  const kept = Buffer.from(stored, 'hex');
  return given.length === kept.length && timingSafeEqual(given, kept);
}
