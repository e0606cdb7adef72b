import { afterEach, beforeEach, describe, expect, jest, test } from '@jest/globals';
import type { Reported } from '../../../contracts/location.ts';
import { OutgoingBatch } from '../../../services/gateway/outgoing-batch.ts';

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

describe('OutgoingBatch', () => {
  let sent: string[][];
  let failures: number;
  let troubles: number[];
  let batch: OutgoingBatch;

  beforeEach(() => {
    jest.useFakeTimers();
    sent = [];
    failures = 0;
    troubles = [];
    batch = new OutgoingBatch({
      delayMs: 50,
      maxSize: 3,
      async send(updates) {
        if (failures-- > 0) throw new Error('No location node');
        sent.push(updates.map((u) => `${u.tripId}@${u.timestamp}`));
      },
      onTrouble: (updates) => void troubles.push(updates),
    });
  });
  afterEach(() => {
    batch.stop();
    jest.useRealTimers();
  });

  test('R2.1 collects for the delay, then sends once', async () => {
    batch.add(update('a', 1));
    await jest.advanceTimersByTimeAsync(49);
    batch.add(update('b', 1));
    expect(sent).toEqual([]);
    await jest.advanceTimersByTimeAsync(1);
    expect(sent).toEqual([['a@1', 'b@1']]);
    await jest.advanceTimersByTimeAsync(1000);
    expect(sent).toHaveLength(1);
    expect(jest.getTimerCount()).toBe(0);
  });

  test('R2.3 hands on only the newest of each trip, whatever their order', async () => {
    for (const timestamp of [2, 5, 3, 5]) batch.add(update('a', timestamp));
    batch.add(update('b', 1));
    expect(batch.size).toBe(2);
    await batch.flush();
    expect(sent).toEqual([['a@5', 'b@1']]);
    expect(batch.size).toBe(0);
  });

  test('R2.1 a full batch goes at once', async () => {
    for (const trip of ['a', 'b', 'c']) batch.add(update(trip, 1));
    await jest.advanceTimersByTimeAsync(0);
    expect(sent).toEqual([['a@1', 'b@1', 'c@1']]);
  });

  test('R2.1 what could not be sent is tried again, and newer replaces it meanwhile', async () => {
    failures = 1;
    batch.add(update('a', 1));
    batch.add(update('b', 1));
    await jest.advanceTimersByTimeAsync(50);
    expect([sent, batch.size, troubles]).toEqual([[], 2, [2]]);
    batch.add(update('a', 2));
    await jest.advanceTimersByTimeAsync(500);
    expect(sent).toEqual([['a@2', 'b@1']]);
  });

  test('R2.3 a failed batch never replaces what came while it was being sent', async () => {
    failures = 1;
    batch.add(update('a', 1));
    const sending = batch.flush();
    batch.add(update('a', 2));
    await sending;
    await batch.flush();
    expect(sent).toEqual([['a@2']]);
  });

  test('R2.1 through a long outage it holds one update for each trip, and all go when it ends', async () => {
    failures = Number.POSITIVE_INFINITY;
    for (let second = 1; second <= 60; second++) {
      for (const trip of ['a', 'b', 'c', 'd']) batch.add(update(trip, second));
      await jest.advanceTimersByTimeAsync(1000);
    }
    expect(batch.size).toBe(4);
    failures = 0;
    await jest.advanceTimersByTimeAsync(1000);
    expect(sent.flat().toSorted()).toEqual(['a@60', 'b@60', 'c@60', 'd@60']);
  });

  test('R2.1 while nobody answers nothing is sent beside it: the newest of each trip waits, and goes in messages of their size', async () => {
    const answers: (() => void)[] = [];
    const asked: string[][] = [];
    const slow = new OutgoingBatch({
      delayMs: 50,
      maxSize: 3,
      send(updates) {
        asked.push(updates.map((u) => `${u.tripId}@${u.timestamp}`));
        return new Promise((resolve) => answers.push(resolve));
      },
      onTrouble: () => undefined,
    });
    slow.add(update('a', 0));
    await jest.advanceTimersByTimeAsync(50);
    for (let second = 1; second <= 60; second++) {
      for (const trip of ['a', 'b', 'c', 'd']) slow.add(update(trip, second));
      await jest.advanceTimersByTimeAsync(1000);
    }
    expect([asked, slow.size]).toEqual([[['a@0']], 4]);
    answers[0]?.();
    await jest.advanceTimersByTimeAsync(50);
    expect(asked.slice(1)).toEqual([['a@60', 'b@60', 'c@60'], ['d@60']]);
    for (const answer of answers) answer();
    await slow.flush();
  });

  test('a flush answers when all before it is sent, and never rejects', async () => {
    batch.add(update('a', 1));
    void batch.flush();
    await batch.flush();
    expect(sent).toEqual([['a@1']]);
    failures = 1;
    batch.add(update('a', 2));
    await expect(batch.flush()).resolves.toBeUndefined();
  });

  test('sends nothing after stop', async () => {
    batch.add(update('a', 1));
    batch.stop();
    await jest.advanceTimersByTimeAsync(10_000);
    expect(sent).toEqual([]);
  });
});
