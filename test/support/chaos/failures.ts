import { sosChaos } from '../../chaos/sos.ts';
import { passed, type Row } from './result.ts';

/** Other tests run beside these: what is lost or doubled counts as ever, times as far. */
const timesAsLong = 2;

/** Plays some rounds of `npm run chaos -- sos`, which has them all. The rows that did not pass. */
export async function failures(rounds: number, ...only: string[]): Promise<Row[]> {
  const written: string[] = [];
  const rows = await sosChaos({
    rounds,
    only,
    onRound: (name, n, problem) => problem !== null && written.push(`${name} ${n}: ${problem}`),
  });
  if (written.length > 0) process.stderr.write(`${written.join('\n')}\n`);
  if (rows.length !== only.length) throw new Error(`There is no such scenario among ${only.join()}`);
  return rows.filter(
    ({ doneLimitMs, ackLimitMs, ...row }) =>
      !passed({ ...row, doneLimitMs: timesAsLong * doneLimitMs, ackLimitMs: timesAsLong * ackLimitMs }),
  );
}
