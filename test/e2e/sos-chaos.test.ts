import { describe, expect, test } from '@jest/globals';
import { sosChaos } from '../chaos/sos.ts';
import { passed } from '../support/chaos/result.ts';

/** Some rounds of `npm run chaos -- sos`, which has them all; a row that did not pass says why. */
async function failures(rounds: number, ...only: string[]): Promise<unknown[]> {
  const written: string[] = [];
  const rows = await sosChaos({
    rounds,
    only,
    onRound: (name, n, problem) => problem !== null && written.push(`${name} ${n}: ${problem}`),
  });
  if (written.length > 0) process.stderr.write(`${written.join('\n')}\n`);
  expect(rows.map(({ name }) => name)).toEqual(only);
  return rows.filter((row) => !passed(row));
}

describe('+ an acknowledged SOS', () => {
  test('R3.3 + survives kill -9 of whoever took or handles it, of its Redis, and of everything else at once', async () => {
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
  }, 180_000);

  test('+ survives an SOS Redis that hangs, and the loss of its primary', async () => {
    expect(await failures(1, 'sos-redis-hung', 'sentinel')).toEqual([]);
  }, 120_000);
});
