/** What contacts read of an SOS on a phone, as it goes to the providers, whatever the name, the place and the language are. */
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import type { AlertLocation } from '../../contracts/sos.ts';
import { countSegments } from '../../lib/providers/segments.ts';
import { type Language, languages, render } from '../../lib/templates/index.ts';
import { messageTo, type Told } from '../../services/sos/contact-messages.ts';
import { coordinatesOf, mapUrl } from '../../services/sos/map-url.ts';

const name = fc.oneof(
  fc.string({ unit: 'binary', maxLength: 400 }),
  fc.string({ unit: 'grapheme', maxLength: 400 }),
  ...['आशाशर्मीक्षि ं', 'أسماءمحمد', 'தமிழ்அரசி', '李小龍王', 'Ašaŭłž', 'Asha Kulkarni'].map((letters) =>
    fc.string({ unit: fc.constantFrom(...Array.from(letters)), maxLength: 60 }),
  ),
  fc.constantFrom(
    '',
    ' \n\t ',
    'Asha',
    'आशा शर्मा'.repeat(30),
    '👩‍👩‍👧‍👦'.repeat(60),
    '€'.repeat(300),
    '\ud800'.repeat(200),
    `A${'\u0301'.repeat(90)}`,
    'क्'.repeat(90),
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
    ageMs: fc.oneof(fc.nat(), fc.constant(1.76e12), fc.constant(-5000)),
  }),
);
/** As `shares` makes them, for every PUBLIC_URL that the configuration takes. */
const link = fc.option(
  fc.integer({ min: 12, max: 63 }).map((length) => {
    const base = 'https://r.in'.padEnd(length, 'x');
    return `${base}/share/shr_${'0a'.repeat(13)}`;
  }),
);
const language = fc.constantFrom(...languages);

const told = (over: Partial<Told>): Told => ({
  name: 'Asha',
  language: 'en',
  status: 'active',
  location: null,
  link: null,
  ...over,
});
const contact = { phone: '+919812345678' };
const smsOf = (over: Partial<Told>, purpose: 'raised' | 'over' = 'raised') =>
  render({ ...messageTo(contact, purpose, told(over)).said, channel: 'sms' });
const here: AlertLocation = { lat: 12.97161, lng: 77.59461, accuracy: 9, source: 'gps', ageMs: 0 };
const follow = `https://ride.example.com/share/shr_${'x'.repeat(26)}`;

test.each<[string, Partial<Told>]>([
  ['a place that is none', { location: { ...here, lat: 1234 } }],
  ['a place that is not a number', { location: { ...here, lng: Number.NaN } }],
  ['a link that is none', { link: 'javascript:alert(1)' }],
  ['a link that no message takes', { link: `https://ride.example/${'a'.repeat(200)}` }],
])('+ a contact is told all the same with %s', (_, wrong) => {
  for (const code of languages)
    for (const channel of ['sms', 'whatsapp', 'push'] as const) {
      const { said } = messageTo(contact, 'raised', told({ ...wrong, language: code }));
      const bare = messageTo(contact, 'raised', told({ language: code })).said;
      const { place: _place, link: _link, ...rest } = said.data;
      expect(rest).toMatchObject(bare.data);
      expect(said.data).toEqual(rest);
      expect(render({ ...said, channel })).toEqual(render({ ...bare, channel }));
    }
});
const unknown: Record<Language, string> = { en: 'Location not known.', hi: 'जगह पता नहीं।' };

describe('what contacts read', () => {
  test('R3.4 two segments at most in either language, whatever the name; place whole, variables as DLT takes them', () => {
    fc.assert(
      fc.property(name, location, link, language, (who, where, url, spoken) => {
        const over = { name: who, language: spoken, location: where, link: url };
        const { body, template } = smsOf(over);
        expect(countSegments(body).segments).toBeLessThanOrEqual(2);
        expect(body.startsWith('SOS: ')).toBe(true);
        expect(body.includes(unknown[spoken])).toBe(where === null);
        if (where !== null) {
          expect(body).toContain(`${mapUrl(where)} `.trimEnd());
          expect(template.variables['place']).toBe(coordinatesOf(where));
        }
        // What is said in fewer words is in a script that takes more room
        if (countSegments(body).encoding === 'GSM-7') {
          expect(body).toContain(' needs help. ');
          expect(body.includes(`Follow: ${url}`)).toBe(url !== null);
        }
        for (const value of Object.values(template.variables)) {
          expect(value).not.toBe('');
          expect(value.length).toBeLessThanOrEqual(30);
        }
      }),
      { numRuns: 500 },
    );
  });

  test('R3.4 no name becomes a link, and a name that can be read is cut before words go, words before the place', () => {
    fc.assert(
      fc.property(
        fc.string({ unit: fc.constantFrom(...Array.from('आशाशर्मी ं')), maxLength: 60 }),
        location,
        link,
        language,
        (who, where, url, spoken) => {
          const given = smsOf({ name: who, language: spoken, location: where, link: url });
          const shown = given.template.variables['name'] ?? '';
          const spelt = who.replace(/ +/g, ' ').trim();
          if (spelt !== '') {
            expect(spelt.startsWith(shown)).toBe(true);
            // A grapheme that does not fit may take some units along
            expect(shown.length).toBeGreaterThanOrEqual(Math.min(spelt.length, 8));
          }
          // The link is there if it fits beside a name of 16 and the place
          const least = `SOS: ${'x'.repeat(16)}। ${where === null ? unknown[spoken] : mapUrl(where)} ${url} ${'x'.repeat(where === null ? 30 : 0)}`;
          if (url !== null && least.length <= 134) expect(given.body).toContain(url);
        },
      ),
    );
    const { body } = smsOf({ name: 'evil.example/win +91 98100 12345' });
    expect(body).toBe('SOS: evil. example win + needs help. Location not known.');
  });

  test('R3.4 the end is two segments at most too, and says how it ended', () => {
    fc.assert(
      fc.property(name, language, (who, spoken) => {
        const { body } = smsOf({ name: who, language: spoken, status: 'resolved' }, 'over');
        expect(countSegments(body).segments).toBeLessThanOrEqual(2);
      }),
    );
    const end = (status: Told['status'], spoken: Language) =>
      smsOf({ status, language: spoken }, 'over').body;
    expect([
      end('resolved', 'en'),
      end('cancelled', 'en'),
      end('resolved', 'hi'),
      end('false-alarm', 'hi'),
    ]).toEqual([
      'The SOS of Asha is over: our team has closed it. Thank you for being there.',
      'The SOS of Asha is over: it was called off. Thank you for being there.',
      'Asha का SOS समाप्त हो गया है: हमारी टीम ने बंद किया। साथ देने के लिए धन्यवाद।',
      'Asha का SOS समाप्त हो गया है: वापस ले लिया गया। साथ देने के लिए धन्यवाद।',
    ]);
  });

  test('a name of a megabyte costs no time', () => {
    const began = performance.now();
    for (const letter of ['x', 'आ', '👩']) smsOf({ name: letter.repeat(1_000_000) });
    expect(performance.now() - began).toBeLessThan(1000);
  });

  test('R3.4 with GPS, with an old place, in another script and in Hindi', () => {
    const old: AlertLocation = { ...here, source: 'last-known', ageMs: 7 * 60_000 };
    const asha = 'आशा शर्मा';
    const map = 'https://maps.google.com/?q=12.97161,77.59461';
    expect(
      [
        smsOf({ location: here, link: follow }),
        smsOf({ location: old }),
        smsOf({ location: here, link: follow, name: asha }),
        smsOf({ location: here, link: follow.replace('ride', 'ride'.repeat(8)), name: asha.repeat(2) }),
        smsOf({ link: follow, name: asha }),
        smsOf({ location: here, link: follow, name: asha, language: 'hi' }),
        smsOf({ location: here, link: follow, name: 'आशा', language: 'hi' }),
        smsOf({ location: old, name: asha, language: 'hi' }),
        smsOf({ link: follow, language: 'hi' }),
      ].map(({ body }) => body),
    ).toEqual([
      `SOS: Asha needs help. At ${map} (12.97161,77.59461, just now). Follow: ${follow} Call them. In danger, call 112.`,
      `SOS: Asha needs help. Last seen ${map} (12.97161,77.59461, 7 min ago).`,
      `SOS: ${asha}. ${map} ${follow}`,
      `SOS: ${asha.repeat(2)} needs help. At ${map} (12.97161,77.59461, just now).`,
      `SOS: ${asha} needs help. Location not known. Follow: ${follow}`,
      `SOS: ${asha}। ${map} ${follow}`,
      `SOS: आशा को मदद चाहिए। ${map} ${follow}`,
      `SOS: ${asha} को मदद चाहिए। पिछली जगह ${map} (7 मिनट पहले)। फ़ोन करें।`,
      `SOS: Asha को मदद चाहिए। जगह पता नहीं। यहाँ देखें: ${follow}`,
    ]);
  });

  test('WhatsApp and push say it too, in the same language, with or without place and link', () => {
    fc.assert(
      fc.property(name, location, link, language, (who, where, url, spoken) => {
        const { said, opens } = messageTo(
          contact,
          'raised',
          told({ name: who, language: spoken, location: where, link: url }),
        );
        const whatsapp = render({ ...said, channel: 'whatsapp' });
        const expected = url !== null ? '' : where !== null ? '_place' : '_bare';
        expect([whatsapp.name, whatsapp.language]).toEqual([`sos_raised_v1${expected}`, spoken]);
        const { body, data } = render({ ...said, channel: 'push' });
        expect(body).toContain(where === null ? unknown[spoken] : coordinatesOf(where));
        expect(data).toEqual({ template: 'sos-raised@1' });
        expect(opens).toBe(url ?? (where === null ? null : mapUrl(where)));
      }),
    );
  });
});
