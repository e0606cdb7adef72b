/** Under which names texts are registered: with operators (DLT) for SMS, with Meta for WhatsApp. Pure. */
import { catalogue, type Template, type TemplateName, type Wording } from './catalogue.ts';
import { type Language, languages } from './variables.ts';

/** A text and how its registered name ends; the first has the template's own name. */
export interface Worded {
  text: string;
  ending: string;
}

/** The texts of a wording, in the order in which they are tried. */
export const textsOf = (wording: Wording): Worded[] =>
  typeof wording === 'string'
    ? [{ text: wording, ending: '' }]
    : Object.entries(wording).map(([name, text], index) => ({ text, ending: index === 0 ? '' : `_${name}` }));

/** A template's name as WhatsApp has it: a new version is a new registration. */
export const whatsappName = (name: TemplateName, version: number, ending: string): string =>
  `${name.replaceAll('-', '_')}_v${version}${ending}`;

/** And as operators have it: a registration for each language. */
export const smsName = (name: TemplateName, version: number, ending: string, language: Language): string =>
  `${whatsappName(name, version, ending)}_${language}`;

/** Everything that is to be registered: by channel, with the name and the text, `{name}` for a variable. */
export function registrations(): { channel: 'sms' | 'whatsapp'; name: string; text: string }[] {
  const versions = (Object.keys(catalogue) as TemplateName[]).flatMap((name) =>
    Object.entries<Template>(catalogue[name]).map(([version, { texts }]) => ({
      name,
      version: Number(version),
      texts,
    })),
  );
  return versions.flatMap(({ name, version, texts }) =>
    languages.flatMap((language) => [
      ...textsOf(texts[language].sms).map(({ text, ending }) => ({
        channel: 'sms' as const,
        name: smsName(name, version, ending, language),
        text,
      })),
      ...textsOf(texts[language].whatsapp).map(({ text, ending }) => ({
        channel: 'whatsapp' as const,
        name: `${whatsappName(name, version, ending)} (${language})`,
        text,
      })),
    ]),
  );
}
