import { Writable } from 'node:stream';
import { describe, expect, test } from '@jest/globals';
import * as fc from 'fast-check';
import pino from 'pino';
import { loggerOptions } from '../../lib/logger.ts';
import { redact } from '../../lib/redact.ts';
import { issueToken } from '../../lib/session-token.ts';
import { alertIdOf } from '../../services/sos/read-press.ts';

const digits = (min: number, max: number) =>
  fc.array(fc.integer({ min: 0, max: 9 }), { minLength: min, maxLength: max }).map((d) => d.join(''));
const phone = digits(9, 11).map((rest) => `+91${rest}`);
const id = fc.string({
  unit: fc.constantFrom(...'abcdefghijklmnopqrstuvwxyz0123456789'.split('')),
  minLength: 24,
  maxLength: 24,
});
const token = fc
  .tuple(id, id)
  .map(([user, sessionId]) => issueToken('secret', { userId: `usr_${user}`, sessionId }));
const code = digits(6, 6);

/** What pino writes for these arguments. */
function logged(...args: unknown[]): string {
  const lines: string[] = [];
  const sink = new Writable({
    write(chunk, _encoding, done) {
      lines.push(String(chunk));
      done();
    },
  });
  const { options } = loggerOptions({ logLevel: 'info', logFormat: 'json' });
  const logger = pino(options.pino.options, sink);
  Reflect.apply(logger.info, logger, args);
  return lines.join('');
}

/** Hides a value somewhere below: in objects, arrays, and texts. */
const hide = (value: unknown, path: string[]): unknown =>
  path.reduce<unknown>((inner, step) => (step === '' ? ['x', inner] : { ok: 1, [step]: inner }), value);
const path = fc.array(fc.constantFrom('', 'data', 'params', 'note', 'err', 'meta'), { maxLength: 12 });
const around = fc.constantFrom(
  (s: string) => s,
  (s: string) => `sent to ${s}, twice`,
  (s: string) => `{"x":"${s}"}`,
  (s: string) => `tel:${s}`,
  (s: string) => `/outbox?to=${encodeURIComponent(s)}&limit=1`,
);
const secretKeys = [
  'phone',
  'to',
  'code',
  'otp',
  'pin',
  'duressPin',
  'token',
  'authorization',
  'text',
  'contacts',
];

describe('no log line tells', () => {
  const bare = (text: string) => text.replace('+', '');

  test('a phone number, wherever it is in the arguments', () => {
    fc.assert(
      fc.property(phone, path, around, (number, where, wrap) => {
        const text = wrap(number);
        expect(logged('A thing happened', hide(text, where))).not.toContain(bare(number));
        expect(logged(hide(text, where), 'A thing happened')).not.toContain(bare(number));
        expect(logged(text)).not.toContain(bare(number));
        expect(logged('It failed', { error: new Error(text) })).not.toContain(bare(number));
      }),
    );
  });

  test('a phone number as people write it', () => {
    for (const written of [
      '+91 98100 00001',
      '+91-98100-00001',
      '+1 (415) 555-0100',
      '9810000001',
      '919810000001',
    ])
      expect(redact(`call ${written} now`)).toBe('call [phone] now');
  });

  test('a session token', () => {
    fc.assert(
      fc.property(token, path, around, (secret, where, wrap) => {
        const signature = secret.split('.')[3] ?? '';
        expect(logged('x', hide(wrap(secret), where))).not.toContain(signature);
        expect(logged('x', { headers: `Bearer ${secret}` })).not.toContain(signature);
      }),
    );
  });

  test('the token of a share link', () => {
    const link = fc
      .array(fc.constantFrom('0', 'a', '9', 'z'), { minLength: 26, maxLength: 26 })
      .map((c) => c.join(''));
    fc.assert(
      fc.property(link, path, around, (secret, where, wrap) => {
        expect(logged('x', hide(wrap(`https://ride.example/share/shr_${secret}`), where))).not.toContain(
          secret,
        );
      }),
    );
  });

  test('a code, a PIN, or what a message says, by the name it goes under', () => {
    fc.assert(
      fc.property(code, fc.constantFrom(...secretKeys), path, (secret, key, where) => {
        const told = logged('x', hide({ [key]: secret, list: [{ [key.toUpperCase()]: [secret] }] }, where));
        expect(JSON.parse(told)).toBeDefined();
        expect(told.replace(/"(time|pid)":\d+/g, '')).not.toContain(secret);
      }),
    );
  });

  test('anything at all without being a line of JSON with its text', () => {
    fc.assert(
      fc.property(fc.array(fc.anything({ withBigInt: false }), { maxLength: 3 }), (args) => {
        const line: unknown = JSON.parse(logged('The text', ...args));
        expect(line).toMatchObject({ level: 30 });
      }),
    );
  });
});

describe('redact leaves readable', () => {
  test('ids of ours', () => {
    fc.assert(
      fc.property(id, (random) => {
        for (const kind of ['usr', 'trp', 'bkg', 'ntf', 'sos']) {
          expect(redact(`${kind}_${random}`)).toBe(`${kind}_${random}`);
        }
        // Of a press with a key
        const hashed = alertIdOf(`usr_${random}`, random);
        expect(redact(hashed)).toBe(hashed);
      }),
    );
  });

  test('numbers, times, coordinates and short texts', () => {
    const plain = {
      at: 1_763_929_274_000,
      when: '2026-11-23T20:21:14.123Z',
      ms: '1763929274000',
      lat: -10.939341,
      text2: 'took 1234 ms at 12.9715987,77.5945627',
      ratio: 0.123456789012,
      nothing: null,
      requestId: '0f8fad5b-d9cb-469f-a165-70867728950e',
    };
    expect(redact(plain)).toEqual(plain);
  });

  test('type and code of an error', () => {
    const error = Object.assign(new TypeError('no'), {
      code: 'ECONNRESET',
      type: 'GONE',
      data: { phone: '1' },
    });
    expect(redact({ error })).toEqual({
      error: {
        name: 'TypeError',
        message: 'no',
        code: 'ECONNRESET',
        type: 'GONE',
        stack: expect.any(String),
      },
    });
  });

  test('the top of a cycle', () => {
    const cycle: Record<string, unknown> = { name: 'top' };
    cycle['self'] = cycle;
    expect(JSON.stringify(redact(cycle))).toContain('[deep]');
  });
});
