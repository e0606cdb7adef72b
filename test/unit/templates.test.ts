/** Every template, on every channel and in every language: the rules that hold for all of them, whatever the values are. */
import { describe, expect, test } from '@jest/globals';
import * as fc from 'fast-check';
import { loadConfig } from '../../lib/config.ts';
import type { Channel } from '../../lib/providers/provider.ts';
import { countSegments } from '../../lib/providers/segments.ts';
import { catalogue, type Template, type Texts, type Wording } from '../../lib/templates/catalogue.ts';
import {
  languages,
  newestTemplate,
  render,
  sayings,
  type TemplateId,
  templateIds,
  variablesOf,
} from '../../lib/templates/index.ts';
import { registrations, textsOf } from '../../lib/templates/registered.ts';
import { cut, type Variable } from '../../lib/templates/variables.ts';

const channels: Channel[] = ['sms', 'whatsapp', 'email', 'push'];
const everyText = templateIds().flatMap((template) =>
  languages.map((language) => [template, language] as const),
);

const link = `https://ride.example/share/shr_${'a1'.repeat(13)}`;

/** Values that are good for a variable, the hostile among them. */
const hostile = fc.oneof(
  fc.string({ unit: 'binary', maxLength: 300 }),
  fc.constantFrom(
    '<img src=x onerror=alert(1)>',
    '"><script>alert(1)</script>',
    '{code} {name} $& $1',
    'Asha\r\nBcc: all@example.com',
    'line\nline\ttab     blanks\u2028separator',
    '\u202Egnp.exe \u2066isolated\u2069 \u200Bzero\uFEFF',
    'evil.example/win call +91 98100 12345',
    '*bold* _it_ ~no~ ```code```',
    'श्रीमती लक्ष्मी क्ष्‍त्रज्ञ '.repeat(20),
    '👩‍👩‍👧‍👦'.repeat(20),
    '\uD800lone',
    `A${'\u0301'.repeat(90)}sha`,
    'क्'.repeat(90),
    '',
    ' \n ',
  ),
);

const valueOf = (variable: Variable): fc.Arbitrary<string> => {
  switch (variable.kind) {
    case 'code':
      return fc.stringMatching(/^\d{6}$/);
    case 'count':
      return fc.stringMatching(/^\d{1,3}$/);
    case 'time':
      return fc.constantFrom('00:00', '09:05', '23:59');
    case 'link':
      return fc.constantFrom(link, `http://localhost:3000/share/shr_${'z'.repeat(26)}`);
    case 'place':
      return fc.constantFrom('12.97161,77.59461', '-90.00000,-180.00000', '-0.00000,0.00000');
    case 'age':
      return fc.constantFrom('0', '1', '59', '60', '2879', '2880', '999999999');
    case 'choice':
      return fc.constantFrom(...Object.keys(variable.words));
    case 'name':
    case 'plate':
      return hostile;
    case 'text':
      return hostile.map((value) => `because ${value}`);
  }
};
/** Values for a template; what is optional is there or not. */
const dataFor = (template: string): fc.Arbitrary<Record<string, string>> => {
  const variables = Object.entries(variablesOf(template));
  return fc.record<Record<string, string>, string>(
    Object.fromEntries(variables.map(([name, each]) => [name, valueOf(each)])),
    { requiredKeys: variables.flatMap(([name, { optional }]) => (optional ? [] : [name])) },
  );
};

/** Short values that are good for each kind. */
const plainValues = {
  code: '123456',
  count: '5',
  time: '12:00',
  link,
  place: '12.97161,77.59461',
  age: '4',
  name: 'Asha',
  plate: 'KA 01',
  text: 'blurred',
};
const plainData = (template: string): Record<string, string> =>
  Object.fromEntries(
    Object.entries(variablesOf(template)).map(([name, variable]) => [
      name,
      variable.kind === 'choice' ? (Object.keys(variable.words)[0] ?? '') : plainValues[variable.kind],
    ]),
  );
/** Those values that a text says, and what is never left out. */
const saidData = (template: string, says: readonly string[]) =>
  Object.fromEntries(
    Object.entries(plainData(template)).filter(
      ([name]) => says.includes(name) || !variablesOf(template)[name]?.optional,
    ),
  );
const allOf = (wording: Wording): string[] => textsOf(wording).map(({ text }) => text);
const placesIn = (text: Texts | string) => [
  ...new Set([...JSON.stringify(text).matchAll(/\{(\w+)\}/g)].map(([, name = '']) => name)),
];

/** Each template with values for it, in a language. */
const rendering = fc
  .constantFrom(...everyText)
  .chain(([template, language]) => dataFor(template).map((data) => ({ template, language, data })));

/** A template as it stands in the catalogue. */
function standing(template: TemplateId): Template {
  const [name = '', version = ''] = template.split('@');
  return (catalogue as Record<string, Record<string, Template>>)[name]![version]!;
}

const unescaped = (html: string) =>
  html.replace(
    /&(amp|lt|gt|quot|#39);/g,
    (_, name: string) => ({ amp: '&', lt: '<', gt: '>', quot: '"', '#39': "'" })[name] ?? '',
  );
const tagsOf = (html: string) =>
  html.match(/<[^>]*>/g)?.map((tag) => tag.replace(/font-size:[^;]*;(letter-spacing:2px;)?/, '')) ?? [];
/** Control characters, direction marks and halves of characters. The joiners of Devanagari are fine. */
const unclean = /(?![\u200C\u200D])[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}\uFFFD]/u;

describe('a template', () => {
  test('R4 is there on each channel and in each language, with every place filled and none left over', () => {
    fc.assert(
      fc.property(rendering, fc.constantFrom(...channels), (asked, channel) => {
        const rendered = render({ ...asked, channel });
        // A value may have braces itself: what is looked for are our own places
        const own = Object.keys(asked.data).filter((name) =>
          Object.values(asked.data).every((value) => !value.includes(`{${name}}`)),
        );
        for (const name of own) expect(JSON.stringify(rendered)).not.toContain(`{${name}}`);
        expect(JSON.stringify(rendered)).not.toMatch(/undefined|\[object/);
      }),
      { numRuns: 250 },
    );
  });

  test('R4 uses exactly the variables that it declares; each SMS says all that are never left out', () => {
    for (const [template, language] of everyText) {
      const { texts, variables } = standing(template);
      const declared = Object.keys(variables).toSorted();
      expect([template, placesIn(texts[language]).toSorted()]).toEqual([template, declared]);
      const always = declared.filter((name) => !variables[name]?.optional);
      for (const text of allOf(texts[language].sms))
        expect([template, text, placesIn(text)]).toEqual([template, text, expect.arrayContaining(always)]);
    }
  });

  test('R4 says each of its texts when their values are there, and its last with nothing optional', () => {
    for (const [template, language] of everyText) {
      const { sms, whatsapp, push } = standing(template).texts[language];
      for (const [channel, wording] of Object.entries({ sms, whatsapp, push: push.body } as const)) {
        const said = sayings(template, channel as 'sms', language);
        expect(said.at(-1)?.filter((name) => variablesOf(template)[name]?.optional)).toEqual([]);
        for (const [index, says] of said.entries()) {
          const data = saidData(template, says);
          // What an earlier one says too is left to this one when the name takes more room
          const isShorter = said.slice(0, index).some((earlier) => earlier.every((name) => name in data));
          if (isShorter) data['name'] = 'Asha Kulkarni';
          const asked = { template, language, data };
          const ending = textsOf(wording)[index]?.ending ?? '';
          const begin = template.replaceAll('-', '_').replace('@', '_v');
          if (channel === 'sms') {
            const { name } = render({ ...asked, channel }).template;
            expect(name).toBe(`${begin}${ending}_${language}`);
          } else if (channel === 'whatsapp') {
            const { name, variables } = render({ ...asked, channel });
            expect([name, variables]).toEqual([`${begin}${ending}`, expect.any(Array)]);
            expect(variables).toHaveLength(says.length);
          } else {
            const { body } = render({ ...asked, channel: 'push' });
            const [first = ''] = (allOf(wording)[index] ?? '').split('{');
            expect(body.startsWith(first)).toBe(true);
          }
        }
      }
    }
  });

  test('R4 that was kept with its version still renders so; an unknown name or version is a coded error', () => {
    for (const id of templateIds()) expect(id).toMatch(/^[a-z-]+@\d+$/);
    expect(newestTemplate('otp')).toBe('otp@1');
    const ask = (template: string) => () =>
      render({ template, channel: 'sms', language: 'en', data: { code: '123456' } });
    expect(ask('otp@1')()).toEqual(ask('otp')());
    const unknown = [
      '',
      '@',
      'nobody',
      'otp@',
      'otp@0',
      'otp@2',
      'otp@1@1',
      'otp@1e0',
      'otp@ 1',
      '__proto__',
      'constructor@1',
    ];
    for (const template of unknown)
      expect(ask(template)).toThrow(expect.objectContaining({ type: 'TEMPLATE_UNKNOWN' }));
    expect(() => newestTemplate('toString')).toThrow(expect.objectContaining({ type: 'TEMPLATE_UNKNOWN' }));
  });

  test('R4 lacking values names every one that is missing, and none comes from the prototype', () => {
    const data = Object.create({ driver: 'Asha' }) as Record<string, string>;
    expect(() => render({ template: 'trip-accepted', channel: 'push', language: 'hi', data })).toThrow(
      expect.objectContaining({
        type: 'TEMPLATE_VARIABLE_MISSING',
        data: {
          fields: ['driver', 'vehicle', 'plate'].map((name) => ({
            path: `data.${name}`,
            message: 'is missing',
          })),
        },
      }),
    );
  });

  test.each([
    ['otp', { code: '12345a' }],
    ['otp', { code: '١٢٣٤٥٦' }],
    ['safety-check', { answerBy: '24:00' }],
    ['document-approved', { document: '__proto__' }],
    ['document-rejected', { document: 'photo', reason: ' \n' }],
    ['sos-over', { name: 'Asha', how: 'duress' }],
    ['sos-raised', { name: 'Asha', place: '12.9,77.5' }],
    ['sos-raised', { name: 'Asha', place: '12.97161,77.59461 evil' }],
    ['sos-raised', { name: 'Asha', age: '-1' }],
    ['sos-raised', { name: 'Asha', link: 'javascript:alert(1)' }],
    ['sos-raised', { name: 'Asha', link: 'https://ride.example/"onload=' }],
    ['sos-raised', { name: 'Asha', link: 'https://user@evil.example/' }],
    ['sos-raised', { name: 'Asha', link: `https://ride.example/${'a'.repeat(100)}` }],
  ])('R4 refuses for %s what is no value of its kind: %j', (template, data) => {
    for (const channel of channels)
      expect(() => render({ template, channel, language: 'en', data })).toThrow(
        expect.objectContaining({ type: 'TEMPLATE_VARIABLE_INVALID' }),
      );
  });
});

describe('an SMS', () => {
  test('R4.2 is one clean line within the segments of its template, whatever the names are', () => {
    fc.assert(
      fc.property(rendering, (asked) => {
        const { body } = render({ ...asked, channel: 'sms' });
        expect(body).not.toMatch(unclean);
        expect(body).not.toMatch(/ {2}|\n/);
        const limit = standing(asked.template).smsSegments[asked.language];
        expect(countSegments(body).segments).toBeLessThanOrEqual(limit);
      }),
      { numRuns: 250 },
    );
  });

  test('R4.2 has registered variables of 30 characters at most (DLT), a template of each version and language', () => {
    const names = new Set<string>();
    fc.assert(
      fc.property(rendering, (asked) => {
        const { template } = render({ ...asked, channel: 'sms' });
        names.add(template.name);
        const texts = textsOf(standing(asked.template).texts[asked.language].sms);
        const chosen = texts
          .filter(({ ending }) => template.name.endsWith(`${ending}_${asked.language}`))
          .at(-1);
        expect(Object.keys(template.variables).toSorted()).toEqual(placesIn(chosen?.text ?? '').toSorted());
        for (const [name, value] of Object.entries(template.variables)) {
          expect(value.length).toBeLessThanOrEqual(30);
          if (variablesOf(asked.template)[name]?.kind !== 'text') expect(value).not.toBe('');
        }
      }),
      { numRuns: 250 },
    );
    expect([...names].filter((name) => !/^[a-z_]+_v\d+(_[a-z]+)?_(en|hi)$/.test(name))).toEqual([]);
    // A link that operators would not let through is left out where the text can do without
    const long = { name: 'Asha', link: 'https://ride.example/share/longer-than-thirty-characters-are' };
    expect(render({ template: 'sos-raised', channel: 'sms', language: 'en', data: long })).toEqual({
      body: 'SOS: Asha needs help. Location not known.',
      template: { name: 'sos_raised_v1_bare_en', variables: { name: 'Asha' } },
    });
  });

  test('R4.7 of a sign-in code: the code is the only run of 4 to 8 digits, on every channel and in both languages', () => {
    fc.assert(
      fc.property(
        fc.stringMatching(/^\d{6}$/),
        fc.constantFrom(...languages),
        fc.constantFrom('sms', 'push', 'email'),
        (code, language, channel) => {
          const rendered = render({ template: 'otp', channel, language, data: { code } });
          const read = 'text' in rendered ? rendered.text : rendered.body;
          expect(read.match(/\p{Nd}{4,8}/gu)).toEqual([code]);
          if (channel === 'sms') expect(countSegments(read).segments).toBe(1);
        },
      ),
    );
  });

  test('R4.2 lets no name become a link, an address or a number to dial', () => {
    fc.assert(
      fc.property(hostile, fc.webUrl(), fc.emailAddress(), (name, url, address) => {
        for (const value of [
          name,
          url,
          address,
          'wa.me/919810012345',
          `${name} evil.example`,
          '+91 (981) 001-2345',
        ]) {
          const { body } = render({
            template: 'sos-over',
            channel: 'sms',
            language: 'en',
            data: { name: value, how: 'resolved' },
          });
          expect(body.replace(' is over: ', '')).not.toMatch(/[:/@]/);
          expect(body).not.toMatch(/\.[\p{L}\p{Nd}]/u);
          expect(body).not.toMatch(/\p{Nd}{5}/u);
        }
      }),
    );
  });
});

describe('a WhatsApp template', () => {
  test('R4.3 has its values in the order of the registered text, each as WhatsApp takes it', () => {
    fc.assert(
      fc.property(rendering, (asked) => {
        const { name, language, variables } = render({ ...asked, channel: 'whatsapp' });
        expect(name).toMatch(/^[a-z0-9_]{1,512}$/);
        expect(language).toBe(asked.language);
        const texts = textsOf(standing(asked.template).texts[asked.language].whatsapp);
        const chosen = texts.filter(({ ending }) => name.endsWith(ending)).at(-1);
        expect(variables).toHaveLength(chosen?.text.match(/\{\w+\}/g)?.length ?? 0);
        for (const value of variables) {
          expect(value).not.toBe('');
          expect(value).not.toMatch(/\n|\t| {4,}/);
          expect(value).not.toMatch(unclean);
          if (!/^https?:/.test(value)) expect(value).not.toMatch(/[*_~`]/);
        }
      }),
      { numRuns: 250 },
    );
  });

  test('R4.3 neither begins nor ends with a variable, nor has two in a row: WhatsApp refuses such texts', () => {
    for (const [template, language] of everyText) {
      for (const text of allOf(standing(template).texts[language].whatsapp)) {
        expect([template, text, /\}\s*\{/.test(text)]).toEqual([template, text, false]);
        expect([template, text, text.endsWith('}')]).toEqual([template, text, false]);
        // The text of a sign-in code is Meta's own
        expect([template, text, text.startsWith('{')]).toEqual([template, text, template === 'otp@1']);
      }
    }
  });
});

describe('an email', () => {
  test('R4.4 shows HTML in names as text: its tags are the same whatever the values are', () => {
    fc.assert(
      fc.property(rendering, (asked) => {
        const data = { ...asked.data, ...('link' in asked.data ? { link } : {}) };
        const { html } = render({ ...asked, data, channel: 'email' });
        const usualData = Object.fromEntries(
          Object.entries(plainData(asked.template)).filter(([name]) => name in asked.data),
        );
        const usual = render({ ...asked, data: usualData, channel: 'email' }).html;
        expect(tagsOf(html)).toEqual(tagsOf(usual));
        expect(html).not.toMatch(/<script|<img|javascript:/i);
      }),
      { numRuns: 250 },
    );
    const { html } = render({
      template: 'document-rejected',
      channel: 'email',
      language: 'en',
      data: { document: 'photo', reason: '<b>"blurred"</b> & dark' },
    });
    expect(html).toContain('&lt;b&gt;&quot;blurred&quot;&lt;/b&gt; &amp; dark');
  });

  test('R4.4 says the same in HTML and in plain text, and its subject is one short line', () => {
    fc.assert(
      fc.property(rendering, (asked) => {
        const { subject, html, text } = render({ ...asked, channel: 'email' });
        expect(subject).not.toMatch(unclean);
        expect(subject.length).toBeLessThan(110);
        const shown = unescaped(html.replace(/^[\s\S]*<h1/, '<h1').replace(/<[^>]*>/g, '\n'));
        for (const line of text.replace('--\n', '').split('\n\n')) {
          // A button's address stands in a line of its own in HTML
          for (const part of line.trim().split(/: (?=https?:)/)) expect(shown).toContain(part);
        }
      }),
      { numRuns: 250 },
    );
  });

  test('R4.4 loads nothing from elsewhere, says its language, and fits a phone', () => {
    for (const [template, language] of everyText) {
      const [data] = fc.sample(dataFor(template), 1);
      const { html } = render({ template, channel: 'email', language, data: data! });
      expect(html).toMatch(new RegExp(`^<!DOCTYPE html>\\s<html lang="${language}"`));
      const loading = [...tagsOf(html), /<style>[^<]*/.exec(html)?.[0]].join('\n');
      expect(loading).toContain('<style>');
      expect(loading).not.toMatch(/src=|url\(|@import|<link|<form/i);
      expect(html).toContain('width=device-width');
      expect(html).toContain('prefers-color-scheme:dark');
      // Gmail cuts beyond 102 KB
      expect(html.length).toBeLessThan(12_000);
    }
  });
});

describe('a push message', () => {
  test('R4.6 is clean, short enough for a lock screen, and names its template to the app', () => {
    fc.assert(
      fc.property(rendering, (asked) => {
        const { title, body, data } = render({ ...asked, channel: 'push' });
        expect(`${title}${body}`).not.toMatch(unclean);
        expect([title.length > 0 && title.length <= 70, body.length > 0 && body.length <= 240]).toEqual([
          true,
          true,
        ]);
        expect(data).toEqual({ template: asked.template });
      }),
      { numRuns: 250 },
    );
  });
});

test('R4 cutting keeps whole letters, and never more than it may', () => {
  fc.assert(
    fc.property(hostile, fc.integer({ min: 0, max: 60 }), (value, length) => {
      const short = cut(value, length);
      expect(short.length).toBeLessThanOrEqual(length);
      expect(value.startsWith(short)).toBe(true);
      if (value.isWellFormed()) expect(short.isWellFormed()).toBe(true);
    }),
  );
  expect(cut('क्षमा', 2)).toBe('');
  expect(cut('👩‍👩‍👧‍👦 Rao', 12)).toBe('👩‍👩‍👧‍👦');
});

test("R4.2 each text has a registered name of its own, and development's MSG91 has them all", () => {
  const names = registrations().map(({ channel, name }) => `${channel} ${name}`);
  expect(new Set(names).size).toBe(names.length);
  const { msg91TemplateIds } = loadConfig({ NODE_ENV: 'test' });
  const bySms = registrations().flatMap(({ channel, name }) => (channel === 'sms' ? [name] : []));
  expect(Object.keys(msg91TemplateIds).toSorted()).toEqual(bySms.toSorted());
  // As they were registered first: neither is renamed or changed
  expect(bySms).toEqual(expect.arrayContaining(['otp_v1_hi', 'sos_raised_v1_en', 'sos_raised_v1_place_hi']));
  const whatsapp = ({ template, data }: { template: string; data: Record<string, string> }) =>
    render({ template, data, channel: 'whatsapp', language: 'en' });
  expect(whatsapp({ template: 'sos-raised', data: { name: 'Asha', link } })).toEqual({
    name: 'sos_raised_v1',
    language: 'en',
    variables: ['Asha', link],
  });
  expect(whatsapp({ template: 'sos-over', data: { name: 'Asha', how: 'resolved' } })).toEqual({
    name: 'sos_over_v1',
    language: 'en',
    variables: ['Asha'],
  });
});
