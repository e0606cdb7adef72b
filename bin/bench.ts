/**
 * `npm run bench -- NAME [--quick] [--json]`: one benchmark of test/bench beside its baseline. Exits 1 when a target was
 * missed or something was lost, 2 when it was called in a wrong way.
 */
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { machineName } from '../test/support/bench/machine.ts';
import { type Bench, jsonLine, passed, tableText } from '../test/support/bench/result.ts';

const EXIT_FAILED = 1;
const EXIT_USAGE = 2;

const folder = join(import.meta.dirname, '..', 'test', 'bench');
const names = (await readdir(folder)).filter((file) => file.endsWith('.ts')).map((file) => file.slice(0, -3));
const usage = `Usage: npm run bench -- NAME [--quick] [--json]\nNAME is one of: ${names.toSorted().join(', ')}`;

function readOptions(): { name: string; quick: boolean; json: boolean } | null {
  try {
    const { values, positionals } = parseArgs({
      options: { quick: { type: 'boolean', default: false }, json: { type: 'boolean', default: false } },
      allowPositionals: true,
    });
    const [name, ...rest] = positionals;
    return name && names.includes(name) && rest.length === 0 ? { name, ...values } : null;
  } catch {
    // An unknown option
    return null;
  }
}

const options = readOptions();
if (!options) {
  process.stderr.write(`${usage}\n`);
  process.exitCode = EXIT_USAGE;
} else {
  const { default: bench } = (await import(join(folder, `${options.name}.ts`))) as { default: Bench };
  // Before the run: the load of others, not its own
  const machine = machineName();
  const result = await bench({ quick: options.quick });
  const say = options.json ? jsonLine : tableText;
  process.stdout.write(`${say(result, machine)}\n`);
  if (!passed(result)) process.exitCode = EXIT_FAILED;
}
