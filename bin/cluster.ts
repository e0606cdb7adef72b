/** `npm run cluster`: every role as a process of its own, behind a balancer. `--help` says the rest. */
import { once } from 'node:events';
import { parseArgs } from 'node:util';
import { ConfigError, loadConfig } from '../lib/config.ts';
import { requireFreePort } from '../lib/standins/index.ts';
import { welcome } from '../lib/welcome.ts';
import {
  type Cluster,
  type ClusterOptions,
  type Member,
  redisKinds,
  startCluster,
} from '../test/support/cluster.ts';

const EXIT_FAILED = 1;
const EXIT_USAGE = 2;
const EXIT_INTERRUPTED = 130;

const roles = {
  'api-1': 'api',
  'api-2': 'api',
  'gateway-1': 'gateway',
  'gateway-2': 'gateway',
  'location-1': 'location',
  'location-2': 'location',
  accounts: 'accounts',
  trips: 'trips',
  notify: 'notify',
  sos: 'sos',
  safety: 'safety',
  admin: 'admin',
};

const usage = `npm run cluster -- [options]

The same services as many processes over NATS, two of each role that scales, behind HAProxy on API_PORT and SOCKET_PORT.
The database is MONGO_URI, or else a simulator of its wire protocol. Without MONGO_URI nothing outlives the run.

  --redis KIND       ${redisKinds.join(', ')} (single); the Redis of SOS is apart in any case
  --kill NAME        SIGKILL to this process; may be repeated. Names are those of the table
  --stop NAME        SIGTERM to this process, which lets its clients go first; may be repeated
  --after TIME       when, from the moment that all runs: 500ms, 10s, 2m (10s)
  --help

Ctrl-C stops everything; a second one at once.`;

interface Options {
  redis: ClusterOptions['redis'];
  signals: { name: string; signal: NodeJS.Signals }[];
  afterMs: number;
}

function parseTime(text: string): number {
  const [, number, unit] = /^(\d+(?:\.\d+)?)(ms|s|m)$/.exec(text) ?? [];
  if (!number || !unit) throw new Error(`--after must be a time such as 10s, not "${text}"`);
  return Number(number) * { ms: 1, s: 1000, m: 60_000 }[unit as 'ms' | 's' | 'm'];
}

/** A process of the table, which is complete only once all runs. */
function checkName(name: string): void {
  if (Object.hasOwn(roles, name) || /^(haproxy|nats|mongo|providers|(sos-)?redis-\d+)$/.test(name)) return;
  throw new Error(`There is no process ${name}; a role is one of ${Object.keys(roles).join(', ')}`);
}

/** Null when only help was asked for. Throws with a message for people. */
function readOptions(args: string[]): Options | null {
  const { values } = parseArgs({
    args,
    options: {
      redis: { type: 'string', default: 'single' },
      kill: { type: 'string', multiple: true, default: [] },
      stop: { type: 'string', multiple: true, default: [] },
      after: { type: 'string', default: '10s' },
      help: { type: 'boolean', short: 'h', default: false },
    },
  });
  if (values.help) return null;
  const redis = redisKinds.find((kind) => kind === values.redis);
  if (!redis) throw new Error(`--redis must be one of ${redisKinds.join(', ')}, not "${values.redis}"`);
  for (const name of [...values.kill, ...values.stop]) checkName(name);
  return {
    redis,
    signals: [
      ...values.kill.map((name) => ({ name, signal: 'SIGKILL' as const })),
      ...values.stop.map((name) => ({ name, signal: 'SIGTERM' as const })),
    ],
    afterMs: parseTime(values.after),
  };
}

function tableText(members: readonly Member[]): string {
  const rows = [
    ['role', 'pid', 'ports'],
    ...members.map(({ name, pid, ports }) => [name, String(pid), ports.join(', ')]),
  ];
  const widths = [0, 1].map((column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  return rows
    .map(
      ([name = '', pid = '', ports = '']) =>
        `  ${name.padEnd(widths[0] ?? 0)}  ${pid.padStart(widths[1] ?? 0)}  ${ports}`,
    )
    .join('\n');
}

const say = (text: string) => void process.stdout.write(`${text}\n`);

/** Aborts at the first Ctrl-C or SIGTERM, which npm may pass on twice; one that comes later ends everything at once. */
function interruptSignal(): AbortSignal {
  const interrupt = new AbortController();
  let firstAt = Number.POSITIVE_INFINITY;
  const onSignal = () => {
    // What we have started ends with us
    if (performance.now() - firstAt > 500) process.exit(EXIT_INTERRUPTED);
    firstAt = Math.min(firstAt, performance.now());
    interrupt.abort(new Error('interrupted'));
  };
  process.on('SIGINT', onSignal);
  process.on('SIGTERM', onSignal);
  return interrupt.signal;
}

async function start(options: Options, abort: AbortSignal): Promise<Cluster> {
  const config = loadConfig(process.env);
  if (config.nodeEnv === 'production')
    throw new ConfigError([{ key: 'NODE_ENV', message: 'this is for development' }]);
  const ports = { api: config.apiPort, socket: config.socketPort, metrics: config.metricsPort };
  await requireFreePort('API_PORT', ports.api, config.host);
  await requireFreePort('SOCKET_PORT', ports.socket, config.host);
  await requireFreePort('METRICS_PORT', ports.metrics, config.host);
  const { mongoUri } = config;
  if (!mongoUri) say("MONGO_URI is not set: documents are in a simulator of MongoDB's wire protocol.");
  const startedAt = performance.now();
  const cluster = await startCluster({
    roles,
    redis: options.redis,
    ports,
    mongoUri,
    abort,
    onStep: (what) => say(`Starting ${what} …`),
    onSlow: (names) => say(`Still waiting for ${names.join(', ')} …`),
    onLine: (name, line) => process.stderr.write(`[${name}] ${line}\n`),
    onEnd: (name, how) => say(`${name} has ended: ${how}`),
  });
  say(
    `\n${tableText(cluster.members())}\n${welcome({ ...config, dataDir: 'gone at the end, but for MONGO_URI' })}`,
  );
  say(`All runs after ${((performance.now() - startedAt) / 1000).toFixed(1)} s.`);
  return cluster;
}

async function main(options: Options): Promise<void> {
  const interrupt = interruptSignal();
  const cluster = await start(options, interrupt);
  const timer = setTimeout(() => {
    for (const { name, signal } of options.signals) {
      say(`${signal} to ${name}`);
      cluster.signal(name, signal);
    }
  }, options.afterMs);
  if (!interrupt.aborted) await once(interrupt, 'abort');
  clearTimeout(timer);
  say('Stopping …');
  await cluster.stop();
  say('Stopped.');
}

function readOrExplain(): Options | 'help' | null {
  try {
    return readOptions(process.argv.slice(2)) ?? 'help';
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\nTry --help.\n`);
    return null;
  }
}

const options = readOrExplain();
if (options === null) process.exitCode = EXIT_USAGE;
else if (options === 'help') say(usage);
else {
  try {
    await main(options);
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
    process.exitCode = EXIT_FAILED;
  }
}
