/**
 * `npm run config -- check`: would this environment start? Names every bad key. `-- docs` writes .env.example and
 * docs/configuration.md from the schema; `-- docs --check` only says whether they are up to date.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { ConfigError, configKeys, loadConfig } from '../lib/config.ts';

const keys = configKeys();

const example = `# Every setting with development's default; made by \`npm run config -- docs\`.
# <KEY>_FILE names a file that holds the value instead. Production needs a value for those marked "required".

${keys
  .map(({ key, description, development, required }) => {
    const note = `# ${description}${required ? ' (required in production)' : ''}`;
    return `${note}\n${development === '' ? `# ${key}=` : `${key}=${JSON.stringify(development)}`}`;
  })
  .join('\n\n')}
`;

const table = `# Configuration

Made from the schema in lib/config.ts by \`npm run config -- docs\`. Settings come from the environment; \`<KEY>_FILE\` names a
file that holds the value. \`npm run config -- check\` tells whether an environment is usable, and names every bad key.

| key | meaning | in development | in production |
|---|---|---|---|
${keys
  .map(({ key, description, development, production, required }) => {
    const cell = (value: string) => (value === '' ? '' : `\`${value}\``);
    return `| \`${key}\` | ${description} | ${cell(development)} | ${required ? 'required' : cell(production)} |`;
  })
  .join('\n')}
`;

function checkEnvironment(): number {
  try {
    loadConfig(process.env);
    process.stdout.write('The configuration is usable.\n');
    return 0;
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    process.stderr.write(`${error.message}\n`);
    return 1;
  }
}

function docs(onlyCheck: boolean): number {
  let stale = 0;
  for (const [path, content] of [
    ['.env.example', example],
    ['docs/configuration.md', table],
  ] as const) {
    if (!onlyCheck) writeFileSync(path, content);
    else if (readFileSync(path, 'utf8') !== content) {
      process.stderr.write(`${path} does not say what lib/config.ts has: npm run config -- docs\n`);
      stale++;
    }
  }
  return stale;
}

const [command, option] = process.argv.slice(2);
if (command === 'check') process.exitCode = checkEnvironment();
else if (command === 'docs') process.exitCode = docs(option === '--check');
else {
  process.stderr.write('Usage: npm run config -- check | docs [--check]\n');
  process.exitCode = 2;
}
