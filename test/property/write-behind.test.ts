import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { WriteBehind } from '../../lib/write-behind.ts';
import { eventually } from '../support/eventually.ts';

interface Item {
  key: string;
  version: number;
}
const away = new Error('away');
const bad = new Error('bad');
const isBad = ({ version }: Item) => version % 7 === 0;

/** A store that takes only what is newer, is away when it is told, and cannot take a version that 7 divides. */
function makeStore() {
  const kept = new Map<string, number>();
  const store = {
    kept,
    isAway: false,
    largest: 0,
    /** How many of the coming writes fail because the store is away. */
    failures: 0,
    async write(batch: readonly Item[]): Promise<void> {
      store.largest = Math.max(store.largest, batch.length);
      await Promise.resolve();
      if (store.isAway || store.failures-- > 0) throw away;
      if (batch.some(isBad)) throw bad;
      for (const { key, version } of batch) kept.set(key, Math.max(version, kept.get(key) ?? 0));
    },
  };
  return store;
}

function makeQueue(store: ReturnType<typeof makeStore>, limit: number) {
  const dropped: { item: Item; reason: string }[] = [];
  const queue = new WriteBehind<Item>({
    keyOf: ({ key }) => key,
    isNewer: (item, than) => item.version > than.version,
    write: (batch) => store.write(batch),
    isAway: (error) => error === away,
    onDrop: (item, reason) => void dropped.push({ item, reason }),
    limit,
    batchSize: 4,
    maxWaitMs: 2,
  });
  return { queue, dropped };
}

describe('writes that wait for the DB', () => {
  test('the newest of each key is written or reported, never lost, in bounded memory and batches', async () => {
    const step = fc.oneof(
      {
        weight: 8,
        arbitrary: fc.record({
          key: fc.constantFrom('a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'),
          version: fc.integer({ min: 1, max: 30 }),
        }),
      },
      { weight: 1, arbitrary: fc.constant('away' as const) },
      { weight: 1, arbitrary: fc.constant('back' as const) },
      { weight: 2, arbitrary: fc.constant('turn' as const) },
      { weight: 1, arbitrary: fc.constant('stumble' as const) },
    );
    await fc.assert(
      fc.asyncProperty(
        fc.array(step, { maxLength: 60 }),
        fc.integer({ min: 2, max: 8 }),
        async (steps, limit) => {
          const store = makeStore();
          const { queue, dropped } = makeQueue(store, limit);
          const newest = new Map<string, Item>();
          for (const one of steps) {
            if (one === 'away') store.isAway = true;
            else if (one === 'back') store.isAway = false;
            else if (one === 'stumble') store.failures = 2;
            else if (one === 'turn') await new Promise(setImmediate);
            else {
              queue.add(one);
              if (one.version > (newest.get(one.key)?.version ?? 0)) newest.set(one.key, one);
            }
            expect(queue.size).toBeLessThanOrEqual(limit);
          }
          store.isAway = false;
          await queue.idle();
          expect(queue.size).toBe(0);
          expect(store.largest).toBeLessThanOrEqual(4);
          for (const [key, { version }] of newest) {
            const reported = dropped.some(({ item }) => item.key === key && item.version === version);
            expect(reported || store.kept.get(key) === version).toBe(true);
          }
          for (const { item, reason } of dropped) expect(reason).toBe(isBad(item) ? reason : 'full');
          expect(await queue.stop(0)).toEqual([]);
        },
      ),
      { numRuns: 150 },
    );
  });

  test('the oldest makes room', async () => {
    const store = makeStore();
    store.isAway = true;
    const { queue, dropped } = makeQueue(store, 2);
    for (const [i, key] of ['a', 'b', 'c'].entries()) queue.add({ key, version: i + 1 });
    expect(dropped).toEqual([{ item: { key: 'a', version: 1 }, reason: 'full' }]);
    // The first try, which has `a` in it, has failed
    await new Promise(setImmediate);
    store.isAway = false;
    await queue.idle();
    expect(Object.fromEntries(store.kept)).toEqual({ b: 2, c: 3 });
  });

  test('one that cannot be written holds up no other', async () => {
    const store = makeStore();
    const { queue, dropped } = makeQueue(store, 10);
    for (const version of [1, 7, 2]) queue.add({ key: `k${version}`, version });
    await queue.idle();
    expect([...store.kept.keys()].toSorted()).toEqual(['k1', 'k2']);
    expect(dropped).toEqual([{ item: { key: 'k7', version: 7 }, reason: 'refused' }]);
  });

  test('a stop waits its time, then says what is left; what comes later is left too', async () => {
    const store = makeStore();
    store.isAway = true;
    const { queue } = makeQueue(store, 10);
    queue.add({ key: 'a', version: 1 });
    const stopped = queue.stop(20);
    queue.add({ key: 'b', version: 1 });
    expect((await stopped).map(({ key }) => key)).toEqual(['a', 'b']);
    store.isAway = false;
    await eventually(() => expect(queue.size).toBe(2));
    expect(store.kept.size).toBe(0);
  });
});
