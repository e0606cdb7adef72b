/** What may stand in a template's place for a value, and how a value is made harmless for it. Pure. */

/** What texts are written in. */
export const languages = ['en', 'hi'] as const;
export type Language = (typeof languages)[number];

/** The language that a record names; English when it names none, or one that is not known here. */
export const languageOf = (name: string | undefined): Language =>
  languages.find((language) => language === name) ?? 'en';

/** Words of each language. */
type Words = Record<Language, string>;

/**
 * A place for a value in a template.
 *
 * - `code`: 4 to 8 digits; `count`: up to 3 digits; `time`: `HH:MM`.
 * - `link`: an http(s) address.
 * - `place`: latitude and longitude in degrees with five decimals, `12.97161,77.59461`: a metre.
 * - `age`: how long ago, in whole minutes; shown in words.
 * - `choice`: one of our own words, by its key.
 * - `plate`: of a vehicle: letters and digits.
 * - `name`: of a person or a thing, written by anybody: nothing in it becomes a link, a number to dial or markup. Where nothing
 *   is left, `fallback` stands in.
 * - `text`: a sentence of one of our people.
 *
 * Names, plates and texts are cut to the channel's room; nothing else ever is. Without an `optional` one a text is chosen that
 * does not name it.
 */
export type Variable = { optional?: true } & (
  | { kind: 'code' | 'count' | 'time' | 'link' | 'place' | 'age' }
  | { kind: 'choice'; words: Record<string, Words> }
  | { kind: 'name' | 'plate'; fallback: Words }
  | { kind: 'text' }
);

/** DLT: a variable of a registered text holds up to 30 characters. */
export const dltMaxLength = 30;

/**
 * Everything that moves the cursor, hides, or turns the direction of the text. The joiners U+200C and U+200D stay: Devanagari is
 * written with them.
 */
const invisible = /(?![\u200C\u200D])[\p{Cc}\p{Cf}\p{Co}\p{Cn}\p{Zl}\p{Zp}\p{Variation_Selector}\uFFFD]/gu;

/** One line, one blank between words, and nothing that a screen does not show. */
const oneLine = (value: string): string =>
  value
    .slice(0, longestInput)
    .toWellFormed()
    .replace(/[\s\p{Zs}]+/gu, ' ')
    .replace(invisible, '')
    .replace(/ {2,}/g, ' ')
    .trim();

/** No value is looked at further: what is shown of any is far shorter. */
const longestInput = 2000;

/** A name with what could make a link, an address, a number to dial or markup taken out. */
const plainName = (value: string): string =>
  oneLine(
    oneLine(value)
      .replace(/[^\p{L}\p{M}\p{Nd}\p{Zs}.,'’()&+\-\u200C\u200D]/gu, ' ')
      // `evil.example` is a link in any message app
      .replace(/\.(?=[\p{L}\p{Nd}])/gu, '. ')
      .replace(/\p{Nd}(?:[\p{Zs}.()+-]*\p{Nd}){4,}/gu, ' '),
  );

const graphemes = new Intl.Segmenter('und', { granularity: 'grapheme' });

/** As many whole letters as have `length` UTF-16 units at most: an akshara is not cut in two. */
export function cut(value: string, length: number): string {
  if (value.length <= length) return value;
  // Up to the letter that would reach beyond
  const end = graphemes.segment(value).containing(length)?.index;
  return value.slice(0, end).trimEnd();
}

const shapes = {
  code: /^\d{4,8}$/,
  count: /^\d{1,3}$/,
  time: /^(?:[01]\d|2[0-3]):[0-5]\d$/,
  place: /^-?\d{1,2}\.\d{5},-?\d{1,3}\.\d{5}$/,
  age: /^\d{1,9}$/,
} as const;
/** Of a link, UTF-16 units: PUBLIC_URL is kept short enough for ours. */
const longestLink = 100;

const inWords: Record<Language, { now: string; minutes: string; hours: string; days: string }> = {
  en: { now: 'just now', minutes: 'min ago', hours: 'h ago', days: 'days ago' },
  hi: { now: 'अभी', minutes: 'मिनट पहले', hours: 'घंटे पहले', days: 'दिन पहले' },
};

function ageInWords(minutes: number, language: Language): string {
  const words = inWords[language];
  if (minutes < 1) return words.now;
  if (minutes < 60) return `${minutes} ${words.minutes}`;
  if (minutes < 48 * 60) return `${Math.round(minutes / 60)} ${words.hours}`;
  return `${Math.round(minutes / 1440)} ${words.days}`;
}

function isLink(value: string): boolean {
  if (value.length > longestLink || /[\s<>"'`\\]/.test(value)) return false;
  const url = URL.parse(value);
  return (url?.protocol === 'https:' || url?.protocol === 'http:') && url.username === '' && url.host !== '';
}

/** The value as it may be shown, uncut; undefined when it is none for this place. */
export function valueFor(variable: Variable, value: string, language: Language): string | undefined {
  switch (variable.kind) {
    case 'code':
    case 'count':
    case 'time':
    case 'place':
      return shapes[variable.kind].test(value) ? value : undefined;
    case 'age':
      return shapes.age.test(value) ? ageInWords(Number(value), language) : undefined;
    case 'link':
      return isLink(value) ? value : undefined;
    case 'choice':
      return Object.hasOwn(variable.words, value) ? variable.words[value]?.[language] : undefined;
    case 'name':
      return plainName(value) || variable.fallback[language];
    case 'plate':
      return oneLine(value.replace(/[^\p{L}\p{M}\p{Nd}-]/gu, ' ')) || variable.fallback[language];
    case 'text':
      return oneLine(value) || undefined;
  }
}

/** May the value be cut to make it fit? */
export const mayBeCut = ({ kind }: Variable): boolean =>
  kind === 'name' || kind === 'plate' || kind === 'text';
