import { describe, expect, test } from '@jest/globals';
import { failures } from '../support/chaos/failures.ts';

/** One system for all of them: what a scenario breaks it brings back, and the next one finds out whether it did. */
const killed = ['api', 'gateway', 'worker-claimed', 'worker-sent', 'sos-redis', 'all-three', 'door-journal'];
const hung = ['sos-redis-hung', 'door-among-hung'];
const full = ['sos-redis-full'];

describe('an acknowledged SOS', () => {
  test('+ survives kill -9 and a hang of whoever took or handles it, of its Redis, which may be full too, and of everything else at once', async () => {
    expect(await failures(2, ...killed, ...hung, ...full, 'burst-worker')).toEqual([]);
  }, 300_000);
});
