import { expect, test } from '@jest/globals';
import { connectionsFor } from '../../../services/gateway/refuse-handshakes.ts';

const limits = (files: string) =>
  [
    'Limit                     Soft Limit           Hard Limit           Units     ',
    `Max open files            ${files.padEnd(20)} 1048576              files     `,
    'Max locked memory         8388608              8388608              bytes     ',
  ].join('\n');

test.each([
  ['20000', 15_000],
  ['15000', 14_500],
  ['1024', 524],
  // Never none at all
  ['256', 1],
  ['unlimited', 15_000],
])('R1.1 with %s open files a node that wants 15,000 connections takes %d', (files, most) => {
  expect(connectionsFor(15_000, limits(files))).toBe(most);
});

test('R1.1 where nothing says how many files there may be, the configuration counts', () => {
  expect(connectionsFor(15_000, '')).toBe(15_000);
});
