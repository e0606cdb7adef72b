/** How a text travels as SMS: `units` are septets in GSM-7 and 16-bit code units in UCS-2. */
export interface SmsSegments {
  encoding: 'GSM-7' | 'UCS-2';
  units: number;
  segments: number;
}

/** 3GPP TS 23.038, section 6.2.1: the default alphabet (without its escape) and the extension table. */
const GSM_BASIC =
  '@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !"#¤%&\'()*+,-./0123456789:;<=>?' +
  '¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà';
const GSM_EXTENDED = '\f^{}\\[~]|€';

/** Septets by code unit, up to the euro sign; 0 outside the alphabet. */
const septetsOf = new Uint8Array(0x20ad);
for (const character of GSM_BASIC) septetsOf[character.charCodeAt(0)] = 1;
for (const character of GSM_EXTENDED) septetsOf[character.charCodeAt(0)] = 2;

/** Units that fit: alone, and in a part of several, where 6 octets go to the header (TS 23.040, 9.2.3.24.1). */
const CAPACITY = { 'GSM-7': { single: 160, part: 153 }, 'UCS-2': { single: 70, part: 67 } } as const;

/**
 * Counts the segments a text is sent (and billed) in. A character of two units is never cut in two: an
 * extended GSM-7 one, a surrogate pair. An empty text still takes one segment.
 */
export function countSegments(text: string): SmsSegments {
  let septets = 0;
  let isGsm = true;
  for (let index = 0; index < text.length && isGsm; index++) {
    const width = septetsOf[text.charCodeAt(index)] ?? 0;
    isGsm = width > 0;
    septets += width;
  }
  const encoding = isGsm ? 'GSM-7' : 'UCS-2';
  const units = isGsm ? septets : text.length;
  const { single, part } = CAPACITY[encoding];
  return { encoding, units, segments: units <= single ? 1 : countParts(text, isGsm, part) };
}

function countParts(text: string, isGsm: boolean, capacity: number): number {
  let parts = 1;
  let used = 0;
  for (let index = 0; index < text.length; ) {
    const pair = (text.codePointAt(index) ?? 0) > 0xffff ? 2 : 1;
    const width = isGsm ? (septetsOf[text.charCodeAt(index)] ?? 0) : pair;
    if (used + width > capacity) {
      parts += 1;
      used = 0;
    }
    used += width;
    index += pair;
  }
  return parts;
}
