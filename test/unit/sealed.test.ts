import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { createSealer, parseSealKeys } from '../../lib/sealed.ts';

const key = (id: string, byte: number) => ({ id, key: Buffer.alloc(32, byte) });

describe('sealing', () => {
  test('what is sealed opens again, and shows nothing of itself', () => {
    fc.assert(
      fc.property(fc.string({ minLength: 7 }), (text) => {
        const sealer = createSealer([key('a', 1)]);
        const sealed = sealer.seal(text);
        expect(sealer.open(sealed)).toBe(text);
        expect(sealed).not.toContain(text);
        expect(sealer.seal(text)).not.toBe(sealed);
      }),
    );
  });

  test('any changed character is refused', () => {
    const sealer = createSealer([key('a', 1), key('b', 1)]);
    const sealed = sealer.seal('+919800000001');
    fc.assert(
      fc.property(
        fc.nat(sealed.length - 1),
        fc.constantFrom('a', 'b', '0', 'Z', '.', '-'),
        (index, character) => {
          const changed = sealed.slice(0, index) + character + sealed.slice(index + 1);
          // The last character of a base64url part may carry bits that mean nothing
          const same = (text: string) =>
            text
              .split('.')
              .map((part, n) => (n === 0 ? part : Buffer.from(part, 'base64url').toString('hex')))
              .join('.');
          fc.pre(same(changed) !== same(sealed));
          expect(() => sealer.open(changed)).toThrow();
        },
      ),
    );
  });

  test('keys rotate: an old one still opens, the first one seals, an unknown one is refused', () => {
    const old = createSealer([key('a', 1)]).seal('secret');
    const rotated = createSealer([key('b', 2), key('a', 1)]);
    expect(rotated.open(old)).toBe('secret');
    expect(rotated.seal('secret')).toMatch(/^b\./);
    expect(() => createSealer([key('b', 2)]).open(old)).toThrow('not configured');
  });

  test('keys are 32 bytes in base64, each with an id of its own', () => {
    const encoded = Buffer.alloc(32, 7).toString('base64');
    expect(parseSealKeys(`a:${encoded}, b:${encoded}`)?.map(({ id }) => id)).toEqual(['a', 'b']);
    for (const bad of ['', 'a', `a:${encoded},a:${encoded}`, 'a:c2hvcnQ=', `:${encoded}`])
      expect(parseSealKeys(bad)).toBeNull();
  });
});
