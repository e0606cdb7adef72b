import { describe, expect, test } from '@jest/globals';
import * as fc from 'fast-check';
import { z } from 'zod';
import { publicError } from '../../lib/errors.ts';
import { isHostile, parseOrRefuse } from '../../lib/validate.ts';

const nested = (depth: number): unknown => JSON.parse('{"a":'.repeat(depth) + '1' + '}'.repeat(depth));

describe('isHostile', () => {
  test.each([
    ['__proto__ at the top', '{"__proto__":{"role":"super-admin"}}'],
    ['__proto__ in an array', '[1,[{"a":[{"__proto__":1}]}]]'],
    ['an array nested a thousand deep', '['.repeat(1000) + ']'.repeat(1000)],
    ['nesting far deeper than the stack', '['.repeat(50_000) + ']'.repeat(50_000)],
  ])('sees %s', (_, json) => {
    expect(isHostile(JSON.parse(json))).toBe(true);
  });

  test('draws the line below a depth of 32', () => {
    expect(isHostile(nested(32))).toBe(false);
    expect(isHostile(nested(34))).toBe(true);
  });

  test.each([undefined, null, '__proto__', 0, {}, [], { proto: { __proto__: null } }])(
    'lets %j in',
    (value) => {
      expect(isHostile(value)).toBe(false);
    },
  );

  const json = fc.jsonValue({ maxDepth: 6 }).filter((value) => !JSON.stringify(value).includes('__proto__'));
  test('lets every ordinary value in, and none with __proto__ anywhere inside', () => {
    fc.assert(
      fc.property(
        json,
        fc.array(fc.oneof(fc.string(), fc.constant(null)), { maxLength: 8 }),
        (value, path) => {
          expect(isHostile(value)).toBe(false);
          const poison: unknown = JSON.parse('{"__proto__":1}');
          const hidden = path.reduce<unknown>(
            (inner, step) => (step === null ? [value, inner] : { v: value, [`k${step}`]: inner }),
            poison,
          );
          expect(isHostile(hidden)).toBe(true);
        },
      ),
    );
  });
});

describe('parseOrRefuse', () => {
  const schema = z.object({ a: z.object({ b: z.number() }), list: z.array(z.string()).default([]) });

  test('gives the parsed value, defaults filled in and unknown fields gone', () => {
    expect(parseOrRefuse(schema, { a: { b: 1, c: 2 }, d: 3 })).toEqual({ a: { b: 1 }, list: [] });
  });

  test('names every refused field, never a value', () => {
    let thrown: unknown;
    try {
      parseOrRefuse(schema, { a: { b: 'hunter2' }, list: [1, 'hunter2', 2] });
    } catch (error) {
      thrown = error;
    }
    const shown = publicError(thrown);
    expect(shown.code).toBe('VALIDATION');
    expect(shown.fields?.map(({ path }) => path)).toEqual(['a.b', 'list.0', 'list.2']);
    expect(JSON.stringify(shown)).not.toContain('hunter2');
  });
});
