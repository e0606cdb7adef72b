/** What rounds of a scenario came to, and how that is told. */

/** One round. Times in ms. */
export interface Round {
  resent: number;
  /** From the kill, or from when the killed thing was back, until every contact message was sent. */
  doneMs: number;
  /** The slowest acknowledgement. */
  ackMs: number;
}

export interface Row {
  name: string;
  what: string;
  rounds: number;
  /** Rounds in which something threw. */
  failed: number;
  lost: number;
  doubled: number;
  resent: number;
  doneP50Ms: number;
  doneMaxMs: number;
  ackMaxMs: number;
  /** What `done` and an acknowledgement may take. */
  doneLimitMs: number;
  ackLimitMs: number;
  problems: string[];
}

export const passed = (row: Row): boolean =>
  row.rounds > 0 &&
  row.failed + row.lost + row.doubled === 0 &&
  row.doneMaxMs <= row.doneLimitMs &&
  row.ackMaxMs <= row.ackLimitMs;

/** The value below which half of them are. */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.floor((sorted.length - 1) / 2)] ?? 0;
}

export const jsonLine = (rows: readonly Row[], machine: string): string =>
  JSON.stringify({ name: 'sos', machine, passed: rows.every(passed), rows });

/** A Markdown table; below it what went wrong. */
export function tableText(rows: readonly Row[], machine: string): string {
  return [
    `sos on ${machine}`,
    '',
    '| scenario | what is done | rounds | lost | doubled | resent | done p50 | done max | limit | worst ack |',
    '|---|---|---|---|---|---|---|---|---|---|',
    ...rows.map((row) => {
      const ms = (value: number) => `${Math.round(value)} ms`;
      const { name, what, rounds, lost, doubled, resent, doneP50Ms, doneMaxMs, doneLimitMs, ackMaxMs } = row;
      const cells = [
        name,
        what,
        rounds,
        lost,
        doubled,
        resent,
        ...[doneP50Ms, doneMaxMs, doneLimitMs, ackMaxMs].map(ms),
      ];
      return `| ${cells.join(' | ')} |`;
    }),
    '',
    ...rows.flatMap((row) => [
      ...(passed(row) ? [] : [`FAILED ${row.name}: ${row.failed} rounds failed`]),
      ...row.problems.map((problem) => `${row.name}: ${problem}`),
    ]),
    rows.every(passed) ? 'Every row passed.' : 'Not every row passed.',
  ].join('\n');
}
