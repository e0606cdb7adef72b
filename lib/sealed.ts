import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto';
import { currentOf, type Secret } from './secret.ts';

/** A key for sealing: 32 bytes, and the id under which records name it. */
export interface SealKey {
  id: string;
  key: Buffer;
}

/** Encrypts what must not be readable at rest (phone numbers, codes that wait to be sent). */
export interface Sealer {
  /** `<key id>.<nonce>.<tag>.<ciphertext>`, base64url; different each time. */
  seal(text: string): string;
  /** @throws when it was not sealed with one of our keys, or was changed. */
  open(sealed: string): string;
}

/** `id:key` pairs, comma-separated, each key 32 bytes in base64; null when one is not that. */
export function parseSealKeys(text: string): SealKey[] | null {
  const keys = text.split(',').map((pair) => {
    const [, id = '', encoded = ''] = /^\s*([\w-]{1,16}):([A-Za-z0-9+/]{43}=)\s*$/.exec(pair) ?? [];
    return { id, key: Buffer.from(encoded, 'base64') };
  });
  const ids = new Set(keys.map(({ id }) => id));
  return keys.every(({ id, key }) => id !== '' && key.length === 32) && ids.size === keys.length
    ? keys
    : null;
}

/**
 * AES-256-GCM (NIST SP 800-38D), 96-bit random nonce. The first key seals; all of them open, so keys can rotate, also while
 * the process runs.
 */
export function createSealer(keys: Secret<readonly SealKey[]> | readonly SealKey[]): Sealer {
  return {
    seal(text) {
      const [current] = currentOf(keys);
      if (!current) throw new Error('A sealer needs a key');
      const nonce = randomBytes(12);
      const cipher = createCipheriv('aes-256-gcm', current.key, nonce).setAAD(Buffer.from(current.id));
      const ciphertext = Buffer.concat([cipher.update(text, 'utf8'), cipher.final()]);
      return [
        current.id,
        ...[nonce, cipher.getAuthTag(), ciphertext].map((part) => part.toString('base64url')),
      ].join('.');
    },
    open(sealed) {
      const [id = '', nonce = '', tag = '', ciphertext = ''] = sealed.split('.');
      const key = currentOf(keys).find((candidate) => candidate.id === id)?.key;
      if (!key) throw new Error('Sealed with a key that is not configured');
      const decipher = createDecipheriv('aes-256-gcm', key, Buffer.from(nonce, 'base64url'), {
        authTagLength: 16,
      })
        .setAAD(Buffer.from(id))
        .setAuthTag(Buffer.from(tag, 'base64url'));
      return decipher.update(ciphertext, 'base64url', 'utf8') + decipher.final('utf8');
    },
  };
}

/** The sealer of a configuration. */
export const sealerOf = ({ encryptionKeys }: { encryptionKeys: Secret<readonly SealKey[]> }): Sealer =>
  createSealer(encryptionKeys);
