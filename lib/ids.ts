import { randomFillSync } from 'node:crypto';

const alphabet = '0123456789abcdefghijklmnopqrstuvwxyz';

/** Asking the system costs more than what is asked for: bytes for some hundred ids at once, each used for one only. */
const pool = Buffer.alloc(4096);
let used = pool.length;

function randomByte(): number {
  if (used === pool.length) {
    randomFillSync(pool);
    used = 0;
  }
  const byte = pool[used] ?? 0;
  pool[used++] = 0;
  return byte;
}

/** Characters of [0-9a-z] from the system's random source; 24 are 124 bits, not guessable. */
export function randomId(length = 24): string {
  let id = '';
  while (id.length < length) {
    const byte = randomByte();
    // 252 is the largest multiple of 36 in a byte: beyond it the first letters would be likelier
    if (byte < 252) id += alphabet[byte % 36];
  }
  return id;
}

/** An id of ours, e.g. `trp_…`. */
export const newId = (kind: 'usr' | 'bkg' | 'trp' | 'ntf'): string => `${kind}_${randomId()}`;
