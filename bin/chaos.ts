/**
 * `npm run chaos -- sos [--rounds N] [--only NAME] [--json]`: kills processes and servers while people press SOS, and counts
 * what was lost. Exits 1 when something was, or was late; 2 when it was called in a wrong way.
 */
import { parseArgs } from 'node:util';
import { scenarioNames, sosChaos } from '../test/chaos/sos.ts';
import { machineName } from '../test/support/bench/machine.ts';
import { jsonLine, passed, tableText } from '../test/support/chaos/result.ts';

const EXIT_FAILED = 1;
const EXIT_USAGE = 2;

const usage = `Usage: npm run chaos -- sos [--rounds N] [--only NAME]... [--json]
NAME is one of: ${scenarioNames.join(', ')}`;

function readOptions(): { rounds: number; only: string[]; json: boolean } | null {
  try {
    const { values, positionals } = parseArgs({
      options: {
        rounds: { type: 'string', default: '50' },
        only: { type: 'string', multiple: true, default: [] },
        json: { type: 'boolean', default: false },
      },
      allowPositionals: true,
    });
    const rounds = Number(values.rounds);
    const isKnown = values.only.every((name) => scenarioNames.includes(name));
    if (positionals.join() !== 'sos' || !isKnown || !Number.isInteger(rounds) || rounds < 1) return null;
    return { rounds, only: values.only, json: values.json };
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
  const { rounds, only, json } = options;
  const machine = machineName();
  const rows = await sosChaos({
    rounds,
    only,
    onRound(name, n, problem) {
      process.stderr.write(`${name} ${n + 1}/${rounds}${problem === null ? '' : ` failed: ${problem}`}\n`);
    },
  });
  process.stdout.write(`${json ? jsonLine(rows, machine) : tableText(rows, machine)}\n`);
  if (!rows.every(passed)) process.exitCode = EXIT_FAILED;
}
