/**
 * `npm run templates -- preview [FOLDER]` writes every email, in each language, as a page to look at, and prints the short texts.
 * `-- registered` prints what is to be registered with operators (SMS) and Meta (WhatsApp), a text a line.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { languages, render, sayings, templateIds, variablesOf } from '../lib/templates/index.ts';
import { registrations } from '../lib/templates/registered.ts';

/** Values to look at, by the kind of variable; a choice takes its first. */
const samples = {
  code: '481920',
  count: '5',
  time: '18:45',
  link: 'https://ride.example/share/shr_0123456789abcdefghijklmnop',
  place: '12.97161,77.59461',
  age: '4',
  name: 'Asha Rao',
  plate: 'MH 12 AB 1234',
  text: 'The photo is blurred, the number cannot be read',
} as const;

const dataFor = (template: string): Record<string, string> =>
  Object.fromEntries(
    Object.entries(variablesOf(template)).map(([name, variable]) => [
      name,
      name === 'vehicle'
        ? 'Maruti Swift'
        : variable.kind === 'choice'
          ? (Object.keys(variable.words)[0] ?? '')
          : samples[variable.kind],
    ]),
  );

/** In another script, and long: fewer words may be said. */
const longName = 'श्रीमती लक्ष्मी कुलकर्णी';

/** What is said on the screen of a phone, by which values there are and how much room the name takes. */
function linesOf(template: string, language: (typeof languages)[number]): Set<string> {
  const variables = variablesOf(template);
  const lines = new Set<string>();
  for (const [channel, name] of [
    ['sms', samples.name],
    ['sms', longName],
    ['push', samples.name],
  ] as const) {
    const all = { ...dataFor(template), ...('name' in variables ? { name } : {}) };
    for (const says of sayings(template, channel, language)) {
      // With no optional value that the text does not say, so that no other comes before it
      const data = Object.fromEntries(
        Object.entries(all).filter(([key]) => says.includes(key) || !variables[key]?.optional),
      );
      if (channel === 'sms') {
        const { body, template: sent } = render({ template, language, data, channel });
        lines.add(`sms   ${body}  [${sent.name}]`);
      } else {
        const { title, body } = render({ template, language, data, channel });
        lines.add(`push  ${title}: ${body}`);
      }
    }
  }
  return lines;
}

function preview(folder: string): void {
  mkdirSync(folder, { recursive: true });
  for (const template of templateIds()) {
    for (const language of languages) {
      const { subject, html, text } = render({
        template,
        language,
        data: dataFor(template),
        channel: 'email',
      });
      writeFileSync(join(folder, `${template}.${language}.html`), html);
      writeFileSync(join(folder, `${template}.${language}.txt`), `${subject}\n\n${text}`);
      const lines = [...linesOf(template, language)].map((line) => `  ${line}\n`);
      process.stdout.write(`${template} ${language}\n${lines.join('')}`);
    }
  }
  process.stdout.write(`Emails are in ${resolve(folder)}\n`);
}

const [command, folder = 'data/templates'] = process.argv.slice(2);
if (command === 'preview') preview(folder);
else if (command === 'registered') {
  for (const { channel, name, text } of registrations())
    process.stdout.write(`${channel.padEnd(8)} ${name}: ${text}\n`);
} else {
  process.stderr.write('Usage: npm run templates -- preview [FOLDER] | registered\n');
  process.exitCode = 2;
}
