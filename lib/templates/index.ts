/** Templates made into messages: per channel and language, checked, cut to fit and escaped. Pure. */

import { AppError } from '../errors.ts';
import type { Channel, EmailMessage, PushMessage, WhatsAppMessage } from '../providers/provider.ts';
import { countSegments } from '../providers/segments.ts';
import type { SmsMessage } from '../providers/sms.ts';
import { catalogue, type Template, type TemplateName } from './catalogue.ts';
import { htmlOf, textOf } from './email-layout.ts';
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

/** What a template takes: its variables by name. @throws TEMPLATE_UNKNOWN */
export const variablesOf = (template: string): Readonly<Record<string, Variable>> => find(template).variables;

function find(template: string): Template & { name: TemplateName; version: number } {
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

const placeholder = /\{(\w+)\}/g;

const fill = (text: string, values: Readonly<Record<string, string>>): string =>
  text.replace(placeholder, (_, name: string) => values[name] ?? '');

const cutTo = (
  { variables }: Template,
  values: Readonly<Record<string, string>>,
  length: number,
): Record<string, string> =>
  Object.fromEntries(
    Object.entries(values).map(([name, value]) => {
      const variable = variables[name];
      return [name, variable && mayBeCut(variable) ? cut(value, length) : value];
    }),
  );

/** Names of templates as operators and WhatsApp have them: a new version is a new registration. */
const registered = (name: TemplateName, version: number): string =>
  `${name.replaceAll('-', '_')}_v${version}`;

/**
 * The value of a registered variable. A link's beginning is part of the registered text, since operators only let through what they know:
 * what varies is its last part.
 */
const dltValue = (variable: Variable | undefined, value: string): string =>
  variable?.kind === 'link' ? (value.split('/').at(-1) ?? '') : value;

function sms(template: ReturnType<typeof find>, values: Record<string, string>, language: Language) {
  const { variables, texts, smsSegments, name, version } = template;
  for (let length = room.sms; length >= leastRoom; length--) {
    const fitting = cutTo(template, values, length);
    const body = fill(texts[language].sms, fitting);
    if (countSegments(body).segments > smsSegments[language]) continue;
    const sent = Object.entries(fitting).map(
      ([key, value]) => [key, dltValue(variables[key], value)] as const,
    );
    const tooLong = sent.filter(([, value]) => value.length > dltMaxLength);
    if (tooLong.length > 0)
      throw new AppError('TEMPLATE_VARIABLE_INVALID', {
        fields: tooLong.map(([key]) => ({
          path: `data.${key}`,
          message: `is over ${dltMaxLength} characters`,
        })),
      });
    return {
      body,
      template: { name: `${registered(name, version)}_${language}`, variables: Object.fromEntries(sent) },
    };
  }
  throw new AppError('TEMPLATE_TOO_LONG');
}

/** WhatsApp reads `*`, `_`, `~` and backticks as markup, and refuses a variable that is empty. */
const forWhatsApp = (value: string): string =>
  value
    .replace(/[*_~`]+/g, ' ')
    .replace(/ {2,}/g, ' ')
    .trim() || '-';

function whatsapp(template: ReturnType<typeof find>, values: Record<string, string>, language: Language) {
  const fitting = cutTo(template, values, room.whatsapp);
  const { texts, variables, name, version } = template;
  const inOrder = [...texts[language].whatsapp.matchAll(placeholder)].map(([, key = '']) => {
    const value = fitting[key] ?? '';
    return variables[key]?.kind === 'link' ? value : forWhatsApp(value);
  });
  const code = Object.entries(variables).find(([, { kind }]) => kind === 'code')?.[0];
  return {
    name: registered(name, version),
    language,
    variables: inOrder,
    // Templates of the category "authentication" have a button that copies the code
    ...(code === undefined ? {} : { button: values[code] ?? '' }),
  };
}

function email(template: ReturnType<typeof find>, values: Record<string, string>, language: Language) {
  const fitting = cutTo(template, values, room.email);
  const { subject, heading, body, highlight, button } = template.texts[language].email;
  const filled = {
    subject: fill(subject, cutTo(template, values, room.whatsapp)),
    heading: fill(heading, fitting),
    body: body.map((paragraph) => fill(paragraph, fitting)),
    ...(highlight === undefined ? {} : { highlight: fill(highlight, fitting) }),
    ...(button ? { button: { label: fill(button.label, fitting), link: fill(button.link, fitting) } } : {}),
  };
  return { subject: filled.subject, html: htmlOf(filled, language), text: textOf(filled, language) };
}

function push(template: ReturnType<typeof find>, values: Record<string, string>, language: Language) {
  const fitting = cutTo(template, values, room.push);
  const { title, body } = template.texts[language].push;
  return {
    title: fill(title, fitting),
    body: fill(body, fitting),
    data: { template: `${template.name}@${template.version}` },
  };
}

const channels: {
  [C in Channel]: (
    template: ReturnType<typeof find>,
    values: Record<string, string>,
    language: Language,
  ) => Rendered[C];
} = { sms, whatsapp, email, push };

/**
 * A template as a channel's message.
 * @throws TEMPLATE_UNKNOWN, TEMPLATE_VARIABLE_MISSING, TEMPLATE_VARIABLE_INVALID (both name the variables), TEMPLATE_TOO_LONG
 */
export function render<C extends Channel>({ template, channel, language, data }: Rendering<C>): Rendered[C] {
  const found = find(template);
  return channels[channel](found, valuesOf(found, data, language), language);
}
