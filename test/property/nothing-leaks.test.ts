/** Whatever holds a phone number, a token, a code or a PIN: none comes out of the logger, of an error or of the metrics. */
import { Writable } from 'node:stream';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import * as fc from 'fast-check';
import type { ServiceBroker } from 'moleculer';
import pino from 'pino';
import { AppError, publicError } from '../../lib/errors.ts';
import { newId, randomId } from '../../lib/ids.ts';
import { loggerOptions } from '../../lib/logger.ts';
import { metricsText } from '../../lib/metrics.ts';
import { cleanText, redact } from '../../lib/redact.ts';
import { issueToken } from '../../lib/session-token.ts';
import { render } from '../../lib/templates/index.ts';
import { alertIdOf } from '../../services/sos/read-press.ts';
import { makeBroker } from '../support/broker.ts';

/** What pino writes for these arguments, with our options. */
function logged(...args: unknown[]): string {
  const lines: string[] = [];
  const sink = new Writable({
    write(chunk, _encoding, done) {
      lines.push(String(chunk));
      done();
    },
  });
  const { options } = loggerOptions({ logLevel: 'info', logFormat: 'json' });
  const logger = pino({ ...options.pino.options, base: null, timestamp: false }, sink);
  Reflect.apply(logger.info, logger, args);
  return lines.join('');
}

const digit = fc.integer({ min: 0, max: 9 }).map(String);
const digitsOf = (length: number) =>
  fc.array(digit, { minLength: length, maxLength: length }).map((all) => all.join(''));

/** A number of some country, in the parts that people write it in. */
const number = fc.oneof(
  fc.tuple(
    fc.constant('91'),
    fc.constantFrom('98100', '70045', '89999').chain((a) => digitsOf(5).map((b) => [a, b])),
  ),
  fc.tuple(
    fc.constant('1'),
    digitsOf(4).map((last) => ['415', '555', last]),
  ),
  fc.tuple(
    fc.constant('55'),
    digitsOf(4).map((last) => ['79', '99812', last]),
  ),
  fc.tuple(
    fc.constant('44'),
    digitsOf(6).map((last) => ['7700', last]),
  ),
);
const bidi = (text: string) => `\u202a${text}\u202c`;
const devanagari = (text: string) => text.replace(/\d/g, (d) => String.fromCharCode(0x09_66 + Number(d)));

/** The ways in which one number is written. */
const styles: ((country: string, parts: string[]) => string)[] = [
  (c, p) => `+${c}${p.join('')}`,
  (c, p) => `+${c} ${p.join(' ')}`,
  (c, p) => `+${c}-${p.join('-')}`,
  (c, p) => `+${c}.${p.join('')}`,
  (c, p) => `+${c} (${p[0]}) ${p.slice(1).join('-')}`,
  (c, p) => `(+${c}) ${p.join('\u00a0')}`,
  (c, p) => `00${c}${p.join('')}`,
  (c, p) => `${c}${p.join('')}`,
  (_, p) => `0${p.join(' ')}`,
  (_, p) => `(0${p[0]}) ${p.slice(1).join('–')}`,
  (_, p) => p.join(''),
  (_, p) => p.join('-'),
  (c, p) => bidi(`+${c} ${p.join(' ')}`),
  (c, p) => devanagari(`+${c}${p.join('')}`),
];
const escape = (text: string) => encodeURIComponent(text);
const phone = fc
  .tuple(number, fc.constantFrom(...styles))
  .map(([[country, parts], style]) => ({ text: style(country, parts), digits: parts.join('') }));

/** Texts that hold another text. */
const around: ((text: string) => string)[] = [
  (t) => t,
  (t) => `sent to ${t}, twice`,
  (t) => `tel:${t}`,
  (t) => `call${t}now`,
  (t) => JSON.stringify({ a: [{ note: t }] }),
  (t) => JSON.stringify({ body: JSON.stringify({ note: t }) }),
  (t) => `https://example.org/users/${escape(t)}/calls?again=${escape(t)}#${escape(t)}`,
  (t) => `/redirect?next=${escape(`/outbox?to=${escape(t)}&limit=1`)}`,
  (t) => new URLSearchParams({ To: t, From: t, Limit: '1' }).toString(),
  (t) => `${'x'.repeat(300)} ${t}`,
  (t) => `\n  at handler (${t})\n`,
];
const text = (inner: string) =>
  fc
    .array(fc.constantFrom(...around), { minLength: 1, maxLength: 2 })
    .map((wraps) => wraps.reduce((so, wrap) => wrap(so), inner));

class Person {
  readonly #text: string;
  constructor(value: string) {
    this.#text = value;
  }
  get shown(): string {
    return this.#text;
  }
  toJSON(): object {
    return { shown: this.#text };
  }
  toString(): string {
    return this.#text;
  }
}

/** Things that hold another thing; what is no text goes in as it is. */
const holders: ((value: unknown) => unknown)[] = [
  (v) => [v, v],
  (v) => ({ ok: 1, data: v }),
  (v) => ({ [String(v)]: 1 }),
  (v) => new Map<unknown, unknown>([[v, v]]),
  (v) => new Set([v]),
  (v) => new Error(String(v)),
  (v) => new Error('It failed', { cause: v }),
  (v) => new Error('It failed', { cause: new TypeError(String(v)) }),
  (v) => new AggregateError([new Error(String(v)), v], `All of ${String(v)}`),
  (v) => Object.assign(new Error('x'), { code: v, type: v, data: v, config: { data: v }, response: [v] }),
  (v) => Object.assign(new Error('x'), { name: String(v) }),
  (v) => new Person(String(v)),
  (v) => Object.defineProperty({}, 'lazy', { enumerable: true, get: () => v }),
  (v) => Object.assign(Object.create({ inherited: v }) as object, { own: v }),
  (v) => new Proxy({ inner: v }, {}),
  (v) => Promise.resolve(v),
  (v) => (typeof v === 'string' ? Object(v) : v),
  (v) => (typeof v === 'string' ? Buffer.from(v) : v),
  (v) => (typeof v === 'string' && URL.canParse(v) ? new URL(v) : v),
];
const held = (inner: unknown) =>
  fc
    .array(fc.constantFrom(...holders), { maxLength: 5 })
    .map((wraps) => wraps.reduce((so, wrap) => wrap(so), inner));

/** The digits of a text as a person reads them: escapes resolved, what stands between left out. */
const bare = (line: string): string => {
  let plain = line;
  for (let n = 0; n < 4; n++)
    plain = plain.replace(/%([2-7A-F][0-9A-F])/gi, (_, hex) => String.fromCharCode(Number.parseInt(hex, 16)));
  return plain.replace(/[०-९]/g, (d) => String(d.charCodeAt(0) - 0x09_66)).replace(/[^\p{L}\p{Nd}:,"]/gu, '');
};
const outputs = (value: unknown): string[] => [
  logged('A thing happened', { value }),
  logged({ value }, 'A thing happened'),
  logged('A thing happened', value),
  logged(value),
  logged(typeof value === 'string' ? value : 'x', value, value),
];

describe('the logger', () => {
  test('tells no phone number', () => {
    fc.assert(
      fc.property(
        phone.chain((p) => text(p.text).chain((t) => held(t).map((value) => ({ p, t, value })))),
        ({ p, value }) => {
          for (const line of outputs(value)) expect(bare(line)).not.toContain(p.digits);
        },
      ),
      { numRuns: 700 },
    );
  });

  test('tells no phone number that is a number', () => {
    fc.assert(
      fc.property(
        number.chain(([c, p]) => held(Number(`${c}${p.join('')}`)).map((v) => ({ p, v }))),
        ({ p, v }) => {
          for (const line of outputs(v)) expect(bare(line)).not.toContain(p.join(''));
          for (const line of outputs(BigInt(`91${p.join('')}`))) expect(bare(line)).not.toContain(p.join(''));
        },
      ),
    );
  });

  const token = fc
    .constant(null)
    .map(() => issueToken('secret', { userId: newId('usr'), sessionId: randomId() }));
  test('tells no token', () => {
    const wrap = fc.constantFrom(
      (t: string) => t,
      (t: string) => `Bearer ${t}`,
      (t: string) => `authorization: bearer ${t.slice(30)}`,
      (t: string) => JSON.stringify({ authorization: `Bearer ${t}` }),
      (t: string) => `token=${t.slice(40)}`,
      (t: string) => `redis://default:${t.slice(40)}@redis:6379/0`,
    );
    fc.assert(
      fc.property(
        token.chain((t) =>
          wrap.chain((w) => text(w(t)).chain((x) => held(x).map((value) => ({ t, value })))),
        ),
        ({ t, value }) => {
          const signature = t.split('.')[3] ?? '';
          for (const line of outputs(value)) expect(line).not.toContain(signature);
        },
      ),
      { numRuns: 500 },
    );
  });

  test('tells no code or PIN that stands under its name, in fields or inside a text', () => {
    const names = fc.constantFrom(
      'code',
      'pin',
      'duressPin',
      'currentPin',
      'otp',
      'OTP',
      'loginCode',
      'sms_code',
    );
    const value = fc.integer({ min: 4, max: 8 }).chain(digitsOf);
    const carriers: ((name: string, v: string) => unknown)[] = [
      (n, v) => ({ [n]: v }),
      (n, v) => ({ [n]: [v] }),
      (n, v) => ({ [n]: { deeper: v } }),
      (n, v) => new Map([[n, v]]),
      (n, v) => JSON.stringify({ [n]: v }),
      (n, v) => JSON.stringify({ body: JSON.stringify({ [n]: v, deviceId: 'x' }) }),
      (n, v) => new URLSearchParams({ deviceId: 'x', [n]: v }).toString(),
      (n, v) => escape(JSON.stringify({ [n]: v })),
      (n, v) => `{ ${n}: '${v}' }`,
      (n, v) => new Error(`Refused ${n}: ${v}`),
    ];
    fc.assert(
      fc.property(
        fc
          .tuple(names, value, fc.constantFrom(...carriers))
          .chain(([n, v, carrier]) => held(carrier(n, v)).map((h) => ({ v, h }))),
        ({ v, h }) => {
          for (const line of outputs(h)) expect(line.replace(/:\d+:\d+\)?|"level":30/g, '')).not.toContain(v);
        },
      ),
      { numRuns: 500 },
    );
  });

  test('tells no code in the text of a message that we send', () => {
    fc.assert(
      fc.property(
        digitsOf(6).chain((code) =>
          text(render({ template: 'otp', channel: 'sms', language: 'en', data: { code } }).body).chain((t) =>
            held(t).map((value) => ({ code, value })),
          ),
        ),
        ({ code, value }) => {
          for (const line of outputs(value)) expect(line.replace(/:\d+:\d+/g, '')).not.toContain(code);
        },
      ),
      { numRuns: 500 },
    );
  });

  test('never throws, and writes a line of JSON', () => {
    const hostile = {
      get bad(): never {
        throw new Error('no');
      },
    };
    const refusing = new Proxy(
      {},
      {
        ownKeys: () => {
          throw new Error('no');
        },
      },
    );
    for (const value of [hostile, refusing, Object.create(null), Symbol('x'), 1n, () => 1, [[hostile]]])
      expect(() => JSON.parse(logged('x', { value }))).not.toThrow();
  });

  test('takes no time over what is made to take it', () => {
    const startedAt = performance.now();
    for (const unit of ['1', '1 ', '%20', '%25', '+', '1.', '(', 'a1_', 'code:', '"code":"', 'Bearer ', '१'])
      cleanText(unit.repeat(Math.ceil(100_000 / unit.length)));
    expect(performance.now() - startedAt).toBeLessThan(3000);
  });
});

describe('what is ours stays readable', () => {
  test('ids, times in ms, coordinates, addresses', () => {
    fc.assert(
      fc.property(
        fc.constantFrom('usr', 'trp', 'bkg', 'ntf').map((kind) => newId(kind as 'usr')),
        fc.integer({ min: 1_500_000_000_000, max: 1_999_999_999_999 }),
        fc.double({ min: -90, max: 90, noNaN: true }).map((lat) => lat.toFixed(6)),
        fc.uuid(),
        fc.ipV4(),
        (id, ms, lat, uuid, ip) => {
          const fields = { id, ms, asText: String(ms), iso: new Date(ms).toISOString(), uuid };
          expect(redact(fields)).toEqual(fields);
          for (const line of [
            `trip ${id} at ${lat},${lat}`,
            `${ms}-0 of ${uuid}`,
            `connect ECONNREFUSED ${ip}:6379`,
          ])
            expect(cleanText(line)).toBe(line);
        },
      ),
    );
  });

  test('codes of errors, statuses, and why a field was refused', () => {
    const fields = { code: 'TRIP_NOT_FOUND', status: 404, hasPin: true, fields: ['code: invalid_type'] };
    expect(redact(fields)).toEqual(fields);
    expect(redact(Object.assign(new Error('x'), { code: 'ECONNRESET' }))).toMatchObject({
      code: 'ECONNRESET',
    });
  });

  test('causes, and the parts of an aggregate', () => {
    const error = new AggregateError([new Error('one')], 'all', { cause: new Error('why') });
    expect(redact(error)).toMatchObject({
      message: 'all',
      cause: { message: 'why' },
      errors: [{ message: 'one' }],
    });
  });
});

describe('what a client is told of an error', () => {
  test('holds no phone number, whatever was thrown with whatever details', () => {
    fc.assert(
      fc.property(
        phone.chain((p) => text(p.text).chain((t) => held(t).map((value) => ({ p, t, value })))),
        ({ p, t, value }) => {
          const fields = [{ path: `data.${t}`, message: `Unrecognized key: ${t}` }];
          const refusals = [
            publicError(value, 'request'),
            publicError(new Error(t), 'request'),
            publicError(new AppError('VALIDATION', { fields })),
            publicError(
              Object.assign(new AppError('INTERNAL', Object.assign({ fields: [] }, { phone: t })), {
                message: t,
                stack: t,
              }),
            ),
          ];
          for (const refusal of refusals) expect(bare(JSON.stringify(refusal))).not.toContain(p.digits);
        },
      ),
    );
  });
});

describe('metrics', () => {
  let broker: ServiceBroker;
  beforeAll(async () => {
    broker = makeBroker('labels');
    await broker.start();
    const labelNames = ['outcome'];
    broker.metrics.register({ type: 'counter', name: 'test.counter', labelNames });
    broker.metrics.register({ type: 'gauge', name: 'test.gauge', labelNames });
    broker.metrics.register({ type: 'histogram', name: 'test.histogram', labelNames, quantiles: true });
    broker.metrics.register({ type: 'info', name: 'test.info', labelNames });
  });
  afterAll(() => broker.stop());

  const label = fc.oneof(
    phone.chain((p) => text(p.text).map((value) => ({ value, told: p.digits }))),
    fc.constant(null).map(() => {
      const value = issueToken('secret', { userId: newId('usr'), sessionId: randomId() });
      return { value, told: value.split('.')[3] ?? '' };
    }),
    fc.constant(null).map(() => {
      const value = newId('usr');
      return { value, told: value };
    }),
    fc.constantFrom(null, 'a key').map((key) => {
      const value = alertIdOf(newId('usr'), key);
      return { value, told: value };
    }),
  );
  test('have no label with a number, a token or a user, and so no series each', () => {
    fc.assert(
      fc.property(label, ({ value, told }) => {
        const { metrics } = broker;
        metrics.increment('test.counter', { outcome: value });
        metrics.set('test.gauge', 1, { outcome: value });
        metrics.observe('test.histogram', 1, { outcome: value });
        metrics.set('test.info', value, { outcome: value });
        const output = metricsText(broker);
        expect(output).not.toContain(value);
        expect(bare(output)).not.toContain(told);
      }),
      { numRuns: 100 },
    );
    expect(metricsText(broker).match(/^test_counter(?:_total)?\{/gm)).toHaveLength(1);
  });

  test('keep the labels that they are meant to have', () => {
    broker.metrics.increment('test.counter', { outcome: 'accepted' });
    expect(metricsText(broker)).toMatch(/test_counter\{[^}]*outcome="accepted"/);
  });
});
