/**
 * `npm run errors -- docs` writes docs/errors.md from contracts/errors.ts, the contracts and the code; `-- docs --check` only
 * says whether it is up to date, and whether the code raises each code of the catalogue.
 */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type ErrorCode, errorCatalogue } from '../contracts/errors.ts';
import { type ActionContract, contracts } from '../contracts/index.ts';

const path = 'docs/errors.md';
const folders = ['lib', 'mixins', 'services'];

/** Sources of the server, by path. */
function sources(): { file: string; text: string }[] {
  return folders.flatMap((folder) =>
    readdirSync(folder, { recursive: true, encoding: 'utf8' })
      .filter((file) => file.endsWith('.ts') && !file.startsWith('admin/dashboard'))
      .map((file) => ({ file: join(folder, file), text: readFileSync(join(folder, file), 'utf8') })),
  );
}

/** Actions whose contract names the code. */
const actionsWith = (code: ErrorCode): string[] =>
  Object.entries(contracts).flatMap(([service, { actions }]) =>
    Object.entries<ActionContract>(actions).flatMap(([name, { errors = [] }]) =>
      errors.includes(code) ? [`${service}.${name}`] : [],
    ),
  );

/** `services/trips/x.ts` is trips; what lies in lib/ and mixins/ serves every door. */
const partOf = (file: string): string => /^services\/([^/]+)/.exec(file)?.[1] ?? 'any';

function document(): { text: string; unused: string[] } {
  const code = sources();
  const unused: string[] = [];
  const rows = Object.entries(errorCatalogue).map(([name, { status, message }]) => {
    const actions = actionsWith(name as ErrorCode);
    const files = code.filter(({ text }) => text.includes(`'${name}'`)).map(({ file }) => file);
    if (files.length === 0) unused.push(name);
    const found = [...new Set(files.map(partOf))].toSorted();
    const parts = found.includes('any') ? ['any'] : found;
    const origin = actions.length > 0 ? actions.map((action) => `\`${action}\``) : parts;
    return `| \`${name}\` | ${status} | ${message} | ${origin.join(', ')} |`;
  });
  const text = `# Errors

Made from contracts/errors.ts, the contracts of the actions and the code by \`npm run errors -- docs\`.

REST answers \`{"error": {code, message, requestId, fields?, retryAfterS?}}\` with the status; a socket's acknowledgement is
\`{ok: false, error}\` with the same error. Codes are stable: switch on them, never on the message. What nobody foresaw is
INTERNAL and says nothing else; its \`requestId\` is in the log beside what happened.

"Comes from" names the actions that may answer it; where no action does, the parts that raise it, \`any\` for what every
door or action may answer.

| code | status | message | comes from |
|---|---|---|---|
${rows.join('\n')}
`;
  return { text, unused };
}

function docs(onlyCheck: boolean): number {
  const { text, unused } = document();
  for (const name of unused)
    process.stderr.write(`${name} is in contracts/errors.ts, and nothing raises it\n`);
  if (!onlyCheck) writeFileSync(path, text);
  else if (readFileSync(path, 'utf8') !== text) {
    process.stderr.write(`${path} does not say what the code has: npm run errors -- docs\n`);
    return 1;
  }
  return unused.length > 0 ? 1 : 0;
}

const [command, option] = process.argv.slice(2);
if (command === 'docs') process.exitCode = docs(option === '--check');
else {
  process.stderr.write('Usage: npm run errors -- docs [--check]\n');
  process.exitCode = 2;
}
