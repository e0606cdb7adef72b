import { afterEach, beforeEach, describe, expect, jest, test } from '@jest/globals';
import * as fc from 'fast-check';
import type { Reported } from '../../../contracts/location.ts';
import { OutgoingUpdates } from '../../../services/gateway/outgoing-updates.ts';

const update = (tripId: string, timestamp: number): Reported => ({
  tripId,
  userId: 'usr_1',
  lat: 0,
  lng: 0,
  accuracy: 1,
  speed: null,
  heading: null,
  timestamp,
});

const tickMs = 1000;
const tripIds = Array.from({ length: 40 }, (_, n) => `trp_${n}`);

let sent: { at: number; updates: string[] }[];
let failures: number;
let troubles: number[];
/** How long a node takes, ms. */
let takesMs: number;
const opened: OutgoingUpdates[] = [];

beforeEach(() => {
  jest.useFakeTimers({ now: 1_000_000_000 });
  [sent, failures, troubles, takesMs] = [[], 0, [], 0];
});
afterEach(() => {
  for (const each of opened.splice(0)) each.stop();
  expect(jest.getTimerCount()).toBe(0);
  jest.useRealTimers();
});

function open(ms = tickMs): OutgoingUpdates {
  const outgoing = new OutgoingUpdates({
    tickMs: ms,
    now: Date.now,
    async send(updates) {
      if (takesMs > 0) await new Promise((resolve) => setTimeout(resolve, takesMs));
      if (failures-- > 0) throw new Error('No location node');
      sent.push({ at: Date.now(), updates: updates.map((u) => `${u.tripId}@${u.timestamp}`) });
    },
    onTrouble: (updates) => void troubles.push(updates),
  });
  opened.push(outgoing);
  return outgoing;
}

const all = () => sent.flatMap(({ updates }) => updates).toSorted();

describe('OutgoingUpdates', () => {
  test('R2.1 R2.3 hands on once a tick, of each trip the newest, whatever their order', async () => {
    const outgoing = open();
    expect([2, 5, 3, 5].map((timestamp) => outgoing.add(update('a', timestamp)))).toEqual([
      true,
      false,
      false,
      false,
    ]);
    outgoing.add(update('b', 1));
    expect(outgoing.size).toBe(2);
    expect(sent).toEqual([]);
    await jest.advanceTimersByTimeAsync(tickMs);
    expect(all()).toEqual(['a@5', 'b@1']);
    await jest.advanceTimersByTimeAsync(5 * tickMs);
    expect([all().length, outgoing.size]).toEqual([2, 0]);
  });

  test('R2.1 nothing waits for longer than a tick, and no trip goes more than once in one, however many there are', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 3000 }),
        fc.integer({ min: 1, max: 3000 }),
        fc.nat(tickMs),
        async (few, many, began) => {
          await jest.advanceTimersByTimeAsync(began);
          const outgoing = open();
          for (let tick = 0; tick < 4; tick++) {
            sent = [];
            const count = tick % 2 === 0 ? few : many;
            for (let n = 0; n < count; n++) outgoing.add(update(`trp_${n}`, tick));
            await jest.advanceTimersByTimeAsync(tickMs);
            expect(all()).toEqual(Array.from({ length: count }, (_, n) => `trp_${n}@${tick}`).toSorted());
          }
          outgoing.stop();
        },
      ),
      { numRuns: 20 },
    );
  });

  test('R2.1 two gateways hand the same trips on at the same time, whenever they were started', async () => {
    const many = Array.from({ length: 2000 }, (_, n) => `trp_${n}`);
    const first = open();
    await jest.advanceTimersByTimeAsync(377);
    const second = open();
    // Under load, so slice by slice; the first tick is there to see that
    for (let tick = 0; tick < 3; tick++) {
      sent = [];
      for (const tripId of many) for (const outgoing of [first, second]) outgoing.add(update(tripId, tick));
      await jest.advanceTimersByTimeAsync(tickMs);
    }
    const times = Map.groupBy(
      sent.flatMap(({ at, updates }) => updates.map((u) => [u, at] as const)),
      ([u]) => u,
    );
    expect(times.size).toBe(many.length);
    for (const pair of times.values()) expect(new Set(pair.map(([, at]) => at)).size).toBe(1);
    expect(new Set(sent.map(({ at }) => at)).size).toBe(16);
  });

  test('R2.1 a message never holds more than 500', async () => {
    const outgoing = open();
    for (let n = 0; n < 20_000; n++) outgoing.add(update(`trp_${n}`, 1));
    await outgoing.flush();
    expect(Math.max(...sent.map(({ updates }) => updates.length))).toBe(500);
    expect(new Set(all()).size).toBe(20_000);
  });

  test('R2.1 what could not be sent is told, goes with the next tick, and newer replaces it meanwhile', async () => {
    // In a slice
    const outgoing = open(50);
    failures = 1;
    outgoing.add(update('a', 1));
    outgoing.add(update('b', 1));
    await jest.advanceTimersByTimeAsync(50);
    expect([sent, outgoing.size, troubles]).toEqual([[], 2, [2]]);
    outgoing.add(update('a', 2));
    await jest.advanceTimersByTimeAsync(50);
    expect(all()).toEqual(['a@2', 'b@1']);
  });

  test('R2.3 what failed never replaces what came while it was being sent', async () => {
    const outgoing = open();
    failures = 1;
    outgoing.add(update('a', 1));
    const sending = outgoing.flush();
    outgoing.add(update('a', 2));
    await sending;
    await outgoing.flush();
    expect(all()).toEqual(['a@2']);
  });

  test('R2.1 a node that answers late is not sent the same trips again meanwhile; the newest goes when it has', async () => {
    const outgoing = open();
    takesMs = 2.5 * tickMs;
    for (let tick = 1; tick <= 8; tick++) {
      for (const tripId of tripIds) outgoing.add(update(tripId, tick));
      await jest.advanceTimersByTimeAsync(tickMs);
      expect(outgoing.size).toBeLessThanOrEqual(tripIds.length);
    }
    // Each takes two and a half ticks, and the next begins with the third
    const ofOne = sent.flatMap(({ updates }) => updates).filter((u) => u.startsWith('trp_7@'));
    expect(ofOne).toEqual(['trp_7@1', 'trp_7@4']);
    outgoing.stop();
    await jest.runOnlyPendingTimersAsync();
  });

  test('R2.1 through a long outage it holds one update for each trip, and all go when it ends', async () => {
    const outgoing = open();
    failures = Number.POSITIVE_INFINITY;
    for (let tick = 1; tick <= 60; tick++) {
      for (const trip of ['a', 'b', 'c', 'd']) outgoing.add(update(trip, tick));
      await jest.advanceTimersByTimeAsync(tickMs);
    }
    expect(outgoing.size).toBe(4);
    failures = 0;
    await jest.advanceTimersByTimeAsync(tickMs);
    expect(all()).toEqual(['a@60', 'b@60', 'c@60', 'd@60']);
  });

  test('R2.1 a process that stood still for long hands on everything once', async () => {
    const outgoing = open();
    for (const tripId of tripIds) outgoing.add(update(tripId, 1));
    // The clock goes on, the timers do not
    jest.setSystemTime(Date.now() + 60_000);
    await jest.advanceTimersByTimeAsync(Math.ceil(tickMs / 16));
    expect(all()).toEqual(tripIds.map((tripId) => `${tripId}@1`).toSorted());
  });

  test('a flush answers when all before it is sent, and never rejects', async () => {
    const outgoing = open();
    takesMs = 10;
    outgoing.add(update('a', 1));
    const flushed = [outgoing.flush(), outgoing.flush()];
    await jest.advanceTimersByTimeAsync(10);
    await Promise.all(flushed);
    expect(all()).toEqual(['a@1']);
    takesMs = 0;
    failures = 1;
    outgoing.add(update('a', 2));
    await expect(outgoing.flush()).resolves.toBeUndefined();
  });

  test('sends nothing after stop', async () => {
    const outgoing = open();
    outgoing.add(update('a', 1));
    outgoing.stop();
    await jest.advanceTimersByTimeAsync(10_000);
    expect(sent).toEqual([]);
  });
});
