/**
 * Checks who imports whom, by the rules in .dependency-cruiser.cjs. The code must break none of them, and the
 * canary must break every one: without that proof a tool that sees no TypeScript would call any code clean.
 */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';

const root = join(import.meta.dirname, '..');
const config = join(root, '.dependency-cruiser.cjs');
const parts = ['contracts', 'lib', 'mixins', 'services', 'mobile', 'test', 'bin', 'moleculer.config.ts'];

interface Report {
  summary: {
    totalCruised: number;
    violations: { from: string; to: string; cycle?: { name: string }[]; rule: { name: string } }[];
  };
}

/** What dependency-cruiser reports on the parts of the project that stand in `directory`. */
function cruise(directory: string): Report['summary'] {
  const command = join(root, 'node_modules', '.bin', 'depcruise');
  const found = parts.filter((part) => existsSync(join(directory, part)));
  const options = ['--config', config, '--output-type', 'json'];
  const run = spawnSync(process.execPath, [command, ...options, ...found], {
    cwd: directory,
    encoding: 'utf8',
    maxBuffer: 256 * 1024 * 1024,
  });
  if (run.status !== 0) throw new Error(`dependency-cruiser failed:\n${run.stderr}`);
  return (JSON.parse(run.stdout) as Report).summary;
}

const { forbidden } = createRequire(import.meta.url)(config) as {
  forbidden: { name: string; comment: string }[];
};
const code = cruise(root);
const canary = cruise(join(root, 'test', 'support', 'architecture-canary'));
const complaints: string[] = [];

for (const { from, to, cycle, rule } of code.violations) {
  const why = forbidden.find(({ name }) => name === rule.name)?.comment ?? '';
  complaints.push(
    `${[from, ...(cycle?.map(({ name }) => name) ?? [to])].join(' → ')}\n  ${rule.name}: ${why}`,
  );
}
const broken = new Set(canary.violations.map(({ rule }) => rule.name));
for (const { name } of forbidden) {
  if (!broken.has(name))
    complaints.push(`The canary broke ${name} and nobody noticed: the rule does not work.`);
}

if (complaints.length > 0) {
  console.error(complaints.join('\n'));
  process.exit(1);
}
console.log(`${code.totalCruised} files keep the ${forbidden.length} rules, and the canary breaks each.`);
