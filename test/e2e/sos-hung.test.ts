import { describe, expect, test } from '@jest/globals';
import { failures } from '../support/chaos/failures.ts';

describe('an acknowledged SOS', () => {
  test('+ survives an SOS Redis that hangs, and a door that starts while everything does', async () => {
    expect(await failures(1, 'sos-redis-hung', 'door-among-hung', 'burst-worker')).toEqual([]);
  }, 240_000);
});
