import { spawnSync } from 'node:child_process';
import { describe, expect, test } from '@jest/globals';
import { type Config, ConfigError, configKeys, loadConfig } from '../../lib/config.ts';
import { DEVELOPMENT_SERVICE_ACCOUNT } from '../../lib/standins/development-keys.ts';
import { msg91Ids } from '../support/msg91-ids.ts';

type Env = Record<string, string>;

function problemsOf(env: Env, readFile?: (path: string) => string): ConfigError {
  try {
    loadConfig(env, readFile);
  } catch (error) {
    if (error instanceof ConfigError) return error;
    throw error;
  }
  throw new Error('The configuration was taken');
}
const keysOf = (env: Env) => new Set(problemsOf(env).problems.map(({ key }) => key));

const production: Env = {
  NODE_ENV: 'production',
  NATS_URL: 'nats://n',
  REDIS_URL: 'redis://r',
  SOS_REDIS_URL: 'redis://s',
  MONGO_URI: 'mongodb://m',
  SESSION_SECRET: 's'.repeat(32),
  HASH_SECRET: 'h'.repeat(32),
  ENCRYPTION_KEYS: `k1:${Buffer.alloc(32, 1).toString('base64')}`,
  TWILIO_ACCOUNT_SID: 'AC1',
  TWILIO_AUTH_TOKEN: 't',
  TWILIO_FROM: '+1',
  MSG91_AUTH_KEY: 'k',
  MSG91_TEMPLATE_IDS: msg91Ids,
  WHATSAPP_PHONE_NUMBER_ID: '1',
  WHATSAPP_TOKEN: 'w',
  EMAIL_FROM: 'Rides <rides@example.org>',
  SENDGRID_API_KEY: 'SG.k',
  SES_CONFIGURATION_SET: 'events',
  FCM_SERVICE_ACCOUNT: JSON.stringify(DEVELOPMENT_SERVICE_ACCOUNT),
  WHATSAPP_APP_SECRET: 'w',
  WHATSAPP_VERIFY_TOKEN: 'w',
  SENDGRID_WEBHOOK_PUBLIC_KEY:
    'MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEEDr2LjtURuePQzplybdC+u4CwrqDqBaWjcMMsTbhdbcwHBcepxo7yAQGhHPTnlvFYPAZFceEu/1FwCM/QmGUhA==',
  MSG91_WEBHOOK_SECRET: 'm',
  SES_TOPIC_ARNS: 'arn:aws:sns:ap-south-1:123456789012:ses-events',
  PAGERDUTY_ROUTING_KEY: 'r'.repeat(32),
  ONCALL_PHONE: '+919811111111',
};

describe('loadConfig', () => {
  test('development needs nothing', () => {
    expect(loadConfig({})).toMatchObject({
      nodeEnv: 'development',
      apiPort: 3000,
      socketPort: 3001,
      metricsPort: 3030,
      dataDir: './data',
      sandboxProviders: true,
      requireVerifiedDrivers: false,
      sessionTtlHours: 24,
    });
  });

  test('names every bad key at once, never a value', () => {
    const bad = {
      API_PORT: '70000',
      NODE_ENV: 'staging-hunter2',
      OTP_TTL_S: '-5',
      SANDBOX_PROVIDERS: 'hunter2',
      PUBLIC_URL: 'hunter2',
      PHONE_REGION: 'hunter2',
    };
    const error = problemsOf(bad);
    expect(new Set(error.problems.map(({ key }) => key))).toEqual(new Set(Object.keys(bad)));
    for (const key of Object.keys(bad)) expect(error.message).toContain(`${key}:`);
    expect(error.message).not.toMatch(/hunter2|70000|-5/);
  });

  test('an empty value is as good as none', () => {
    const config = loadConfig({ API_PORT: '', REDIS_URL: '' });
    expect([config.apiPort, config.redisUrl]).toEqual([3000, undefined]);
  });

  test('reads a secret from a file', () => {
    const files: Env = { '/run/secret': 'from the file\n' };
    const config = loadConfig({ SESSION_SECRET_FILE: '/run/secret' }, (path) => files[path] ?? '');
    expect(config.sessionSecret.current()).toEqual(['from the file']);
  });

  test('refuses a value and a file for the same key', () => {
    const error = problemsOf({ HASH_SECRET: 'hunter2', HASH_SECRET_FILE: '/run/secret' });
    expect(error.problems).toEqual([
      { key: 'HASH_SECRET', message: expect.stringContaining('HASH_SECRET_FILE') },
    ]);
    expect(error.message).not.toContain('hunter2');
  });

  test('names a file that cannot be read', () => {
    const error = problemsOf({ HASH_SECRET_FILE: '/nowhere' }, () => {
      throw new Error('ENOENT');
    });
    expect(error.problems).toEqual([{ key: 'HASH_SECRET_FILE', message: 'the file cannot be read' }]);
  });

  test('cannot be changed afterwards', () => {
    const config = loadConfig({}) as { -readonly [K in keyof Config]: Config[K] };
    expect(() => {
      config.apiPort = 1;
    }).toThrow(TypeError);
  });

  test('production refuses to start on what development may leave out', () => {
    const { NODE_ENV = '', ...needed } = production;
    expect(keysOf({ NODE_ENV })).toEqual(new Set(Object.keys(needed)));
  });

  test("production refuses development's own values, each by name", () => {
    const development = Object.fromEntries(configKeys().map(({ key, development: value }) => [key, value]));
    // Whatever production must have of its own, where development has something
    const taken = configKeys().flatMap(({ key, required }) => (required && development[key] ? [key] : []));
    expect(taken).toEqual(expect.arrayContaining(['SESSION_SECRET', 'ENCRYPTION_KEYS', 'TWILIO_AUTH_TOKEN']));
    const env = { ...production, SANDBOX_PROVIDERS: 'true' };
    for (const key of taken) Object.assign(env, { [key]: development[key] });
    expect(keysOf(env)).toEqual(new Set([...taken, 'SANDBOX_PROVIDERS']));
  });

  test('refuses what a provider or a phone network would refuse later', () => {
    const bad = {
      MSG91_SENDER_ID: 'RIDE-1',
      MSG91_TEMPLATE_IDS: `otp:${'a'.repeat(24)},other`,
      // Links in SMS would be longer than what is read of one
      PUBLIC_URL: `https://${'rides.'.repeat(9)}example`,
      WHATSAPP_API_VERSION: '23',
      EMAIL_FROM: 'Rides',
      FCM_SERVICE_ACCOUNT: '{"type":"service_account"}',
      PAGERDUTY_ROUTING_KEY: 'short',
      ONCALL_PHONE: '98111 11111',
      TWILIO_VOICE_FROM: 'RIDE',
    };
    expect(keysOf(bad)).toEqual(new Set(Object.keys(bad)));
    for (const ids of [
      // India's DLT ids look like this; MSG91 takes one and sends nothing
      msg91Ids.replace(/b{24}/, '1107160000000000001'),
      // An SOS must not find out that a text of its own is not registered
      msg91Ids.replace(/,sos_raised_v1_place_hi:b+/, ''),
    ])
      expect(keysOf({ MSG91_TEMPLATE_IDS: ids })).toEqual(new Set(['MSG91_TEMPLATE_IDS']));
    expect(problemsOf({ MSG91_TEMPLATE_IDS: `otp_v1_en:${'b'.repeat(24)}` }).message).toMatch(
      /lacks what an SOS sends: sos_raised_v1_en, .*sos_over_v1_hi/,
    );
  });

  test('`npm run config -- check` says the same: usable, or every bad key and no value', () => {
    const check = (env: Env) => {
      const run = spawnSync(
        process.execPath,
        ['--disable-warning=ExperimentalWarning', 'bin/config.ts', 'check'],
        { env: { PATH: process.env['PATH'], ...env }, encoding: 'utf8' },
      );
      return { status: run.status, output: run.stdout + run.stderr };
    };
    expect(check(production)).toEqual({ status: 0, output: 'The configuration is usable.\n' });
    const defaults = Object.fromEntries(
      configKeys().flatMap(({ key, development, required }) => (required ? [[key, development]] : [])),
    );
    const { status, output } = check({ NODE_ENV: 'production', ...defaults, LOG_LEVEL: 'hunter2' });
    expect(status).toBe(1);
    const named = [...output.matchAll(/^ {2}(\w+): /gm)].map(([, key]) => key);
    expect(new Set(named)).toEqual(new Set([...Object.keys(defaults), 'LOG_LEVEL']));
    for (const value of [...Object.values(defaults).filter(Boolean), 'hunter2'])
      expect(output).not.toContain(value);
  });

  test('production refuses a short secret', () => {
    expect(keysOf({ ...production, SESSION_SECRET: 'short' })).toEqual(new Set(['SESSION_SECRET']));
  });

  test('production has no stand-ins, no built-in admins, and verified drivers only', () => {
    expect(loadConfig(production)).toMatchObject({
      sandboxProviders: false,
      adminPhones: [],
      requireVerifiedDrivers: true,
      host: '0.0.0.0',
      logFormat: 'json',
    });
  });

  test('lists are split and trimmed', () => {
    expect(loadConfig({ ADMIN_PHONES: ' +911, +912 ,,' }).adminPhones).toEqual(['+911', '+912']);
  });
});
