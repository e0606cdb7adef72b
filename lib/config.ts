import { createPublicKey } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { z } from 'zod';
import { parseServiceAccount } from './providers/service-account.ts';
import { parseRedisUrl } from './redis-url.ts';
import { parseSealKeys, type SealKey } from './sealed.ts';
import { Secret, type SecretFile } from './secret.ts';
import { DEVELOPMENT_SENDGRID_WEBHOOK, DEVELOPMENT_SERVICE_ACCOUNT } from './standins/development-keys.ts';
import { registrations } from './templates/registered.ts';

/** Thrown once with every bad key, each with what is wrong, never with its value. */
export class ConfigError extends Error {
  readonly problems: readonly { key: string; message: string }[];
  constructor(problems: readonly { key: string; message: string }[]) {
    super(`The configuration is not usable:\n${problems.map((p) => `  ${p.key}: ${p.message}`).join('\n')}`);
    this.name = 'ConfigError';
    this.problems = problems;
  }
}

/** Our names of the texts that go by SMS. */
const registeredSms = registrations().flatMap(({ channel, name }) => (channel === 'sms' ? [name] : []));

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
/** `name:number` pairs. */
const perSecond = (fallback: string) =>
  z
    .string()
    .default(fallback)
    .transform((value, context) => {
      const pairs = value.split(',').filter((pair) => pair.trim() !== '');
      const read = pairs.map((pair) => /^\s*([a-z0-9]+):(\d+(?:\.\d+)?)\s*$/.exec(pair));
      if (read.some((match) => !match || Number(match[2]) <= 0)) {
        context.addIssue('must be provider:number pairs, each number above 0');
        return z.NEVER;
      }
      return new Map(read.map((match) => [match?.[1] ?? '', Number(match?.[2])] as const));
    });
const E164 = /^\+[1-9]\d{6,14}$/;
const e164 = z.string().regex(E164, 'must be a number in E.164');

/** Alert, feed entry and indexes are written by one script: they must be on one server. */
const sosOnCluster = 'must be one primary or a Sentinel group, never a Cluster';
/** A value that `<KEY>_FILE` may change while the process runs: `config` has a Secret, which is asked each time. */
const live = <T>(schema: z.ZodType<T, string | undefined>) => schema.transform((value) => new Secret(value));
const lines = (text: string) =>
  text
    .split('\n')
    .map((line) => line.trim())
    .filter(Boolean);
function isPublicKey(base64: string): boolean {
  try {
    return (
      createPublicKey({ key: Buffer.from(base64, 'base64'), format: 'der', type: 'spki' }).type === 'public'
    );
  } catch {
    return false;
  }
}

/** More would only slow down the check of a forged token. */
const mostSessionSecrets = 5;

/**
 * The whole configuration: a key of the environment each. `<KEY>_FILE` names a file that holds the value (for
 * mounted secrets). Production has no default for what must be its own, and refuses development's.
 */
function environmentSchema(production: boolean) {
  /** What development may leave out. */
  const own = (developmentValue: string) =>
    production
      ? z
          .string()
          .min(1)
          .refine((value) => value !== developmentValue, "is development's default")
      : z.string().min(1).default(developmentValue);
  const strong = (developmentValue: string) =>
    z
      .string()
      .min(32, 'needs 32 characters or more')
      .refine((value) => value !== developmentValue, "is development's default");
  const secret = (developmentValue: string) =>
    production ? strong(developmentValue) : z.string().min(1).default(developmentValue);
  /** One a line, each as good as a single one. */
  const secrets = (developmentValue: string) =>
    (production ? z.string().min(1) : z.string().min(1).default(developmentValue)).transform(lines).pipe(
      z
        .array(production ? strong(developmentValue) : z.string())
        .min(1)
        .max(mostSessionSecrets, `may hold ${mostSessionSecrets} at most`),
    );
  const address = production ? z.string().min(1) : z.string().min(1).optional();
  const redisAddress = (mayBeCluster: boolean) =>
    address.superRefine((value, ctx) => {
      if (value === undefined) return;
      const parsed = parseRedisUrl(value);
      if ('problem' in parsed) ctx.addIssue({ code: 'custom', message: parsed.problem });
      else if (parsed.target.topology === 'cluster' && !mayBeCluster)
        ctx.addIssue({ code: 'custom', message: sosOnCluster });
    });
  return z.object({
    NODE_ENV: z
      .enum(['development', 'test', 'production'])
      .default('development')
      .describe('`production` starts no stand-ins and refuses development defaults'),
    SERVICES: list.describe(
      'The role of this process: names of services, comma-separated; all of them by default',
    ),
    NODE_ID: z.string().optional().describe("This process's name on the broker; host and pid by default"),
    NAMESPACE: z.string().default('ride').describe('Keeps several systems on one NATS apart'),
    LOG_LEVEL: z
      .enum(['fatal', 'error', 'warn', 'info', 'debug', 'trace'])
      .default(production ? 'info' : 'warn')
      .describe('The least that is logged; `info` has a line a request'),
    LOG_FORMAT: z
      .enum(['json', 'pretty'])
      .default(production ? 'json' : 'pretty')
      .describe('JSON lines, or readable ones'),
    HOST: z
      .string()
      .default(production ? '0.0.0.0' : '127.0.0.1')
      .describe('The address the doors listen on'),
    API_PORT: port(3000).describe('REST'),
    SOCKET_PORT: port(3001).describe('Socket.IO'),
    METRICS_PORT: port(3030).describe('/metrics, /healthz, /readyz of every process'),
    PUBLIC_URL: z
      .url()
      .max(63)
      .optional()
      .describe(
        'How clients and providers reach the API, also what Twilio signs; http://localhost:API_PORT by default. Links in SMS begin with it: short is better',
      ),
    CORS_ORIGINS: list.describe(
      'Origins that browsers may call from, comma-separated; development lets any localhost in',
    ),
    TRUSTED_PROXIES: z.coerce
      .number()
      .int()
      .min(0)
      .default(0)
      .describe('How many proxies of ours stand before the doors (X-Forwarded-For)'),
    DRAIN_GRACE_MS: count(production ? 5000 : 100).describe(
      'How long the REST door stays open when the process stops, unready, until the balancer has noticed',
    ),
    KEEP_ALIVE_TIMEOUT_MS: count(75_000).describe(
      'How long a door keeps a connection that nobody uses: longer than the balancer does, or it sends a request into one that is just closing',
    ),
    DATA_DIR: z.string().default('./data').describe('All that development keeps'),

    NATS_URL: address.describe('nats://…; without it the broker works in this process alone'),
    REDIS_URL: redisAddress(true).describe(
      'redis://host, redis-sentinel://host,host/group, redis-cluster://host,host (rediss… for TLS), or the path of a unix socket; without it development starts its own',
    ),
    SOS_REDIS_URL: redisAddress(false).describe(
      'The Redis of SOS and of the admin feed: like REDIS_URL, but never a Cluster; development uses REDIS_URL',
    ),
    MONGO_URI: address.describe('mongodb://…; without it documents are kept in files in DATA_DIR'),
    MONGO_POOL_SIZE: count(100).describe(
      'Connections that a process may open to each MongoDB server, for all its services',
    ),

    SESSION_SECRET: live(secrets('development-only session secret, not for production')).describe(
      'Sign session tokens: one a line; the first signs, all verify. A changed file is taken',
    ),
    HASH_SECRET: secret('development-only hash secret, not for production').describe(
      'Keys the hashes of codes, PINs and phone numbers. Can never change: what is known by its hash would be lost',
    ),
    ENCRYPTION_KEYS: live(
      own('development:ZGV2ZWxvcG1lbnQtb25seSBlbmNyeXB0aW9uIGtleS4=').transform((value, context) => {
        const keys = parseSealKeys(value);
        if (!keys) context.addIssue('must be id:key pairs, each key 32 bytes in base64');
        return keys ?? z.NEVER;
      }),
    ).describe(
      'Seal phone numbers at rest: id:key pairs, comma-separated; the first seals, all open (32 bytes, base64). A changed file is taken',
    ),
    SECRET_FILES_POLL_MS: count(2000).describe(
      'How often mounted secrets are read again; two reads alike count',
    ),
    SESSION_TTL_HOURS: count(24).describe('How long a sign-in lasts'),
    ADMIN_PHONES: listOf(production ? '' : '+919800000000').describe(
      'Numbers (E.164) that become super-admins at sign-in, comma-separated',
    ),
    PHONE_REGION: z
      .string()
      .length(2)
      .default('IN')
      .describe('Country of numbers written without a country code'),
    REQUIRE_VERIFIED_DRIVERS: flag(production).describe(
      'Only drivers whose documents are approved may accept trips',
    ),

    OTP_TTL_S: count(300).describe('How long a sign-in code is good'),
    OTP_MAX_TRIES: count(5).describe('Wrong codes before a new one is needed'),
    OTP_RESEND_S: count(30).describe('Seconds between two codes for one number'),
    OTP_PER_NUMBER_PER_HOUR: count(production ? 6 : 60).describe('Codes an hour for one number'),
    OTP_PER_IP_PER_HOUR: count(production ? 30 : 100_000).describe('Codes an hour for one address'),
    OTP_PER_PREFIX_PER_HOUR: count(production ? 300 : 100_000).describe(
      'Codes an hour for numbers that begin alike (all but the last four digits); a code that is used does not count',
    ),
    OTP_PER_NETWORK_PER_HOUR: count(production ? 300 : 100_000).describe(
      'Codes an hour for addresses of one network (IPv4 /24, IPv6 /64); a code that is used does not count',
    ),
    OTP_COUNTRIES: (production ? list : listOf('*'))
      .refine(
        (countries) => countries.every((country) => country === '*' || /^[A-Z]{2}$/.test(country)),
        'must be ISO 3166 codes, or *',
      )
      .describe(
        "Countries whose numbers are sent codes (ISO 3166), comma-separated; * is all of them, nothing is PHONE_REGION's alone",
      ),
    OTP_SPIKE_LEAST: count(200).describe(
      'Codes in 10 minutes for one country that raise the alarm when few of them are used',
    ),
    RATE_LIMIT_PER_USER: count(100).describe('REST requests a minute for each user'),
    RATE_LIMIT_PER_IP: count(production ? 60 : 100_000).describe(
      'REST requests a minute for each address, without a session',
    ),
    RATE_LIMIT_CALLBACKS: count(production ? 30_000 : 1_000_000).describe(
      'Callbacks of providers a minute from each address',
    ),
    SHED_WHEN_LATE_MS: count(production ? 100 : 1000).describe(
      'A door whose event loop is late by so much, for a while, refuses everything but SOS and answers of safety checks',
    ),
    BODY_LIMIT_KB: count(256).describe('Largest REST body'),

    GATEWAY_MAX_CONNECTIONS: count(15_000).describe(
      'Connections that a gateway takes; it answers 503 to more, for the balancer to take them elsewhere',
    ),
    GATEWAY_CHECK_PORT: port(production ? 3002 : 0).describe(
      'Where a thread of the gateway answers the balancer (/vacancy), also when the process has no time; 0: nowhere',
    ),
    GATEWAY_DRAIN_MS: count(production ? 15_000 : 1000).describe(
      'Over how long a gateway that stops sends its clients elsewhere',
    ),
    SOCKET_EVENTS_PER_S: count(50).describe('Events a second that a socket may send'),
    SOCKET_EVENTS_BURST: count(100).describe('Events that a socket may send at once'),
    SOCKET_PAYLOAD_KB: count(256).describe('Largest socket message'),
    SOCKET_MAX_ROOMS: count(production ? 50 : 1000).describe('Trips that one connection may watch at once'),
    LOCATION_TICK_MS: count(1000).describe('How often the newest position of each trip is processed'),
    LOCATION_RETENTION_MS: count(3_600_000).describe(
      'How long the location streams keep what the database has; what it has not is kept longer',
    ),
    LOCATION_HISTORY_INTERVAL_MS: count(30_000).describe(
      'How often the location streams are moved to the database',
    ),
    LOCATION_STREAMS_MAX_MB: count(production ? 4096 : 512).describe(
      'Memory in the main Redis for all location streams: beyond it the oldest is lost, loudly, and backlogs are refused',
    ),

    FEED_SWEEP_EVERY_MS: count(5000).describe(
      'How often events that a crash has kept from the admin feed are looked for',
    ),

    SOS_JOURNAL_DIR: z
      .string()
      .optional()
      .describe(
        'Where a door keeps alerts while the SOS Redis is silent: a disk; DATA_DIR/sos-journal by default',
      ),
    SOS_ESCALATE_AFTER_MS: count(30_000).describe(
      'An SOS that nobody has acknowledged for so long wakes the person on call',
    ),
    SOS_ALERTS_PER_USER: count(20).describe(
      'Alerts that one account may raise in six hours: what it presses then joins its newest open one; older ones that are over leave Redis soon',
    ),

    SAFETY_READ_EVERY_MS: count(1000).describe('How often the checks read what is new about active trips'),
    SAFETY_STOP_AFTER_MS: count(300_000).describe(
      'A trip that has not moved for so long, and is not at its destination, is a long stop',
    ),
    SAFETY_STOP_RADIUS_M: count(60).describe('Within so many metres is not moving'),
    SAFETY_CORRIDOR_M: count(600).describe(
      'Metres from the planned way that are no deviation; the least also where there is only a straight line',
    ),
    SAFETY_DETOUR_FACTOR: z.coerce
      .number()
      .gt(1)
      .max(5)
      .default(1.4)
      .describe('How much longer than the straight line a way by road may be'),
    SAFETY_DEVIATION_AFTER_MS: count(120_000).describe(
      'Driving for so long outside the corridor without coming nearer to the destination is a deviation',
    ),
    SAFETY_SIGNAL_LOST_AFTER_MS: count(180_000).describe('An active trip that is not heard of for so long'),
    SAFETY_SPEED_KMH: count(20).describe(
      'What a trip is expected to make in town (the first 15 km; beyond, 2.5 times as much), where the booking says no duration',
    ),
    SAFETY_OVERDUE_FACTOR: z.coerce
      .number()
      .min(1)
      .max(10)
      .default(1.5)
      .describe('A trip is overdue after so many times its expected duration'),
    SAFETY_OVERDUE_SLACK_MS: count(900_000).describe('and so much longer'),
    SAFETY_ANSWER_WITHIN_MS: count(60_000).describe('"Are you OK?" unanswered for so long alarms the admins'),
    SAFETY_ASK_AGAIN_AFTER_MS: count(900_000).describe(
      'No new question about the same matter of a trip for so long',
    ),

    NOTIFY_IN_FLIGHT: count(200).describe(
      'Messages that a process has under way at once; sign-in codes have 64 of their own',
    ),
    NOTIFY_PER_SECOND: perSecond('twilio:100,msg91:100,whatsapp:80,sendgrid:300,ses:100,fcm:500').describe(
      'Messages a second that a process hands to each provider, as provider:number, comma-separated; who is not named has no limit',
    ),
    NOTIFY_PUSH_ACK_MS: count(10_000).describe(
      'A push of high priority that the app has not acknowledged for so long is sent by SMS too',
    ),
    NOTIFY_RECEIPT_AFTER_MS: count(15_000).describe(
      'A message that no receipt has come for after so long is asked about; again after twice and four times that',
    ),
    NOTIFY_DEGRADED_BELOW: z.coerce
      .number()
      .gt(0)
      .lt(1)
      .default(0.95)
      .describe('Admins are told of a provider with a smaller share of messages that arrive'),
    NOTIFY_DEGRADED_WINDOW_MS: count(300_000).describe('over so long'),

    TWILIO_ACCOUNT_SID: own('AC00000000000000000000000000000000').describe('Twilio account'),
    TWILIO_AUTH_TOKEN: live(own('development-only')).describe('Twilio token. A changed file is taken'),
    TWILIO_FROM: own('+15005550006').describe('The number that SMS come from'),
    TWILIO_BASE_URL: z.url().optional().describe("Another address than Twilio's, for a simulator"),
    TWILIO_VOICE_FROM: e164
      .optional()
      .describe('The number that calls to the on-call person come from; TWILIO_FROM by default'),
    MSG91_AUTH_KEY: live(own('development-only')).describe(
      'MSG91 key: SMS go there when Twilio fails. A changed file is taken',
    ),
    MSG91_TEMPLATE_IDS: own(
      registeredSms.map((name, index) => `${name}:${String(index + 1).padStart(24, '0')}`).join(','),
    )
      .transform((value, context) => {
        const pairs = value.split(',').map((pair) => pair.trim().split(':'));
        if (
          !pairs.every(([name, id, more]) => name && /^[0-9a-f]{24}$/i.test(id ?? '') && more === undefined)
        ) {
          context.addIssue("must be name:id pairs, each MSG91's own id of 24 hex digits, not the DLT one");
          return z.NEVER;
        }
        const ids = Object.fromEntries(pairs.map(([name = '', id = '']) => [name, id]));
        const lacking = registeredSms.filter((name) => name.startsWith('sos_') && ids[name] === undefined);
        if (lacking.length > 0) {
          context.addIssue(`lacks what an SOS sends: ${lacking.join(', ')}`);
          return z.NEVER;
        }
        return ids;
      })
      .describe(
        "MSG91's ids of the registered templates (`npm run templates -- registered`): name:id pairs, comma-separated, those of an SOS at least. What is not listed is never sent by MSG91",
      ),
    MSG91_SENDER_ID: z
      .string()
      .regex(/^[A-Za-z]{6}$/, 'must be 6 letters')
      .optional()
      .describe("The registered header of these SMS; the template's own by default"),
    MSG91_BASE_URL: z.url().optional().describe("Another address than MSG91's, for a simulator"),
    WHATSAPP_PHONE_NUMBER_ID: own('100000000000001').describe(
      "Meta's id of the number that WhatsApp messages come from",
    ),
    WHATSAPP_TOKEN: live(own('development-only')).describe(
      'Access token of the WhatsApp Cloud API. A changed file is taken',
    ),
    WHATSAPP_API_VERSION: z
      .string()
      .regex(/^v\d+\.\d+$/, 'must be like v23.0')
      .default('v23.0')
      .describe('Version of the Graph API'),
    WHATSAPP_BASE_URL: z.url().optional().describe("Another address than Meta's, for a simulator"),
    EMAIL_FROM: own('Ride Safety <no-reply@example.com>')
      .refine((value) => z.email().safeParse(/<([^<>]+)>$/.exec(value)?.[1] ?? value).success, {
        message: 'must be an address, or Name <address>',
      })
      .describe('The verified sender of emails: an address, or Name <address>'),
    SENDGRID_API_KEY: live(own('SG.development-only')).describe('SendGrid key. A changed file is taken'),
    SENDGRID_BASE_URL: z.url().optional().describe("Another address than SendGrid's, for a simulator"),
    SES_REGION: z
      .string()
      .min(1)
      .default('ap-south-1')
      .describe('AWS region of Amazon SES: emails go there when SendGrid fails'),
    SES_CONFIGURATION_SET: own('development-only').describe(
      'The configuration set whose events SES publishes to SNS; without them nobody learns of bounces',
    ),
    SES_ACCESS_KEY_ID: (production
      ? z.string().min(1).optional()
      : z.string().min(1).default('development-only')
    ).describe(
      "AWS access key for SES; without it and its secret the process's role is used, as the AWS SDK finds it",
    ),
    SES_SECRET_ACCESS_KEY: live(
      production ? z.string().min(1) : z.string().min(1).default('development-only'),
    )
      .optional()
      .describe('Its secret. A changed file is taken'),
    SES_BASE_URL: z.url().optional().describe("Another address than Amazon's, for a simulator"),
    FCM_SERVICE_ACCOUNT: live(
      own('development-only').transform((value, context) => {
        if (value === 'development-only') return DEVELOPMENT_SERVICE_ACCOUNT;
        const account = parseServiceAccount(value);
        if (!account) context.addIssue('must be the JSON key of a service account');
        return account ?? z.NEVER;
      }),
    ).describe(
      'JSON key of the Google service account that sends push messages (FCM). A changed file is taken',
    ),
    FCM_BASE_URL: z.url().optional().describe("Another address than Google's, for a simulator"),
    PAGERDUTY_ROUTING_KEY: live(
      own('development-only-routing-key-000').refine(
        (value) => value.length === 32,
        'must have 32 characters',
      ),
    ).describe(
      'Integration key (Events API v2) of the PagerDuty service that an SOS escalates to. A changed file is taken',
    ),
    PAGERDUTY_BASE_URL: z.url().optional().describe("Another address than PagerDuty's, for a simulator"),
    ONCALL_PHONE: own('+12025550199')
      .refine((value) => E164.test(value), 'must be a number in E.164')
      .describe('The number (E.164) that is called when nobody acknowledges an SOS'),
    WHATSAPP_APP_SECRET: live(own('development-only')).describe(
      "The Meta app's secret: signs what WhatsApp tells. A changed file is taken",
    ),
    WHATSAPP_VERIFY_TOKEN: live(own('development-only')).describe(
      'What Meta is told to send when it asks whether the webhook is ours. A changed file is taken',
    ),
    SENDGRID_WEBHOOK_PUBLIC_KEY: live(
      own(DEVELOPMENT_SENDGRID_WEBHOOK.publicKey).refine(
        isPublicKey,
        'must be the key as SendGrid shows it (DER in base64)',
      ),
    ).describe(
      "Checks what SendGrid tells: the signed event webhook's verification key. A changed file is taken",
    ),
    MSG91_WEBHOOK_SECRET: live(own('development-only')).describe(
      'The header x-webhook-secret that MSG91 is told to send with its reports. A changed file is taken',
    ),
    SES_TOPIC_ARNS: own('arn:aws:sns:ap-south-1:000000000000:development-only')
      .transform((value) => value.split(',').map((arn) => arn.trim()))
      .refine(
        (arns) => arns.every((arn) => /^arn:aws(-cn)?:sns:[a-z0-9-]+:\d{12}:[\w.-]+$/.test(arn)),
        'must be ARNs of SNS topics',
      )
      .describe('SNS topics that SES tells of emails by, comma-separated; no other may speak'),
    SANDBOX_PROVIDERS: (production
      ? flag(false).refine((on) => !on, 'is for development only')
      : flag(true)
    ).describe('Providers are local simulators; what they got is at /dev/outbox'),
    PROVIDERS_SANDBOX_URL: z
      .url()
      .optional()
      .describe('A running provider simulator; without it development starts its own'),
  });
}

/** A key as a reader meets it, with its defaults; `required` says that production has none and needs a value. */
export interface ConfigKey {
  key: string;
  description: string;
  development: string;
  production: string;
  required: boolean;
}

/** Every key, in order: what .env.example and docs/configuration.md are made from. */
export function configKeys(): ConfigKey[] {
  const describe = (production: boolean) =>
    z.toJSONSchema(environmentSchema(production), { io: 'input', unrepresentable: 'any' });
  const [development, production] = [describe(false), describe(true)];
  const read = ({ properties = {} }: typeof development, key: string) => {
    const property = properties[key];
    const { description = '', default: value = '' } = typeof property === 'object' ? property : {};
    return { description, value: typeof value === 'string' ? value : JSON.stringify(value) };
  };
  return Object.keys(development.properties ?? {}).map((key) => ({
    key,
    description: read(development, key).description,
    development: read(development, key).value,
    production: read(production, key).value,
    required: production.required?.includes(key) ?? false,
  }));
}

type Environment = z.output<ReturnType<typeof environmentSchema>>;
type Camel<S extends string> = S extends `${infer Head}_${infer Tail}`
  ? `${Lowercase<Head>}${Capitalize<Camel<Tail>>}`
  : Lowercase<S>;

/** The configuration as the code reads it: `API_PORT` is `config.apiPort`. Frozen. */
export type Config = Readonly<{ [K in keyof Environment as Camel<K>]: Environment[K] }>;

const camel = (key: string) =>
  key.toLowerCase().replace(/_(\w)/g, (_, letter: string) => letter.toUpperCase());

function isCluster(url: string | undefined): boolean {
  const parsed = url === undefined ? undefined : parseRedisUrl(url);
  return parsed !== undefined && 'target' in parsed && parsed.target.topology === 'cluster';
}

/** A seal key that is another under a known id would make what that id sealed unreadable. */
const changesSealKey = (before: unknown, after: unknown): boolean =>
  isSealKeys(before) &&
  isSealKeys(after) &&
  before.some((old) => after.some(({ id, key }) => id === old.id && !key.equals(old.key)));

const isSealKeys = (value: unknown): value is SealKey[] =>
  Array.isArray(value) && value.every((each: unknown) => typeof each === 'object');

/** How the changed file of a key becomes its value: by the schema that read it at the start. */
function secretFile(
  schema: ReturnType<typeof environmentSchema>,
  key: string,
  path: string,
  text: string,
): SecretFile<unknown> {
  const { shape }: { shape: Record<string, z.ZodType> } = schema;
  return {
    path,
    text,
    read(newer, before) {
      if (newer === '') return { problem: 'the file is empty' };
      const parsed = shape[key]?.safeParse(newer);
      if (!parsed?.success) return { problem: parsed?.error.issues[0]?.message ?? 'is unknown' };
      const value = parsed.data instanceof Secret ? (parsed.data.current() as unknown) : parsed.data;
      if (changesSealKey(before, value)) return { problem: 'has another key under an id that is in use' };
      return { value };
    },
  };
}

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
  const files = new Map<string, string>();
  for (const key of Object.keys(schema.shape)) {
    const path = env[`${key}_FILE`];
    const value = env[key];
    if (path && value) problems.push({ key, message: `set either ${key} or ${key}_FILE, not both` });
    else if (path) {
      try {
        values[key] = readFile(path).trim();
        files.set(key, path);
      } catch {
        problems.push({ key: `${key}_FILE`, message: 'the file cannot be read' });
      }
    } else if (value !== undefined && value !== '') values[key] = value;
  }
  const parsed = schema.safeParse(values);
  if (!parsed.success) {
    for (const issue of parsed.error.issues) {
      const key = String(issue.path[0]);
      if (!problems.some((p) => p.key === `${key}_FILE`))
        problems.push({ key, message: values[key] === undefined ? 'is required' : issue.message });
    }
  }
  if (parsed.success && !parsed.data.SOS_REDIS_URL && isCluster(parsed.data.REDIS_URL))
    problems.push({
      key: 'SOS_REDIS_URL',
      message: `is required, since REDIS_URL is a Cluster: ${sosOnCluster}`,
    });
  if (problems.length > 0 || !parsed.success) throw new ConfigError(problems);
  // The mapped type above and this loop say the same thing; TypeScript cannot follow the renaming
  const renamed = Object.fromEntries(
    Object.entries(parsed.data).map(([key, value]) => {
      const path = files.get(key);
      const own =
        value instanceof Secret && path !== undefined
          ? new Secret(value.current(), secretFile(schema, key, path, values[key] ?? ''))
          : value;
      return [camel(key), Object.freeze(own)];
    }),
  );
  return Object.freeze(renamed) as Config;
}
