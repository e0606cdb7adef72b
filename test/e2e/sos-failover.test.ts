import { describe, expect, test } from '@jest/globals';
import { failures } from '../support/chaos/failures.ts';

describe('an acknowledged SOS', () => {
  test('+ survives the loss of the primary that has it', async () => {
    expect(await failures(2, 'sentinel')).toEqual([]);
  }, 240_000);
});
