import { beforeAll, describe, expect, test } from '@jest/globals';
import { type SafetyReport, safetyReport } from '../../support/safety/report.ts';

/** Thirty-two hours of real drives, replayed; docs/safety-checks.md has all of the figures. */
let report: SafetyReport;
beforeAll(async () => {
  report = await safetyReport();
}, 60_000);

describe('+ safety checks on recorded drives', () => {
  test('clean ones: few questions, no alarm if the rider answers, one for each question if they never do', () => {
    const per10h = Object.fromEntries(
      report.clean.map(({ kind, questions }) => [kind, (questions / report.hours) * 10]),
    );
    expect(per10h['long-stop']).toBeLessThan(2.5);
    expect(per10h['route-deviation']).toBeLessThan(1);
    expect(per10h['overdue']).toBeLessThan(2.5);
    // The recordings really have these gaps
    expect(per10h['signal-lost']).toBeLessThan(6);
    for (const { kind, questions, alarmsIfAnswered, alarmsIfSilent } of report.clean)
      expect([kind, alarmsIfAnswered, alarmsIfSilent]).toEqual([kind, 0, questions]);
  });

  test('with the planned way no drive that keeps to it deviates', () => {
    const { questionsWithRoute } = report.clean.find(({ kind }) => kind === 'route-deviation')!;
    expect(questionsWithRoute).toBe(0);
  });

  test('a stop, a silence, a ride that does not arrive: noticed in each; a detour in nearly each', () => {
    expect(report.rides).toBeGreaterThan(80);
    for (const { kind, noticed, fault, medianMin } of report.faults) {
      const least = kind === 'route-deviation' ? 0.95 * report.rides : report.rides;
      expect([fault, noticed >= least]).toEqual([fault, true]);
      expect([fault, (medianMin ?? 99) < (kind === 'overdue' ? 30 : 6)]).toEqual([fault, true]);
    }
  });
});
