/** How a run is told to people. */
import type { Counts } from './accounting.ts';
import type { Percentiles } from './meter.ts';
import type { Progress, Summary } from './run.ts';

/** One line on how it goes, without a line break. */
export function progressLine(progress: Progress): string {
  const { phase, ready, trips, driving, counts } = progress;
  if (phase === 'setting up') return `setting up ${ready}/${trips}`;
  return [
    `${phase} ${driving}/${trips}`,
    `sent ${progress.sentPerS.toFixed(1)}/s`,
    `delivered ${progress.deliveredPerS.toFixed(1)}/s`,
    `to screen p50 ${ms(progress.screenMs.p50)} p99 ${ms(progress.screenMs.p99)} ms`,
    `from processing p50 ${ms(progress.processedMs.p50)} p99 ${ms(progress.processedMs.p99)} ms`,
    `refused ${refusedTotal(counts)}`,
    `superseded ${counts.superseded}`,
    // More than a few only while the door is away: they go again after the reconnect.
    `unanswered ${counts.unanswered}`,
    `lost ${counts.lost}`,
    `reconnects ${progress.reconnects}`,
  ].join('  ');
}

/** The table and the verdict at the end, several lines. */
export function summaryText(summary: Summary): string {
  const { counts } = summary;
  const rows: [string, string][] = [
    ['trips', `${summary.trips} at ${summary.speedup}x, ${summary.watchers} watching each`],
    ['driven', `${summary.seconds.toFixed(1)} s${summary.interrupted ? ', interrupted' : ''}`],
    ['sent', `${counts.sent}`],
    ['acknowledged', `${counts.acknowledged}`],
    ['repeated', `${counts.repeated}`],
    ['refused', refusals(counts)],
    ['delivered', `${counts.delivered}`],
    ['superseded', `${counts.superseded}`],
    ['lost', `${counts.lost}`],
    ['unanswered', `${counts.unanswered}`],
    ['doubled', `${counts.doubled}`],
    ['misdelivered', `${counts.misdelivered}`],
    ['reconnects', `${summary.reconnects}`],
    ['refused re-joins', byCode(summary.refusedJoins)],
    ['to screen, ms', spread(summary.screenMs)],
    ['from processing, ms', spread(summary.processedMs)],
  ];
  if (counts.jumpsTaken > 0) rows.push(['jumps taken', `${counts.jumpsTaken} that the rule wants refused`]);
  const width = Math.max(...rows.map(([name]) => name.length));
  const table = rows.map(([name, value]) => `  ${name.padEnd(width)}  ${value}`);
  const verdict = summary.ok
    ? ['OK: nothing was lost.']
    : ['FAILED:', ...summary.problems.map((line) => `- ${line}`)];
  return ['', ...table, '', ...verdict].join('\n');
}

function refusals(counts: Counts): string {
  const total = refusedTotal(counts);
  if (total === 0) return '0';
  return `${total}: ${byCode(counts.refused)} (${counts.refusedExpected} as expected)`;
}

function byCode(counts: Record<string, number>): string {
  const parts = Object.entries(counts).map(([code, count]) => `${code} ${count}`);
  return parts.length === 0 ? '0' : parts.toSorted().join(', ');
}

const refusedTotal = (counts: Counts) => counts.refusedExpected + counts.refusedUnexpected;

const spread = ({ p50, p99, max }: Percentiles) => `p50 ${ms(p50)}  p99 ${ms(p99)}  max ${ms(max)}`;

const ms = (value: number | null) => (value === null ? '-' : value.toFixed(0));
