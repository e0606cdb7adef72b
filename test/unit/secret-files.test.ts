import { truncate, writeFile } from 'node:fs/promises';
import { inspect } from 'node:util';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { type Config, configKeys, loadConfig } from '../../lib/config.ts';
import { sealerOf } from '../../lib/sealed.ts';
import { Secret } from '../../lib/secret.ts';
import { watchSecretFiles } from '../../lib/secret-files.ts';
import { issueToken, readToken } from '../../lib/session-token.ts';
import { DEVELOPMENT_SERVICE_ACCOUNT } from '../../lib/standins/development-keys.ts';
import { eventually } from '../support/eventually.ts';
import { type MountedSecrets, mountSecrets } from '../support/mounted-secrets.ts';
import { msg91Ids } from '../support/msg91-ids.ts';

const secret = (letter: string) => `${letter}-${letter.repeat(40)}`;
const sealKey = (id: string, byte: number) => `${id}:${Buffer.alloc(32, byte).toString('base64')}`;
const who = { userId: 'usr_a', sessionId: 'b' };
const valid = { session: secret('a'), keys: sealKey('k1', 1), twilio: 'token-1', hash: secret('h') };

const production = {
  NODE_ENV: 'production',
  NATS_URL: 'nats://n',
  REDIS_URL: 'redis://r',
  SOS_REDIS_URL: 'redis://s',
  MONGO_URI: 'mongodb://m',
  TWILIO_ACCOUNT_SID: 'AC1',
  TWILIO_FROM: '+1',
  MSG91_AUTH_KEY: 'a key',
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

describe('a mounted secret that changes', () => {
  let mounted: MountedSecrets;
  let config: Config;
  let stop: () => void;
  let happened: string[];
  beforeEach(async () => {
    mounted = await mountSecrets(valid);
    config = loadConfig({
      ...production,
      SESSION_SECRET_FILE: mounted.path('session'),
      ENCRYPTION_KEYS_FILE: mounted.path('keys'),
      TWILIO_AUTH_TOKEN_FILE: mounted.path('twilio'),
      HASH_SECRET_FILE: mounted.path('hash'),
    });
    happened = [];
    stop = watchSecretFiles(config, {
      intervalMs: 5,
      onTaken: (key) => void happened.push(`${key} taken`),
      onRefused: (key, problem) => void happened.push(`${key} refused: ${problem}`),
    });
  });
  afterEach(async () => {
    stop();
    await mounted.remove();
  });
  const until = (what: unknown) => eventually(() => expect(happened).toEqual(what));

  test('signs with the new one, and takes what the old one signed', async () => {
    const old = issueToken(config.sessionSecret, who);
    await mounted.mount({ ...valid, session: `${secret('b')}\n${secret('a')}\n` });
    await until(['sessionSecret taken']);
    expect(readToken(config.sessionSecret, old)).toEqual(who);
    const fresh = issueToken(config.sessionSecret, who);
    expect(readToken(secret('b'), fresh)).toEqual(who);
    expect(readToken(secret('a'), fresh)).toBeNull();

    await mounted.mount({ ...valid, session: secret('b') });
    await until(['sessionSecret taken', 'sessionSecret taken']);
    expect(readToken(config.sessionSecret, old)).toBeNull();
    expect(readToken(config.sessionSecret, fresh)).toEqual(who);
  });

  test('seals with the new key and opens what the old one sealed, with a sealer made before', async () => {
    const sealer = sealerOf(config);
    const old = sealer.seal('+919810000001');
    await mounted.mount({ ...valid, keys: `${sealKey('k2', 2)},${sealKey('k1', 1)}`, twilio: 'token-2' });
    await until(expect.arrayContaining(['encryptionKeys taken', 'twilioAuthToken taken']));
    expect(sealer.open(old)).toBe('+919810000001');
    expect(sealer.seal('x')).toMatch(/^k2\./);
    expect(config.twilioAuthToken.current()).toBe('token-2');
  });

  test.each([
    ['short', { session: 'hunter2' }, 'sessionSecret refused: needs 32 characters or more'],
    ["development's", { twilio: 'development-only' }, "twilioAuthToken refused: is development's default"],
    [
      'too many',
      { session: 'abcdef'.split('').map(secret).join('\n') },
      'sessionSecret refused: may hold 5 at most',
    ],
    [
      'no key',
      { keys: 'k1:hunter2' },
      'encryptionKeys refused: must be id:key pairs, each key 32 bytes in base64',
    ],
    [
      'another key under the same id',
      { keys: sealKey('k1', 9) },
      'encryptionKeys refused: has another key under an id that is in use',
    ],
    ['too large', { session: 'x'.repeat(70_000) }, 'sessionSecret refused: the file cannot be read'],
  ])('is refused by name when it is %s, and the old one goes on', async (_, change, expected) => {
    const before = [
      config.sessionSecret.current(),
      config.encryptionKeys.current(),
      config.twilioAuthToken.current(),
    ];
    await mounted.mount({ ...valid, ...change });
    await until([expected]);
    expect([
      config.sessionSecret.current(),
      config.encryptionKeys.current(),
      config.twilioAuthToken.current(),
    ]).toEqual(before);
    expect(happened.join()).not.toContain('hunter2');
    // Told once, and the next good one is taken
    await mounted.mount({ ...valid, session: secret('c'), keys: sealKey('k3', 3), twilio: 'token-3' });
    await eventually(() => expect(happened).toHaveLength(4));
    expect(config.sessionSecret.current()).toEqual([secret('c')]);
  });

  test('is refused when it is empty, and is not half of one that is just being written', async () => {
    await truncate(mounted.path('session'));
    await until(['sessionSecret refused: the file is empty']);
    await writeFile(mounted.path('session'), secret('d'));
    await eventually(() => expect(config.sessionSecret.current()).toEqual([secret('d')]));
  });

  test('is taken no more once the process stops', async () => {
    stop();
    await mounted.mount({ ...valid, session: secret('z') });
    const other = new Promise<void>((resolve) => {
      const end = watchSecretFiles(
        { again: new Secret('', { path: mounted.path('session'), text: '', read: () => ({ value: '' }) }) },
        { intervalMs: 5, onTaken: () => resolve(end()), onRefused: () => undefined },
      );
    });
    await other;
    expect(config.sessionSecret.current()).toEqual([secret('a')]);
  });
});

describe('the configuration', () => {
  /** Fixed for good: what is stored under its hashes could not be found again. */
  const fixed = new Set(['HASH_SECRET']);
  const camel = (key: string) =>
    key.toLowerCase().replace(/_(\w)/g, (_, letter: string) => letter.toUpperCase());

  test('has whatever sounds like a secret as one that can change, or says that it cannot', () => {
    const config: Record<string, unknown> = { ...loadConfig({}) };
    const sounding = configKeys().filter(({ key }) =>
      /SECRET$|TOKEN$|KEYS?$|PASSWORD$|CREDENTIALS?$/.test(key),
    );
    expect(sounding.map(({ key }) => key)).toEqual(
      expect.arrayContaining([
        'SESSION_SECRET',
        'TWILIO_AUTH_TOKEN',
        'MSG91_AUTH_KEY',
        'PAGERDUTY_ROUTING_KEY',
      ]),
    );
    for (const { key, description } of sounding) {
      if (fixed.has(key)) expect(description).toContain('Can never change');
      else expect([key, config[camel(key)]]).toEqual([key, expect.any(Secret)]);
    }
  });

  test('shows a secret to nobody who prints it', () => {
    const config = loadConfig({ TWILIO_AUTH_TOKEN: 'hunter2' });
    const printed = [
      JSON.stringify(config),
      inspect(config, { depth: 9, showHidden: true }),
      String(config.twilioAuthToken),
    ];
    for (const text of printed) expect(text).not.toContain('hunter2');
  });
});
