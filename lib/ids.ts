import { randomBytes } from 'node:crypto';

const alphabet = '0123456789abcdefghijklmnopqrstuvwxyz';

/** 24 characters of [0-9a-z] from the system's random source: 124 bits, not guessable. */
export function randomId(): string {
  let id = '';
  while (id.length < 24) {
    for (const byte of randomBytes(32)) {
      // 252 is the largest multiple of 36 in a byte: beyond it the first letters would be likelier
      if (byte < 252 && id.length < 24) id += alphabet[byte % 36];
    }
  }
  return id;
}

/** An id of ours, e.g. `trp_…`. */
export const newId = (kind: 'usr' | 'bkg' | 'trp' | 'ntf'): string => `${kind}_${randomId()}`;
