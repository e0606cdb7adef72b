/**
 * `npm run providers`: the provider simulator in a process of its own, for load tests and for several processes that share
 * one (PROVIDERS_SANDBOX_URL). `--help` says the rest.
 */
import { parseArgs } from 'node:util';
import { ConfigError, loadConfig } from '../lib/config.ts';
import { accountsOf, startProviderSimulator } from '../lib/standins/providers.ts';

const usage = `Usage: npm run providers -- [--port N] [--max-messages N] [--callbacks URL] [--latency-ms N] [--per-second N]

Simulated Twilio, MSG91, WhatsApp, SendGrid, Amazon SES, FCM and PagerDuty on 127.0.0.1, with the credentials of this
environment. Prints its address, for PROVIDERS_SANDBOX_URL (a browser shows there what was sent), and runs until SIGTERM
or Ctrl-C. Nothing is sent anywhere but to our own webhooks.

  --port N           port to listen on; a free one by default
  --max-messages N   how many messages it keeps (10000)
  --callbacks URL    the API whose webhooks are told what became of messages; PUBLIC_URL or http://localhost:API_PORT by default
  --latency-ms N     how long each answer takes (0)
  --per-second N     requests a second that each provider takes before it answers 429; any number by default

GET /outbox?to&channel&limit, GET /incidents, GET /callbacks.

POST /scripts {"provider": "twilio", "script": {"kind": "500", "times": 3}} makes a provider fail, "script": null ends it.
Kinds: down, dropped, slow (delayMs), 429, 500, flaky (share), error-in-200, reject (code). With "receipts" in place of
"script" it is what becomes of messages: dropped, doubled, reordered, delayed (delayMs), failed (code), read, complained.

POST /inbound {"provider": "twilio", "from": "+919800000001", "text": "STOP"} is a person's message to us (or by whatsapp);
{"provider": "ses"} asks our webhook to confirm SNS's subscription.
`;
const EXIT_USAGE = 2;

function readArguments() {
  return parseArgs({
    options: {
      port: { type: 'string', default: '0' },
      'max-messages': { type: 'string', default: '10000' },
      callbacks: { type: 'string' },
      'latency-ms': { type: 'string', default: '0' },
      'per-second': { type: 'string' },
      help: { type: 'boolean', default: false },
    },
  }).values;
}

function wholeNumber(option: string, value: string, least: number, most: number): number {
  const number = Number(value);
  if (Number.isInteger(number) && number >= least && number <= most) return number;
  throw new Error(`${option} must be a whole number from ${least} to ${most}`);
}

async function main(): Promise<void> {
  const given = readArguments();
  if (given.help) return void process.stdout.write(usage);
  const port = wholeNumber('--port', given.port, 0, 65_535);
  const maxMessages = wholeNumber('--max-messages', given['max-messages'], 1, 1_000_000);
  const latencyMs = wholeNumber('--latency-ms', given['latency-ms'], 0, 60_000);
  const perSecond = given['per-second'] && wholeNumber('--per-second', given['per-second'], 1, 1_000_000);
  if (given.callbacks !== undefined && !URL.canParse(given.callbacks))
    throw new Error('--callbacks must be a URL');
  const config = loadConfig(process.env);
  if (config.nodeEnv === 'production')
    throw new ConfigError([{ key: 'NODE_ENV', message: 'the simulator is for development only' }]);
  const simulator = await startProviderSimulator({
    ...accountsOf(config),
    port,
    maxMessages,
    latencyMs,
    ...(perSecond ? { perSecond } : {}),
    callbacks: given.callbacks ?? config.publicUrl ?? `http://localhost:${config.apiPort}`,
  });
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
