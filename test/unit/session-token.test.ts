import { describe, expect, test } from '@jest/globals';
import * as fc from 'fast-check';
import { newId, randomId } from '../../lib/ids.ts';
import { issueToken, readToken } from '../../lib/session-token.ts';

const secret = 'a secret of this test';
const identity = fc.constant(null).map(() => ({ userId: newId('usr'), sessionId: randomId() }));

describe('session tokens', () => {
  test('say who holds them', () => {
    fc.assert(
      fc.property(identity, (who) => {
        expect(readToken(secret, issueToken(secret, who))).toEqual(who);
      }),
    );
  });

  test('with any one character changed, added or removed say nothing', () => {
    fc.assert(
      fc.property(
        identity,
        fc.nat(),
        fc.string({ minLength: 1, maxLength: 1 }),
        (who, position, character) => {
          const token = issueToken(secret, who);
          const at = position % token.length;
          const changed = token.slice(0, at) + character + token.slice(at + 1);
          fc.pre(changed !== token);
          expect(readToken(secret, changed)).toBeNull();
          expect(readToken(secret, token.slice(0, at) + character + token.slice(at))).toBeNull();
          expect(readToken(secret, token.slice(0, at) + token.slice(at + 1))).toBeNull();
        },
      ),
    );
  });

  test('of another secret say nothing', () => {
    fc.assert(
      fc.property(identity, fc.string({ minLength: 1 }), (who, other) => {
        fc.pre(other !== secret);
        expect(readToken(secret, issueToken(other, who))).toBeNull();
      }),
    );
  });

  test('cannot be made from the parts of two', () => {
    fc.assert(
      fc.property(identity, identity, (a, b) => {
        const [one, two] = [issueToken(secret, a).split('.'), issueToken(secret, b).split('.')];
        expect(readToken(secret, [one[0], one[1], two[2], one[3]].join('.'))).toBeNull();
        expect(readToken(secret, [one[0], two[1], one[2], one[3]].join('.'))).toBeNull();
      }),
    );
  });

  test('that are not tokens at all are refused', () => {
    fc.assert(fc.property(fc.string(), (text) => expect(readToken(secret, text)).toBeNull()));
    expect(readToken(secret, `v1.usr_a.b.${'x'.repeat(10_000)}`)).toBeNull();
    expect(readToken(secret, 'v1...')).toBeNull();
  });
});
