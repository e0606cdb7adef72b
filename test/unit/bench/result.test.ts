import { describe, expect, test } from '@jest/globals';
import { callsPerS, callTimes } from '../../support/bench/calls.ts';
import { machineName, processCpuMs } from '../../support/bench/machine.ts';
import { atMost, type BenchResult, jsonLine, passed, tableText } from '../../support/bench/result.ts';

const result: BenchResult = {
  name: 'sample',
  lost: 0,
  doubled: 0,
  figures: {
    p99Ms: 1.23456,
    perS: 5e3,
  },
  baseline: { p99Ms: 2.5 },
  ratio: { p99Ms: 2.025 },
  targets: [atMost('R8.5', 'p99, ms', 1.23456, 5)],
  notes: ['A note.'],
};

describe('a benchmark', () => {
  test('passes when every target is met, nothing is lost and nothing is doubled', () => {
    expect(passed(result)).toBe(true);
    expect(passed({ ...result, lost: 1 })).toBe(false);
    expect(passed({ ...result, doubled: 1 })).toBe(false);
    for (const measured of [5.1, Number.NaN])
      expect(passed({ ...result, targets: [atMost('R8.5', 'p99, ms', measured, 5)] })).toBe(false);
  });

  test('is one line of JSON with exactly what the interface names', () => {
    const line = jsonLine(result, 'a machine');
    expect(line).not.toContain('\n');
    expect(JSON.parse(line)).toEqual({
      name: 'sample',
      machine: 'a machine',
      lost: 0,
      doubled: 0,
      figures: {
        p99Ms: 1.235,
        perS: 5e3,
      },
      baseline: { p99Ms: 2.5 },
      ratio: { p99Ms: 2.025 },
    });
  });

  test('is a table that names the machine and each target with its requirement', () => {
    const text = tableText({ ...result, targets: [atMost('R8.5', 'p99, ms', 6, 5)] }, 'a machine');
    expect(text).toContain('sample on a machine');
    expect(text).toContain('| p99Ms | 1.235 | 2.5 | 2.025 |');
    expect(text).toContain('| perS | 5000 |  |  |');
    expect(text).toContain('MISSED R8.5 p99, ms: at most 5; measured 6');
    expect(text).toContain('A note.');
  });

  test('names the machine it ran on', () => {
    expect(machineName()).toMatch(/, \d+ cores, \d+ GB, Node v24\.\S+, load \d/);
  });

  test('measures the CPU time of a process', async () => {
    const before = await processCpuMs(process.pid);
    const until = performance.now() + 100;
    while (performance.now() < until);
    expect((await processCpuMs(process.pid)) - before).toBeGreaterThanOrEqual(10);
  });

  test('counts the time that a call was due and could not be sent', async () => {
    const times = await callTimes(20, 1000, async (n) => {
      if (n > 0) return;
      const until = performance.now() + 100;
      while (performance.now() < until);
    });
    expect(times.total().p50).toBeGreaterThan(50);
    let called = 0;
    expect(await callsPerS(100, 4, async () => void called++)).toBeGreaterThan(0);
    expect(called).toBe(100);
  });
});
