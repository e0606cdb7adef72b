/**
 * `npm run providers`: the provider simulator in a process of its own, for load tests and for several processes that share
 * one (PROVIDERS_SANDBOX_URL). `--help` says the rest.
 */
import { parseArgs } from 'node:util';
import { ConfigError, loadConfig } from '../lib/config.ts';
import { accountsOf, startProviderSimulator } from '../lib/standins/providers.ts';

const usage = `Usage: npm run providers -- [--port N] [--max-messages N]

Simulated Twilio, MSG91 and PagerDuty on 127.0.0.1, with the credentials of this environment. Prints its address, for
PROVIDERS_SANDBOX_URL, and runs until SIGTERM or Ctrl-C. Nothing is sent anywhere.

  --port N           port to listen on; a free one by default
  --max-messages N   how many messages it keeps (10000)

GET /outbox?to&channel&limit, GET /incidents; POST /scripts {"provider": "twilio", "script": {"kind": "500", "times": 3}}
makes a provider fail, "script": null ends it. Kinds: down, dropped, slow (delayMs), 429, 500, error-in-200, reject (code).
`;
const EXIT_USAGE = 2;

/** @throws Error with what is wrong, for the terminal */
function readOptions() {
  const { values } = parseArgs({
    options: {
      port: { type: 'string', default: '0' },
      'max-messages': { type: 'string', default: '10000' },
      help: { type: 'boolean', default: false },
    },
  });
  const number = (name: 'port' | 'max-messages', least: number, most: number) => {
    const value = Number(values[name]);
    if (Number.isInteger(value) && value >= least && value <= most) return value;
    throw new Error(`--${name} must be a whole number from ${least} to ${most}`);
  };
  const config = loadConfig(process.env);
  if (config.nodeEnv === 'production')
    throw new ConfigError([{ key: 'NODE_ENV', message: 'the simulator is for development only' }]);
  return {
    help: values.help,
    simulator: {
      ...accountsOf(config),
      port: number('port', 0, 65_535),
      maxMessages: number('max-messages', 1, 1_000_000),
    },
  };
}

async function main(): Promise<void> {
  const { help, simulator: options } = readOptions();
  if (help) return void process.stdout.write(usage);
  const simulator = await startProviderSimulator(options);
  process.stdout.write(`${simulator.url}\n`);
  const stop = () => void simulator.stop();
  process.once('SIGTERM', stop);
  process.once('SIGINT', stop);
}

try {
  await main();
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\nTry --help.\n`);
  process.exitCode = EXIT_USAGE;
}
