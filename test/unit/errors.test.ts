import { describe, expect, test } from '@jest/globals';
import * as fc from 'fast-check';
import { Errors, ServiceBroker } from 'moleculer';
import { type ErrorCode, errorCatalogue } from '../../contracts/errors.ts';
import { AppError, errorStatus, publicError } from '../../lib/errors.ts';

const codes = Object.keys(errorCatalogue) as ErrorCode[];
const secret = 'secret-detail-4711';

describe('publicError', () => {
  test.each(codes)('%s keeps its code, status and words', (code) => {
    const error = new AppError(code);
    expect(publicError(error, 'req-1')).toEqual({
      code,
      message: errorCatalogue[code].message,
      requestId: 'req-1',
    });
    expect(errorStatus(error)).toBe(errorCatalogue[code].status);
    expect(errorCatalogue[code].status).toBeGreaterThanOrEqual(400);
  });

  test('tells the fields and the seconds to wait, and nothing else that the error carries', () => {
    const fields = [{ path: 'lat', message: 'is missing' }];
    const details = { fields, retryAfterS: 7, internal: secret };
    expect(publicError(new AppError('VALIDATION', details))).toEqual({
      code: 'VALIDATION',
      message: errorCatalogue.VALIDATION.message,
      fields,
      retryAfterS: 7,
    });
  });

  const typed = (type: string) => Object.assign(new Error(secret), { type });
  test.each<[string, Error, ErrorCode]>([
    ['a body over the limit', typed('entity.too.large'), 'PAYLOAD_TOO_LARGE'],
    ['a broken body', typed('entity.parse.failed'), 'BAD_JSON'],
    ['a page from elsewhere', typed('ORIGIN_NOT_ALLOWED'), 'ORIGIN_REFUSED'],
    ['a late answer', new Errors.RequestTimeoutError({ action: 'a.b', nodeID: secret }), 'TIMEOUT'],
    ['a full queue', new Errors.QueueIsFullError({ action: 'a.b', nodeID: secret }), 'UNAVAILABLE'],
    [
      'a service that is not there',
      new Errors.ServiceNotFoundError({ action: 'a.b', nodeID: secret }),
      'UNAVAILABLE',
    ],
    [
      'a service that is gone',
      new Errors.ServiceNotAvailableError({ action: 'a.b', nodeID: secret }),
      'UNAVAILABLE',
    ],
    ['an unforeseen type', typed('SOMETHING'), 'INTERNAL'],
    ['a type that every object has', typed('constructor'), 'INTERNAL'],
    ['a plain error', new Error(secret), 'INTERNAL'],
    ['our own broken result', new Errors.MoleculerServerError(secret, 500, 'RESULT_INVALID', {}), 'INTERNAL'],
  ])('%s has a code of ours, without its own words', (_, error, code) => {
    const shown = publicError(error, 'req-1');
    expect(shown).toEqual({ code, message: errorCatalogue[code].message, requestId: 'req-1' });
    expect(JSON.stringify(shown)).not.toContain(secret);
  });

  test.each(['Command timed out', 'Connection is closed.', 'connect ECONNREFUSED 10.0.0.1:6379'])(
    'a store that is away is UNAVAILABLE, to be tried again: %s',
    (words) => {
      expect(publicError(new Error(words))).toEqual({
        code: 'UNAVAILABLE',
        message: errorCatalogue.UNAVAILABLE.message,
        retryAfterS: 2,
      });
      expect(errorStatus(new Error(words))).toBe(503);
    },
  );

  test('whatever is thrown has a public form of known fields', () => {
    fc.assert(
      fc.property(fc.anything(), (thrown) => {
        expect(publicError(thrown, 'r')).toEqual({
          code: 'INTERNAL',
          message: errorCatalogue.INTERNAL.message,
          requestId: 'r',
        });
        expect(errorStatus(thrown)).toBe(500);
      }),
    );
  });
});

test.each(codes)('%s survives the way over the broker', (code) => {
  const { errorRegenerator } = new ServiceBroker({ logger: false });
  const error = new AppError(code, { retryAfterS: 3, fields: [{ path: 'a', message: 'b' }] });
  const onTheWire: unknown = JSON.parse(JSON.stringify(errorRegenerator?.extractPlainError(error, {})));
  const restored = errorRegenerator?.restore(onTheWire as Errors.PlainMoleculerError, {});
  expect(publicError(restored)).toEqual(publicError(error));
  expect(errorStatus(restored)).toBe(errorCatalogue[code].status);
});

test('a node that dies with a request is no bug of ours: who asked is to try again', () => {
  const error = new Errors.RequestRejectedError({ action: 'location.close', nodeID: 'location-1' });
  expect([publicError(error).code, errorStatus(error)]).toEqual(['UNAVAILABLE', 503]);
});
