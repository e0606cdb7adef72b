import { describe, expect, test } from '@jest/globals';
import { noCounts } from '../../support/simulate/accounting.ts';
import { createGate } from '../../support/simulate/gate.ts';
import { Durations, percentiles } from '../../support/simulate/meter.ts';
import { progressLine, summaryText } from '../../support/simulate/report.ts';
import type { Summary } from '../../support/simulate/run.ts';

const nothing = { p50: null, p99: null, max: null };

const summary: Summary = {
  name: 'simulate',
  ok: true,
  interrupted: false,
  problems: [],
  trips: 2,
  speedup: 10,
  watchers: 1,
  seconds: 12.34,
  counts: {
    ...noCounts(),
    sent: 10,
    refused: { LOCATION_JUMP: 2, LOCATION_AHEAD: 1 },
    refusedExpected: 2,
    refusedUnexpected: 1,
  },
  screenMs: { p50: 400.4, p99: 990, max: 1001 },
  processedMs: nothing,
  reconnects: 0,
  refusedJoins: {},
};

describe('what people are told', () => {
  test('a progress line of the set-up and of the drives', () => {
    const progress = {
      phase: 'setting up' as const,
      ready: 37,
      trips: 163,
      driving: 0,
      counts: { ...noCounts(), superseded: 3 },
      sentPerS: 33.33,
      deliveredPerS: 30,
      screenMs: { p50: 400, p99: 990, max: 999 },
      processedMs: nothing,
      reconnects: 0,
    };
    expect(progressLine(progress)).toBe('setting up 37/163');
    const line = progressLine({ ...progress, phase: 'driving', driving: 160 });
    expect(line).toMatch(
      /^driving 160\/163 {2}sent 33\.3\/s .*p50 400 p99 990 ms .*superseded 3 {2}unanswered 0 {2}lost 0 {2}reconnects 0$/,
    );
  });

  test('a table with refusals by code, and the verdict', () => {
    expect(summaryText(summary)).toMatch(/refused +3: LOCATION_AHEAD 1, LOCATION_JUMP 2 \(2 as expected\)/);
    expect(summaryText(summary)).toMatch(/OK: nothing was lost\.$/);
    const failed = summaryText({ ...summary, ok: false, problems: ['1 delivered twice'] });
    expect(failed).toMatch(/FAILED:\n- 1 delivered twice$/);
  });
});

describe('durations', () => {
  test('percentiles are nearest ranks', () => {
    const hundred = Array.from({ length: 100 }, (_, index) => 100 - index);
    expect(percentiles(hundred)).toEqual({ p50: 50, p99: 99, max: 100 });
    expect(percentiles([7])).toEqual({ p50: 7, p99: 7, max: 7 });
    expect(percentiles([])).toEqual(nothing);
  });

  test('are looked at since the last look, and as a whole', () => {
    const durations = new Durations();
    durations.add(1);
    expect(durations.recent().max).toBe(1);
    durations.add(5);
    durations.add(3);
    expect(durations.recent()).toMatchObject({ p50: 3, max: 5 });
    expect(durations.recent()).toEqual(nothing);
    expect(durations.total().max).toBe(5);
  });
});

test('a gate lets through so many at once, in order, also after a failure', async () => {
  const gate = createGate(2);
  let running = 0;
  let most = 0;
  const finished: number[] = [];
  const results = await Promise.allSettled(
    Array.from({ length: 6 }, (_, index) =>
      gate(async () => {
        running += 1;
        most = Math.max(most, running);
        await Promise.resolve();
        running -= 1;
        finished.push(index);
        if (index === 1) throw new Error('failed');
      }),
    ),
  );
  expect(most).toBe(2);
  expect(finished).toEqual([0, 1, 2, 3, 4, 5]);
  expect(results.filter(({ status }) => status === 'rejected')).toHaveLength(1);
});
