/** `npm run simulate`: recorded drives through real sockets, riders watching. `--help` says the rest. */
import { createApi } from '../test/support/simulate/api.ts';
import { asError, systemClock } from '../test/support/simulate/clock.ts';
import { type Options, parseOptions, usage } from '../test/support/simulate/options.ts';
import { runNumber } from '../test/support/simulate/people.ts';
import { progressLine, summaryText } from '../test/support/simulate/report.ts';
import { simulate } from '../test/support/simulate/run.ts';
import { connectLine } from '../test/support/simulate/sockets.ts';
import { loadTracks } from '../test/support/simulate/traces.ts';

const EXIT_FAILED = 1;
const EXIT_USAGE = 2;
const EXIT_INTERRUPTED = 130;

async function main(options: Options): Promise<number> {
  const { json, url, socketUrl } = options;
  const out = json ? process.stderr : process.stdout;
  const connect = (token: string) => connectLine(socketUrl, token, systemClock);
  const summary = await simulate(
    {
      ...options,
      run: runNumber(Date.now()),
      tracks: await loadTracks(),
      interrupt: interruptSignal(),
      // On a terminal the line is rewritten in place.
      onProgress: (progress) => {
        out.write(out.isTTY ? `\r\x1b[2K${progressLine(progress)}` : `${progressLine(progress)}\n`);
      },
    },
    {
      api: createApi({ url, clock: systemClock, fetch }),
      clock: systemClock,
      connectDriver: connect,
      connectWatcher: connect,
    },
  );
  if (out.isTTY) out.write('\n');
  process.stdout.write(json ? `${JSON.stringify(summary)}\n` : `${summaryText(summary)}\n`);
  return summary.ok ? 0 : EXIT_FAILED;
}

/** Aborts at the first Ctrl-C or SIGTERM; the second one exits at once. */
function interruptSignal(): AbortSignal {
  const interrupt = new AbortController();
  const onSignal = () => {
    if (interrupt.signal.aborted) process.exit(EXIT_INTERRUPTED);
    interrupt.abort(new Error('interrupted'));
  };
  process.on('SIGINT', onSignal);
  process.on('SIGTERM', onSignal);
  return interrupt.signal;
}

function readOptions(): Options | null {
  try {
    return parseOptions(process.argv.slice(2));
  } catch (error) {
    process.stderr.write(`${asError(error).message}\nTry --help.\n`);
    return null;
  }
}

const options = readOptions();
if (!options) {
  process.exitCode = EXIT_USAGE;
} else if (options.help) {
  process.stdout.write(`${usage}\n`);
} else {
  process.exitCode = await main(options);
}
