import { createHmac, createSecretKey, type KeyObject, scrypt, timingSafeEqual } from 'node:crypto';
import { promisify } from 'node:util';

const scryptAsync = promisify<string, string, number, Buffer>(scrypt);

/** HMAC-SHA-256, hex: what is stored in place of a code or a number that must be looked up. */
export const keyedHash = (secret: string, text: string): string =>
  createHmac('sha256', keyOf(secret)).update(text).digest('hex');

/** Made once: Node takes longer over a key than over a hash. */
const keys = new Map<string, KeyObject>();

function keyOf(secret: string): KeyObject {
  const key = keys.get(secret) ?? createSecretKey(Buffer.from(secret));
  keys.set(secret, key);
  return key;
}

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
