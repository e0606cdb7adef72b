import { describe, expect, test } from '@jest/globals';
import * as fc from 'fast-check';
import { countSegments } from '../../../lib/providers/segments.ts';

const basicText = fc.string({ unit: fc.constantFrom(...Array.from('abc XYZ 019 @£Δ\n')), maxLength: 800 });
const extendedText = fc.string({
  unit: fc.constantFrom(...Array.from('^{}[]~|€\\')),
  minLength: 81,
  maxLength: 400,
});
const anyText = fc.string({ unit: 'grapheme', maxLength: 400 });

describe('countSegments', () => {
  test.each([
    ['', 'GSM-7', 1],
    ['a'.repeat(160), 'GSM-7', 1],
    ['a'.repeat(161), 'GSM-7', 2],
    ['a'.repeat(306), 'GSM-7', 2],
    ['a'.repeat(307), 'GSM-7', 3],
    ['€'.repeat(80), 'GSM-7', 1],
    ['é'.repeat(160), 'GSM-7', 1],
    ['ê'.repeat(70), 'UCS-2', 1],
    ['मदद'.repeat(24), 'UCS-2', 2],
    ['🚨'.repeat(35), 'UCS-2', 1],
    ['🚨'.repeat(36), 'UCS-2', 2],
  ])('knows the limits (%#)', (text, encoding, segments) => {
    expect(countSegments(text)).toMatchObject({ encoding, segments });
  });

  test('does not cut an extended character in two', () => {
    expect(countSegments(`${'a'.repeat(152)}€${'a'.repeat(152)}`)).toEqual({
      encoding: 'GSM-7',
      units: 306,
      segments: 3,
    });
  });

  test('fills every segment when all characters take one unit', () => {
    fc.assert(
      fc.property(basicText, (text) => {
        const expected = text.length <= 160 ? 1 : Math.ceil(text.length / 153);
        expect(countSegments(text)).toEqual({ encoding: 'GSM-7', units: text.length, segments: expected });
      }),
    );
  });

  test('puts 76 extended characters into each of several segments', () => {
    fc.assert(
      fc.property(extendedText, (text) => {
        expect(countSegments(text).segments).toBe(Math.ceil(text.length / 76));
      }),
    );
  });

  test('one character outside the alphabet makes the whole text UCS-2', () => {
    fc.assert(
      fc.property(basicText, basicText, (before, after) => {
        const text = `${before}ж${after}`;
        expect(countSegments(text)).toEqual({
          encoding: 'UCS-2',
          units: text.length,
          segments: text.length <= 70 ? 1 : Math.ceil(text.length / 67),
        });
      }),
    );
  });

  test('has room for all units and wastes at most one per segment', () => {
    fc.assert(
      fc.property(anyText, (text) => {
        const { encoding, units, segments } = countSegments(text);
        const [single, part] = encoding === 'GSM-7' ? [160, 153] : [70, 67];
        if (units <= single) {
          expect(segments).toBe(1);
        } else {
          expect(segments * part).toBeGreaterThanOrEqual(units);
          expect((segments - 1) * (part - 1)).toBeLessThan(units);
        }
      }),
    );
  });
});
