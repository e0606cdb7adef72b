/** Every template, on every channel and in every language: the rules that hold for all of them, whatever the values are. */
import { describe, expect, test } from '@jest/globals';
import * as fc from 'fast-check';
import { loadConfig } from '../../lib/config.ts';
import type { Channel } from '../../lib/providers/provider.ts';
import { countSegments } from '../../lib/providers/segments.ts';
import { catalogue, type Template, type Texts } from '../../lib/templates/catalogue.ts';
import {
  languages,
  newestTemplate,
  render,
  type TemplateId,
  templateIds,
  variablesOf,
} from '../../lib/templates/index.ts';
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
    case 'choice':
      return fc.constantFrom(...Object.keys(variable.words));
    case 'name':
    case 'plate':
      return hostile;
    case 'text':
      return hostile.map((value) => `because ${value}`);
  }
};
const dataFor = (template: string): fc.Arbitrary<Record<string, string>> =>
  fc.record(
    Object.fromEntries(Object.entries(variablesOf(template)).map(([name, each]) => [name, valueOf(each)])),
  );

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

  test('R4 uses exactly the variables that it declares, on every channel that shows one', () => {
    const placesIn = (text: Texts | string) => [
      ...new Set([...JSON.stringify(text).matchAll(/\{(\w+)\}/g)].map(([, name = '']) => name)),
    ];
    for (const [template, language] of everyText) {
      const { texts, variables } = standing(template);
      const declared = Object.keys(variables).toSorted();
      expect([template, placesIn(texts[language]).toSorted()]).toEqual([template, declared]);
      for (const full of [texts[language].sms, texts[language].whatsapp])
        expect([template, language, placesIn(full).toSorted()]).toEqual([template, language, declared]);
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
        expect(Object.keys(template.variables).toSorted()).toEqual(
          Object.keys(variablesOf(asked.template)).toSorted(),
        );
        for (const value of Object.values(template.variables)) expect(value.length).toBeLessThanOrEqual(30);
      }),
      { numRuns: 250 },
    );
    expect([...names].filter((name) => !/^[a-z_]+_v\d+_(en|hi)$/.test(name))).toEqual([]);
    const long = { name: 'Asha', link: 'https://ride.example/share/longer-than-thirty-characters-are' };
    expect(() => render({ template: 'sos-raised', channel: 'sms', language: 'en', data: long })).toThrow(
      expect.objectContaining({
        type: 'TEMPLATE_VARIABLE_INVALID',
        data: { fields: [{ path: 'data.link', message: 'is over 30 characters' }] },
      }),
    );
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
            data: { name: value },
          });
          expect(body).not.toMatch(/[:/@]/);
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
        const places = standing(asked.template).texts[asked.language].whatsapp.match(/\{\w+\}/g) ?? [];
        expect(variables).toHaveLength(places.length);
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
      const { whatsapp } = standing(template).texts[language];
      expect([template, language, /\}\s*\{/.test(whatsapp)]).toEqual([template, language, false]);
      expect([template, language, whatsapp.endsWith('}')]).toEqual([template, language, false]);
      // The text of a sign-in code is Meta's own
      expect([template, language, whatsapp.startsWith('{')]).toEqual([
        template,
        language,
        template === 'otp@1',
      ]);
    }
  });
});

describe('an email', () => {
  test('R4.4 shows HTML in names as text: its tags are the same whatever the values are', () => {
    const plain = (template: string) =>
      Object.fromEntries(
        Object.entries(variablesOf(template)).map(([name, each]) => [
          name,
          {
            code: '123456',
            count: '5',
            time: '12:00',
            link,
            choice: 'photo',
            name: 'Asha',
            plate: 'KA 01',
            text: 'blurred',
          }[each.kind],
        ]),
      );
    fc.assert(
      fc.property(rendering, (asked) => {
        const data = { ...asked.data, ...('link' in asked.data ? { link } : {}) };
        const { html } = render({ ...asked, data, channel: 'email' });
        const usual = render({ ...asked, data: plain(asked.template), channel: 'email' }).html;
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

test("R4.2 each text is registered with development's MSG91, for an SOS and its end too", () => {
  const { msg91TemplateIds } = loadConfig({ NODE_ENV: 'test' });
  const names = everyText.map(([template, language]) => {
    const data = Object.fromEntries(
      Object.entries(variablesOf(template)).map(([name, variable]) => [
        name,
        fc.sample(valueOf(variable), { numRuns: 1, seed: 1 })[0] ?? '',
      ]),
    );
    return render({ template, channel: 'sms', language, data }).template.name;
  });
  expect(Object.keys(msg91TemplateIds).toSorted()).toEqual(names.toSorted());
});
