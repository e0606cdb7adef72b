import { describe, expect, test } from '@jest/globals';
import { failures } from '../support/chaos/failures.ts';

describe('an acknowledged SOS', () => {
  test('+ survives kill -9 of whoever took or handles it, of its Redis, and of everything else at once', async () => {
    expect(
      await failures(
        2,
        'api',
        'gateway',
        'worker-claimed',
        'worker-sent',
        'sos-redis',
        'all-three',
        'door-journal',
      ),
    ).toEqual([]);
  }, 240_000);
});
