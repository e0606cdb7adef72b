/** How a text travels as SMS: `units` are septets in GSM-7 and 16-bit code units in UCS-2. */
export interface SmsSegments {
  encoding: 'GSM-7' | 'UCS-2';
  units: number;
  segments: number;
}

/** 3GPP TS 23.038, section 6.2.1: the default alphabet (without its escape) and the extension table. */
const GSM_BASIC = new Set(
  '@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !"#¤%&\'()*+,-./0123456789:;<=>?' +
    '¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà',
);
const GSM_EXTENDED = new Set('\f^{}\\[~]|€');

/** Units that fit: alone, and in a part of several, where 6 octets go to the header (TS 23.040, 9.2.3.24.1). */
const CAPACITY = { 'GSM-7': { single: 160, part: 153 }, 'UCS-2': { single: 70, part: 67 } } as const;

/**
 * Counts the segments a text is sent (and billed) in. A character of two units is never cut in two: an
 * extended GSM-7 one, a surrogate pair. An empty text still takes one segment.
 */
export function countSegments(text: string): SmsSegments {
  const characters = Array.from(text);
  const isGsm = characters.every((character) => GSM_BASIC.has(character) || GSM_EXTENDED.has(character));
  const encoding = isGsm ? 'GSM-7' : 'UCS-2';
  const widths = characters.map((character) =>
    isGsm ? (GSM_EXTENDED.has(character) ? 2 : 1) : character.length,
  );
  const units = widths.reduce((sum, width) => sum + width, 0);
  const { single, part } = CAPACITY[encoding];
  return { encoding, units, segments: units <= single ? 1 : countParts(widths, part) };
}

function countParts(widths: readonly number[], capacity: number): number {
  let parts = 1;
  let used = 0;
  for (const width of widths) {
    if (used + width > capacity) {
      parts += 1;
      used = 0;
    }
    used += width;
  }
  return parts;
}
