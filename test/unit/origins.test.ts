import { expect, test } from '@jest/globals';
import { isAllowedOrigin } from '../../lib/origins.ts';

const corsOrigins = ['https://ride.example'];
const cases: [string | undefined, boolean, boolean][] = [
  // origin, in production, in development
  [undefined, true, true],
  ['https://ride.example', true, true],
  ['http://localhost:5173', false, true],
  ['http://127.0.0.1', false, true],
  ['http://[::1]:3000', false, true],
  ['https://ride.example.evil.example', false, false],
  ['https://evil.example', false, false],
  ['http://localhost.evil.example', false, false],
  ['http://localhost:3000.evil.example', false, false],
  ['http://evil.example?http://localhost', false, false],
  ['null', false, false],
  ['', false, false],
];

test.each(cases)('%j: production %j, development %j', (origin, production, development) => {
  expect(isAllowedOrigin({ corsOrigins, nodeEnv: 'production' }, origin)).toBe(production);
  expect(isAllowedOrigin({ corsOrigins, nodeEnv: 'development' }, origin)).toBe(development);
});
