import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { countSegments } from '../../../lib/providers/segments.ts';
import { mapUrl, overText, raisedText } from '../../../services/sos/message-text.ts';

const name = fc.oneof(
  fc.string({ unit: 'binary', maxLength: 400 }),
  fc.string({ unit: 'grapheme', maxLength: 400 }),
  fc.constantFrom(
    '',
    ' \n\t ',
    'Asha',
    'आशा शर्मा'.repeat(30),
    '👩‍👩‍👧‍👦'.repeat(60),
    '€'.repeat(300),
    '\ud800'.repeat(200),
    'x'.repeat(1_000_000),
    'आ '.repeat(500_000),
  ),
);
const location = fc.option(
  fc.record({
    lat: fc.double({ min: -90, max: 90, noNaN: true }),
    lng: fc.double({ min: -180, max: 180, noNaN: true }),
    accuracy: fc.constant(5),
    source: fc.constantFrom('gps' as const, 'last-known' as const),
    ageMs: fc.oneof(fc.nat(), fc.constant(1.76e12)),
  }),
);
const link = fc.option(
  fc.integer({ min: 30, max: 120 }).map((length) => `https://ride.example/share/`.padEnd(length, 'x')),
);

describe('what contacts read', () => {
  test('R3.4 two segments at most, whatever the name; place whole', () => {
    fc.assert(
      fc.property(name, location, link, (who, where, follow) => {
        const text = raisedText({ name: who, location: where, link: follow });
        expect(countSegments(text).segments).toBeLessThanOrEqual(2);
        expect(text.startsWith('SOS: ')).toBe(true);
        // What is said in fewer words is in a script that takes more room
        const isShort = !text.includes(' needs help. ');
        if (isShort) expect(countSegments(text).encoding).toBe('UCS-2');
        if (where === null) expect(text).toContain('Location not known.');
        else {
          expect(text).toContain(mapUrl(where));
          expect(text).toContain(`${where.lat.toFixed(5)},${where.lng.toFixed(5)}`);
        }
        if (follow !== null && !isShort) expect(text.endsWith(` Follow: ${follow}`)).toBe(true);
        const over = overText({ name: who, status: 'resolved' });
        expect(countSegments(over).segments).toBeLessThanOrEqual(2);
      }),
      { numRuns: 300 },
    );
  });

  test('a name of a megabyte costs no time', () => {
    const began = performance.now();
    for (const letter of ['x', 'आ', '👩'])
      raisedText({ name: letter.repeat(1_000_000), location: null, link: null });
    expect(performance.now() - began).toBeLessThan(1000);
  });

  test('a name in another script is read, with place and link, in fewer words', () => {
    const where = { lat: 12.97161, lng: 77.59461, accuracy: 9, source: 'gps' as const, ageMs: 0 };
    const follow = `https://ride.example.com/share/shr_${'x'.repeat(26)}`;
    expect(raisedText({ name: 'आशा शर्मा', location: where, link: follow })).toBe(
      `SOS: आशा शर्मा. https://maps.google.com/?q=12.97161,77.59461 ${follow}`,
    );
    // Who it is comes before the link
    const long = `${follow}${'x'.repeat(40)}`;
    expect(raisedText({ name: 'आशा शर्मा', location: where, link: long })).toBe(
      'SOS: आशा शर्मा. https://maps.google.com/?q=12.97161,77.59461',
    );
  });

  test('a name in another script is there as long as it fits', () => {
    expect(raisedText({ name: 'आशा', location: null, link: null })).toBe(
      'SOS: आशा needs help. Location not known.',
    );
    expect(overText({ name: 'आशा', status: 'cancelled' })).toBe('The SOS of आशा is over. It was called off.');
  });
});
