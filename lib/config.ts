import { readFileSync } from 'node:fs';
import { z } from 'zod';

/** Thrown once with every bad key, each with what is wrong, never with its value. */
export class ConfigError extends Error {
  readonly problems: readonly { key: string; message: string }[];
  constructor(problems: readonly { key: string; message: string }[]) {
    super(`The configuration is not usable:\n${problems.map((p) => `  ${p.key}: ${p.message}`).join('\n')}`);
    this.name = 'ConfigError';
    this.problems = problems;
  }
}

const port = (fallback: number) => z.coerce.number().int().min(0).max(65_535).default(fallback);
const count = (fallback: number) => z.coerce.number().int().positive().default(fallback);
const flag = (fallback: boolean) =>
  z
    .enum(['true', 'false'])
    .default(fallback ? 'true' : 'false')
    .transform((value) => value === 'true');
const listOf = (fallback: string) =>
  z
    .string()
    .default(fallback)
    .transform((value) =>
      value
        .split(',')
        .map((item) => item.trim())
        .filter(Boolean),
    );
const list = listOf('');

/**
 * The whole configuration: a key of the environment each. `<KEY>_FILE` names a file that holds the value (for
 * mounted secrets). What only development may leave out has its default through `dev`.
 */
function environmentSchema(production: boolean) {
  const dev = (value: string) => (production ? z.string().min(1) : z.string().min(1).default(value));
  const secret = (value: string) =>
    production ? z.string().min(32, 'needs 32 characters or more') : z.string().min(1).default(value);
  return z.object({
    NODE_ENV: z.enum(['development', 'test', 'production']).default('development'),
    SERVICES: list.describe(
      'The role of this process: names of services, comma-separated; all of them by default',
    ),
    NODE_ID: z
      .string()
      .optional()
      .describe("This process's name on the broker; derived from host and pid by default"),
    NAMESPACE: z.string().default('ride').describe('Keeps several systems on one NATS apart'),
    LOG_LEVEL: z
      .enum(['fatal', 'error', 'warn', 'info', 'debug', 'trace'])
      .default(production ? 'info' : 'warn'),
    LOG_FORMAT: z.enum(['json', 'pretty']).default(production ? 'json' : 'pretty'),
    HOST: z
      .string()
      .default(production ? '0.0.0.0' : '127.0.0.1')
      .describe('The address the doors listen on'),
    API_PORT: port(3000),
    SOCKET_PORT: port(3001),
    METRICS_PORT: port(3030),
    PUBLIC_URL: z
      .url()
      .optional()
      .describe('How clients reach the API; http://localhost:API_PORT by default'),
    CORS_ORIGINS: list.describe(
      'Origins that browsers may call from, comma-separated; in development also any localhost',
    ),
    DATA_DIR: z.string().default('./data').describe('All that development keeps'),

    NATS_URL: (production ? z.string().min(1) : z.string().min(1).optional()).describe(
      'nats://…; without it the broker works in this process alone',
    ),
    REDIS_URL: (production ? z.string().min(1) : z.string().min(1).optional()).describe(
      'redis://…, or the path of a unix socket; without it development starts its own',
    ),
    SOS_REDIS_URL: (production ? z.string().min(1) : z.string().min(1).optional()).describe(
      'The Redis of SOS and of the admin feed; REDIS_URL in development',
    ),
    MONGO_URI: (production ? z.string().min(1) : z.string().min(1).optional()).describe(
      'mongodb://…; without it documents are kept in files in DATA_DIR',
    ),

    SESSION_SECRET: secret('development-only session secret, not for production').describe(
      'Signs session tokens',
    ),
    HASH_SECRET: secret('development-only hash secret, not for production').describe(
      'Keys the hashes of codes, PINs and phone numbers',
    ),
    SESSION_TTL_HOURS: count(24),
    ADMIN_PHONES: listOf(production ? '' : '+919800000000').describe(
      'Numbers (E.164) that become super-admins at login, comma-separated',
    ),
    PHONE_REGION: z
      .string()
      .length(2)
      .default('IN')
      .describe('Country of numbers written without a country code'),
    REQUIRE_VERIFIED_DRIVERS: flag(production),

    OTP_TTL_S: count(300),
    OTP_MAX_TRIES: count(5),
    OTP_RESEND_S: count(30),
    OTP_PER_NUMBER_PER_HOUR: count(production ? 6 : 60),
    OTP_PER_IP_PER_HOUR: count(production ? 30 : 100_000),
    RATE_LIMIT_PER_USER: count(100).describe('REST requests a minute for each user'),
    RATE_LIMIT_PER_IP: count(production ? 60 : 100_000).describe(
      'REST requests a minute for each address, without a session',
    ),
    TRUSTED_PROXIES: z.coerce
      .number()
      .int()
      .min(0)
      .default(0)
      .describe('How many proxies of ours stand before the doors (X-Forwarded-For)'),
    BODY_LIMIT_KB: count(256),

    SOCKET_EVENTS_PER_S: count(50),
    SOCKET_EVENTS_BURST: count(100),
    SOCKET_PAYLOAD_KB: count(256),
    SOCKET_MAX_ROOMS: count(production ? 50 : 1000).describe('Trips one connection may watch at once'),
    LOCATION_TICK_MS: count(1000).describe('How often buffered updates are processed'),
    LOCATION_GATEWAY_BATCH_MS: count(50).describe(
      'How long a gateway collects updates before it hands them on',
    ),
    LOCATION_RETENTION_MS: count(3_600_000).describe('How long the history streams are kept'),

    TWILIO_ACCOUNT_SID: dev('AC00000000000000000000000000000000'),
    TWILIO_AUTH_TOKEN: dev('development-only'),
    TWILIO_FROM: dev('+15005550006'),
    TWILIO_BASE_URL: z.url().optional().describe("Another address than Twilio's, for a simulator"),
    SANDBOX_PROVIDERS: flag(!production).describe(
      'Providers are local simulators; what they got is at /dev/outbox',
    ),
    PROVIDERS_SANDBOX_URL: z
      .url()
      .optional()
      .describe('A running provider simulator; without it development starts its own'),
  });
}

type Environment = z.output<ReturnType<typeof environmentSchema>>;
type Camel<S extends string> = S extends `${infer Head}_${infer Tail}`
  ? `${Lowercase<Head>}${Capitalize<Camel<Tail>>}`
  : Lowercase<S>;

/** The configuration as the code reads it: `API_PORT` is `config.apiPort`. Frozen. */
export type Config = Readonly<{ [K in keyof Environment as Camel<K>]: Environment[K] }>;

const camel = (key: string) =>
  key.toLowerCase().replace(/_(\w)/g, (_, letter: string) => letter.toUpperCase());

/**
 * Reads the configuration from an environment.
 * @throws ConfigError that names every bad key at once.
 */
export function loadConfig(
  env: Record<string, string | undefined>,
  readFile = (path: string) => readFileSync(path, 'utf8'),
): Config {
  const problems: { key: string; message: string }[] = [];
  const schema = environmentSchema(env['NODE_ENV'] === 'production');
  const values: Record<string, string> = {};
  for (const key of Object.keys(schema.shape)) {
    const path = env[`${key}_FILE`];
    const value = env[key];
    if (path && value) problems.push({ key, message: `set either ${key} or ${key}_FILE, not both` });
    else if (path) {
      try {
        values[key] = readFile(path).trim();
      } catch {
        problems.push({ key: `${key}_FILE`, message: 'the file cannot be read' });
      }
    } else if (value !== undefined && value !== '') values[key] = value;
  }
  const parsed = schema.safeParse(values);
  if (!parsed.success) {
    for (const issue of parsed.error.issues) {
      const key = String(issue.path[0]);
      if (!problems.some((p) => p.key === `${key}_FILE`)) problems.push({ key, message: issue.message });
    }
  }
  if (problems.length > 0 || !parsed.success) throw new ConfigError(problems);
  // The mapped type above and this loop say the same thing; TypeScript cannot follow the renaming
  const renamed = Object.fromEntries(Object.entries(parsed.data).map(([key, value]) => [camel(key), value]));
  return Object.freeze(renamed) as Config;
}
