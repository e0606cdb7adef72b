/** `npm run templates -- preview [FOLDER]` writes every email, in each language, as a page to look at, and prints the short texts. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { languages, render, templateIds, variablesOf } from '../lib/templates/index.ts';

/** Values to look at, by the kind of variable; a choice takes its first. */
const samples = {
  code: '481920',
  count: '5',
  time: '18:45',
  link: 'https://ride.example/share/shr_0123456789abcdefghijklmnop',
  name: 'Asha Kulkarni',
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

function preview(folder: string): void {
  mkdirSync(folder, { recursive: true });
  for (const template of templateIds()) {
    for (const language of languages) {
      const asked = { template, language, data: dataFor(template) };
      const { subject, html, text } = render({ ...asked, channel: 'email' });
      writeFileSync(join(folder, `${template}.${language}.html`), html);
      writeFileSync(join(folder, `${template}.${language}.txt`), `${subject}\n\n${text}`);
      const { title, body } = render({ ...asked, channel: 'push' });
      process.stdout.write(
        `${template} ${language}\n  sms   ${render({ ...asked, channel: 'sms' }).body}\n  push  ${title}: ${body}\n`,
      );
    }
  }
  process.stdout.write(`Emails are in ${resolve(folder)}\n`);
}

const [command, folder = 'data/templates'] = process.argv.slice(2);
if (command === 'preview') preview(folder);
else {
  process.stderr.write('Usage: npm run templates -- preview [FOLDER]\n');
  process.exitCode = 2;
}
