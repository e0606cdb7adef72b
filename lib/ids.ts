import { randomBytes } from 'node:crypto';

const alphabet = '0123456789abcdefghijklmnopqrstuvwxyz';

/** Characters of [0-9a-z] from the system's random source; 24 are 124 bits, not guessable. */
export function randomId(length = 24): string {
  let id = '';
  while (id.length < length) {
    for (const byte of randomBytes(32)) {
      // 252 is the largest multiple of 36 in a byte: beyond it the first letters would be likelier
      if (byte < 252 && id.length < length) id += alphabet[byte % 36];
    }
  }
  return id;
}

/** An id of ours, e.g. `trp_…`. */
export const newId = (kind: 'usr' | 'bkg' | 'trp' | 'ntf'): string => `${kind}_${randomId()}`;
