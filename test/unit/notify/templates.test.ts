import { expect, test } from '@jest/globals';
import * as fc from 'fast-check';
import { countSegments } from '../../../lib/providers/segments.ts';
import { renderText } from '../../../services/notify/templates.ts';

test('in an OTP message the code is the only run of 4 to 8 digits, and it is one SMS', () => {
  fc.assert(
    fc.property(fc.stringMatching(/^\d{6}$/), (code) => {
      const text = renderText('otp', { code });
      expect(text.match(/\d{4,8}/g)).toEqual([code]);
      expect(countSegments(text)).toMatchObject({ segments: 1 });
    }),
  );
});

test('a missing value is named', () => {
  expect(() => renderText('otp', {})).toThrow(
    expect.objectContaining({
      type: 'TEMPLATE_VARIABLE_MISSING',
      data: { fields: [{ path: 'data.code', message: 'is missing' }] },
    }),
  );
});

test('a value is taken as it is, and none from the prototype', () => {
  expect(renderText('otp', { code: '{code} $& $1' })).toContain('{code} $& $1 is your');
  expect(() => renderText('otp', Object.create({ code: '123456' }) as Record<string, string>)).toThrow();
});
