import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import {
  channels,
  inParallel,
  messageOf,
  otpPhone,
  type Queued,
  steadily,
  tallyOf,
} from '../../support/bench/notify-load.ts';

const queued = (change: Partial<Queued> = {}): Queued => ({
  channel: 'sms',
  to: '+917000000000',
  at: 1000,
  failedAt: null,
  unsure: 0,
  ...change,
});
const taken = (at: number, to = '+917000000000') => ({ channel: 'sms', to, at });

describe('what the benchmark of notifications queues', () => {
  test('goes to no address twice, evenly over the channels', () => {
    const messages = Array.from({ length: 4000 }, (_, n) => messageOf(n));
    const addresses = messages.map(({ channel, to }) => `${channel} ${to}`);
    expect(new Set([...addresses, ...messages.map((_, n) => `sms ${otpPhone(n)}`)]).size).toBe(8000);
    for (const channel of channels)
      for (const [priority, share] of Object.entries({ high: 0.1, normal: 0.6, low: 0.3 })) {
        const of = messages.filter((one) => one.channel === channel && one.priority === priority);
        expect(of).toHaveLength(1000 * share);
      }
  });
});

describe('what became of notifications', () => {
  test('one that was taken is timed from its queueing to the first acceptance', () => {
    expect(tallyOf([queued()], [taken(1250)])).toEqual({
      lost: 0,
      doubled: 0,
      doubledUnanswered: 0,
      failed: 0,
      acceptedMs: [250],
      lastAt: 1250,
    });
  });

  test('R4.5 one that nobody took is lost, unless its failure was recorded', () => {
    expect(tallyOf([queued()], [])).toMatchObject({ lost: 1, failed: 0, acceptedMs: [] });
    expect(tallyOf([queued({ failedAt: 3000 })], [])).toMatchObject({ lost: 0, failed: 1, lastAt: 3000 });
  });

  test('a channel of the same address is another message', () => {
    expect(tallyOf([queued({ channel: 'whatsapp' })], [taken(1250)])).toMatchObject({ lost: 1, doubled: 1 });
  });

  test('one that was taken twice is doubled; counted apart is what a lost answer made necessary', () => {
    expect(tallyOf([queued()], [taken(1300), taken(1200)])).toMatchObject({ doubled: 1, acceptedMs: [200] });
    expect(tallyOf([queued({ unsure: 1 })], [taken(1200), taken(1300), taken(1400)])).toMatchObject({
      doubled: 1,
      doubledUnanswered: 1,
    });
    // An attempt that was not taken explains nothing
    expect(tallyOf([queued({ unsure: 1 })], [taken(1200)])).toMatchObject({
      doubled: 0,
      doubledUnanswered: 0,
    });
  });

  test('what nobody queued is doubled', () => {
    expect(tallyOf([queued()], [taken(1200), taken(1200, '+918000000000')])).toMatchObject({ doubled: 1 });
  });

  test('whatever was taken, each is counted once', () => {
    const one = fc.record({
      times: fc.array(fc.integer({ min: 1000, max: 9000 }), { maxLength: 4 }),
      failedAt: fc.option(fc.integer({ min: 1000, max: 9000 })),
      unsure: fc.integer({ min: 0, max: 3 }),
    });
    fc.assert(
      fc.property(fc.array(one, { maxLength: 30 }), (all) => {
        const list = all.map(({ failedAt, unsure }, n) => queued({ to: otpPhone(n), failedAt, unsure }));
        const takes = all.flatMap(({ times }, n) => times.map((at) => taken(at, otpPhone(n))));
        const { lost, failed, acceptedMs, doubled, doubledUnanswered } = tallyOf(list, takes);
        expect(lost + failed + acceptedMs.length).toBe(all.length);
        expect(acceptedMs.length + doubled + doubledUnanswered).toBe(takes.length);
      }),
    );
  });
});

describe('calls', () => {
  test('so many are under way at once, and each is made once', async () => {
    let [underWay, most] = [0, 0];
    const made: number[] = [];
    await inParallel(50, 8, async (n) => {
      most = Math.max(most, ++underWay);
      await new Promise(setImmediate);
      made.push(n);
      underWay--;
    });
    expect(most).toBe(8);
    expect(made.toSorted((a, b) => a - b)).toEqual(Array.from({ length: 50 }, (_, n) => n));
  });

  test('go on until they are stopped, when those that are open are waited for', async () => {
    const dues: number[] = [];
    let answered = 0;
    const third = Promise.withResolvers<void>();
    const steady = steadily(5, async (n, dueAt) => {
      dues.push(dueAt);
      if (n === 2) third.resolve();
      await new Promise(setImmediate);
      answered++;
    });
    await third.promise;
    const count = await steady.stop();
    expect(count).toBeGreaterThanOrEqual(3);
    expect([dues.length, answered]).toEqual([count, count]);
    expect(dues.every((due, n) => due === (dues[0] ?? 0) + n * 5)).toBe(true);
  });

  test('that fail are told when it is stopped', async () => {
    const failed = Promise.withResolvers<void>();
    const steady = steadily(5, async () => {
      failed.resolve();
      throw new Error('refused');
    });
    await failed.promise;
    await expect(steady.stop()).rejects.toThrow('refused');
  });
});
