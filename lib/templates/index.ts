/** Templates made into messages: per channel and language, checked, cut to fit and escaped. Pure. */

import { AppError } from '../errors.ts';
import type { Channel, EmailMessage, PushMessage, WhatsAppMessage } from '../providers/provider.ts';
import { countSegments } from '../providers/segments.ts';
import type { SmsMessage } from '../providers/sms.ts';
import { catalogue, type EmailText, type Template, type TemplateName, type Wording } from './catalogue.ts';
import { htmlOf, textOf } from './email-layout.ts';
import { smsName, textsOf, type Worded, whatsappName } from './registered.ts';
import { cut, dltMaxLength, type Language, mayBeCut, type Variable, valueFor } from './variables.ts';

export { type Language, languages } from './variables.ts';

/** A template in one of its versions, `otp@1`: what is kept with a message that waits. */
export type TemplateId = `${TemplateName}@${number}`;

/** What is asked for. `template`: an id, or a name for its newest version. `data` may have more than is needed. */
export interface Rendering<C extends Channel = Channel> {
  template: string;
  channel: C;
  language: Language;
  data: Readonly<Record<string, string>>;
}

/** What each channel's message gets from a template: all but the address. */
export interface Rendered {
  sms: Required<Pick<SmsMessage, 'body' | 'template'>>;
  whatsapp: WhatsAppMessage['template'];
  email: Pick<EmailMessage, 'subject' | 'html' | 'text'>;
  push: Pick<PushMessage, 'title' | 'body' | 'data'>;
}

/** Letters that the channel has for one value, UTF-16 units. */
const room: Record<Channel, number> = { sms: dltMaxLength, whatsapp: 60, push: 60, email: 200 };
/** Names that a long text leaves less for than this say nothing any more. */
const leastRoom = 8;
/** As much of a name as says who it is: before more of it goes, fewer words are said. */
const tellingRoom = 16;

const isName = (name: string): name is TemplateName => Object.hasOwn(catalogue, name);

const versionsOf = (name: TemplateName): Readonly<Record<number, Template>> => catalogue[name];

/** The id of a template's newest version. @throws TEMPLATE_UNKNOWN */
export function newestTemplate(name: string): TemplateId {
  if (!isName(name)) throw new AppError('TEMPLATE_UNKNOWN');
  return `${name}@${Math.max(...Object.keys(versionsOf(name)).map(Number))}`;
}

/** Every version that there is. */
export const templateIds = (): TemplateId[] =>
  (Object.keys(catalogue) as TemplateName[]).flatMap((name) =>
    Object.keys(versionsOf(name)).map((version): TemplateId => `${name}@${Number(version)}`),
  );

/** Which variables each text says that a template may choose on a channel, in the order of choice. @throws TEMPLATE_UNKNOWN */
export function sayings(
  template: string,
  channel: 'sms' | 'whatsapp' | 'push',
  language: Language,
): string[][] {
  const { sms: bySms, whatsapp: byWhatsApp, push: byPush } = find(template).texts[language];
  const wording = { sms: bySms, whatsapp: byWhatsApp, push: byPush.body }[channel];
  return textsOf(wording).map(({ text }) => placesOf(text));
}

/** What a template takes: its variables by name. @throws TEMPLATE_UNKNOWN */
export const variablesOf = (template: string): Readonly<Record<string, Variable>> => find(template).variables;

type Found = Template & { name: TemplateName; version: number };

function find(template: string): Found {
  const [name = '', version = '', ...rest] = (
    template.includes('@') ? template : newestTemplate(template)
  ).split('@');
  const found =
    isName(name) && /^[1-9]\d{0,5}$/.test(version) ? versionsOf(name)[Number(version)] : undefined;
  if (!found || !isName(name) || rest.length > 0) throw new AppError('TEMPLATE_UNKNOWN');
  return { ...found, name, version: Number(version) };
}

/** Values by variable, uncut. All that is wrong is named at once, never with its value. */
function valuesOf(
  { variables }: Template,
  data: Readonly<Record<string, string>>,
  language: Language,
): Record<string, string> {
  const missing: { path: string; message: string }[] = [];
  const invalid: typeof missing = [];
  const values: Record<string, string> = {};
  for (const [name, variable] of Object.entries<Variable>(variables)) {
    const given: unknown = Object.hasOwn(data, name) ? data[name] : undefined;
    const path = `data.${name}`;
    if (given === undefined && variable.optional) continue;
    if (typeof given !== 'string') missing.push({ path, message: 'is missing' });
    else {
      const value = valueFor(variable, given, language);
      if (value === undefined) invalid.push({ path, message: `is no ${variable.kind}` });
      else values[name] = value;
    }
  }
  if (missing.length > 0) throw new AppError('TEMPLATE_VARIABLE_MISSING', { fields: missing });
  if (invalid.length > 0) throw new AppError('TEMPLATE_VARIABLE_INVALID', { fields: invalid });
  return values;
}

/**
 * `data` without what is optional and no value of its kind: for who has to be told, whatever is wrong with the rest.
 * @throws TEMPLATE_UNKNOWN
 */
export function withoutWrong({
  template,
  language,
  data,
}: Pick<Rendering, 'template' | 'language' | 'data'>): Record<string, string> {
  const variables = variablesOf(template);
  return Object.fromEntries(
    Object.entries(data).filter(([name, value]) => {
      const variable = variables[name];
      return !variable?.optional || valueFor(variable, value, language) !== undefined;
    }),
  );
}

/** A text taken apart: what stands between its places, and in every second item the name of a place. */
type Parts = readonly string[];

/** By text: as many as the catalogue has. */
const takenApart = new Map<string, Parts>();

function partsOf(text: string): Parts {
  const known = takenApart.get(text);
  if (known) return known;
  const parts = text.split(/\{(\w+)\}/);
  takenApart.set(text, parts);
  return parts;
}

const placesOf = (text: string): string[] => partsOf(text).filter((_, index) => index % 2 === 1);

const fill = (text: string, values: Readonly<Record<string, string>>): string =>
  partsOf(text)
    .map((part, index) => (index % 2 === 0 ? part : (values[part] ?? '')))
    .join('');

const hasAll = (text: string, values: Readonly<Record<string, string>>): boolean =>
  placesOf(text).every((place) => values[place] !== undefined);

/** Those texts of a wording whose values are all there, in the order in which they are tried. */
const sayable = (wording: Wording, values: Readonly<Record<string, string>>): Worded[] =>
  textsOf(wording).filter(({ text }) => hasAll(text, values));

/** The text of a wording where any length is fine. */
function firstOf(wording: Wording, values: Readonly<Record<string, string>>): Worded {
  const [first] = sayable(wording, values);
  if (!first) throw new Error('A wording needs a text that says nothing optional');
  return first;
}

/** The values as they fit; where no letter of a name does, as in one that is all marks over marks, what stands in for it. */
const cutTo = (
  { variables }: Template,
  values: Readonly<Record<string, string>>,
  length: number,
  language: Language,
): Record<string, string> =>
  Object.fromEntries(
    Object.entries(values).map(([name, value]) => {
      const variable = variables[name];
      if (!variable || !mayBeCut(variable)) return [name, value];
      return [name, cut(value, length) || ('fallback' in variable ? variable.fallback[language] : '')];
    }),
  );

/**
 * The value of a registered variable. A link's beginning is part of the registered text, since operators only let through what they know:
 * what varies is its last part.
 */
const dltValue = (variable: Variable | undefined, value: string): string =>
  variable?.kind === 'link' ? (value.split('/').at(-1) ?? '') : value;

/** What makes `make` fit with values cut to the greatest length from `least` to `most`; undefined if `least` is too much. */
function longestThat<T>(make: (length: number) => T | undefined, least: number, most: number): T | undefined {
  const whole = make(most);
  if (whole !== undefined || most <= least) return whole;
  let best = make(least);
  if (best === undefined) return undefined;
  for (let [fits, fails] = [least, most]; fails - fits > 1; ) {
    const length = (fits + fails) >> 1;
    const made = make(length);
    if (made === undefined) fails = length;
    else [best, fits] = [made, length];
  }
  return best;
}

function sms(template: Found, values: Record<string, string>, language: Language): Rendered['sms'] {
  const { variables, texts, smsSegments, name, version } = template;
  const isCut = (key: string) => variables[key] !== undefined && mayBeCut(variables[key]);
  const longest = Math.max(
    0,
    ...Object.keys(values).map((key) => (isCut(key) ? (values[key]?.length ?? 0) : 0)),
  );
  const candidates = sayable(texts[language].sms, values);
  let tooLong: string[] = [];
  for (const [index, { text, ending }] of candidates.entries()) {
    const places = [...new Set(placesOf(text))];
    const sent = (key: string, value = '') => dltValue(variables[key], value);
    tooLong = places.filter((key) => !isCut(key) && sent(key, values[key]).length > dltMaxLength);
    if (tooLong.length > 0) continue;
    const least = index < candidates.length - 1 ? tellingRoom : leastRoom;
    const fit = (length: number) => {
      const fitting = cutTo(template, values, length, language);
      const body = fill(text, fitting);
      return countSegments(body).segments > smsSegments[language] ? undefined : { body, fitting };
    };
    const found = longestThat(fit, least, Math.max(least, Math.min(room.sms, longest)));
    if (!found) continue;
    const sentOf = Object.fromEntries(places.map((key) => [key, sent(key, found.fitting[key])]));
    return {
      body: found.body,
      template: { name: smsName(name, version, ending, language), variables: sentOf },
    };
  }
  if (tooLong.length === 0) throw new AppError('TEMPLATE_TOO_LONG');
  throw new AppError('TEMPLATE_VARIABLE_INVALID', {
    fields: tooLong.map((key) => ({ path: `data.${key}`, message: `is over ${dltMaxLength} characters` })),
  });
}

/** WhatsApp reads `*`, `_`, `~` and backticks as markup, and refuses a variable that is empty. */
const forWhatsApp = (value: string): string =>
  value
    .replace(/[*_~`]+/g, ' ')
    .replace(/ {2,}/g, ' ')
    .trim() || '-';

function whatsapp(template: Found, values: Record<string, string>, language: Language): Rendered['whatsapp'] {
  const fitting = cutTo(template, values, room.whatsapp, language);
  const { texts, variables, name, version } = template;
  const { text, ending } = firstOf(texts[language].whatsapp, values);
  const inOrder = placesOf(text).map((key) => {
    const value = fitting[key] ?? '';
    return variables[key]?.kind === 'link' ? value : forWhatsApp(value);
  });
  const code = Object.entries(variables).find(([, { kind }]) => kind === 'code')?.[0];
  return {
    name: whatsappName(name, version, ending),
    language,
    variables: inOrder,
    // Templates of the category "authentication" have a button that copies the code
    ...(code === undefined ? {} : { button: values[code] ?? '' }),
  };
}

function email(template: Found, values: Record<string, string>, language: Language): Rendered['email'] {
  const fitting = cutTo(template, values, room.email, language);
  const { subject, heading, body, highlight, button }: EmailText = template.texts[language].email;
  const isSayable = (text: string | undefined): text is string => text !== undefined && hasAll(text, values);
  const filled = {
    subject: fill(subject, cutTo(template, values, room.whatsapp, language)),
    heading: fill(heading, fitting),
    body: body.filter(isSayable).map((paragraph) => fill(paragraph, fitting)),
    ...(isSayable(highlight) ? { highlight: fill(highlight, fitting) } : {}),
    ...(button && isSayable(button.link)
      ? { button: { label: fill(button.label, fitting), link: fill(button.link, fitting) } }
      : {}),
  };
  return { subject: filled.subject, html: htmlOf(filled, language), text: textOf(filled, language) };
}

function push(template: Found, values: Record<string, string>, language: Language): Rendered['push'] {
  const fitting = cutTo(template, values, room.push, language);
  const { title, body } = template.texts[language].push;
  return {
    title: fill(title, fitting),
    body: fill(firstOf(body, values).text, fitting),
    data: { template: `${template.name}@${template.version}` },
  };
}

const channels: {
  [C in Channel]: (template: Found, values: Record<string, string>, language: Language) => Rendered[C];
} = { sms, whatsapp, email, push };

/**
 * A template as a channel's message.
 * @throws TEMPLATE_UNKNOWN, TEMPLATE_VARIABLE_MISSING, TEMPLATE_VARIABLE_INVALID (both name the variables), TEMPLATE_TOO_LONG
 */
export function render<C extends Channel>({ template, channel, language, data }: Rendering<C>): Rendered[C] {
  const found = find(template);
  return channels[channel](found, valuesOf(found, data, language), language);
}
