import { expect, test } from '@jest/globals';
import * as fc from 'fast-check';
import { clientIp } from '../../lib/client-ip.ts';

test('without proxies of ours the header is only a claim', () => {
  expect(clientIp('10.0.0.1', '1.2.3.4', 0)).toBe('10.0.0.1');
});

test('behind proxies it is what the outermost of ours saw, whatever the client claims', () => {
  const ip = fc.ipV4();
  fc.assert(
    fc.property(fc.array(ip), fc.array(ip, { minLength: 1, maxLength: 4 }), (claimed, ours) => {
      expect(clientIp('10.0.0.1', [...claimed, ...ours].join(', '), ours.length)).toBe(ours[0]);
    }),
  );
});

test.each<[string, string | undefined, string | string[] | undefined, number, string]>([
  ['a missing header', '10.0.0.1', undefined, 1, '10.0.0.1'],
  ['fewer hops than proxies', '10.0.0.1', '1.1.1.1', 2, '10.0.0.1'],
  ['empty entries', '10.0.0.1', ' , 1.1.1.1 ,', 1, '1.1.1.1'],
  ['the header twice', '10.0.0.1', ['9.9.9.9', '1.1.1.1'], 1, '1.1.1.1'],
  ['a socket that is gone', undefined, undefined, 0, 'unknown'],
])('%s', (_, remote, header, proxies, expected) => {
  expect(clientIp(remote, header, proxies)).toBe(expected);
});
