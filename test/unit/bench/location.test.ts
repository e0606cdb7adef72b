import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import * as fc from 'fast-check';
import { distanceM } from '../../../lib/geo.ts';
import { noHistory } from '../../../lib/jump-rule.ts';
import { checkPosition } from '../../../lib/position-check.ts';
import { longestDrive, whereabouts } from '../../support/bench/course.ts';
import { deliveryOf, type Received, type Sent } from '../../support/bench/delivery.ts';
import { redisCommands } from '../../support/bench/machine.ts';
import { type RedisTopology, startSingle } from '../../support/redis-topology.ts';
import { loadTracks, type Track } from '../../support/simulate/traces.ts';

/** Sent each 200 ms from 1,000 on; received 5 ms after it was processed. */
const sent = (count: number): Sent[] =>
  Array.from({ length: count }, (_, n) => ({ timestamp: 1000 + n * 200, sentAt: n * 200 }));
const received = (timestamp: number, at: number): Received => ({
  timestamp,
  at,
  receivedAt: at - 1000 + 5,
  ageMs: 5,
});

describe('the books of a trip', () => {
  test('what arrives is timed, from sending and from processing', () => {
    const both = [received(1000, 1300), received(1200, 1300)];
    expect(deliveryOf(sent(2), [both], 0)).toEqual({
      sent: 2,
      deliveries: 2,
      superseded: 0,
      lost: 0,
      doubled: 0,
      sentToReceivedMs: [105, 305],
      processedToReceivedMs: [5, 5],
    });
  });

  test('R2.3 superseded is what nobody got, when something newer took its place in time', () => {
    const newest = [received(1400, 1900)];
    expect(deliveryOf(sent(3), [newest, newest], 1000)).toMatchObject({
      deliveries: 2,
      superseded: 2,
      lost: 0,
    });
    // Each has to arrive
    expect(deliveryOf(sent(3), [newest, newest], 0)).toMatchObject({ superseded: 0, lost: 4 });
    // Too late to have been the reason
    expect(deliveryOf(sent(3), [newest, newest], 800)).toMatchObject({ superseded: 1, lost: 2 });
  });

  test('R1.3 lost is what one watcher got and another did not, and the last in any case', () => {
    const [all, some] = [[received(1000, 1300), received(1200, 1350)], [received(1200, 1350)]];
    expect(deliveryOf(sent(2), [all, some], 1000)).toMatchObject({ deliveries: 3, superseded: 0, lost: 1 });
    expect(deliveryOf(sent(2), [[received(1000, 1300)]], 1000)).toMatchObject({ superseded: 0, lost: 1 });
    expect(deliveryOf(sent(2), [[]], 1000)).toMatchObject({ superseded: 0, lost: 2 });
  });

  test('doubled is what the same watcher got again', () => {
    const twice = [received(1000, 1300), received(1000, 1300)];
    expect(deliveryOf(sent(1), [twice, twice.slice(1)], 1000)).toMatchObject({
      deliveries: 2,
      doubled: 1,
      lost: 0,
    });
  });

  test('each update is delivered, superseded or lost, whatever arrives', () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.boolean(), fc.boolean()), { minLength: 1, maxLength: 20 }),
        fc.integer({ min: 0, max: 3000 }),
        (arrivals, within) => {
          const updates = sent(arrivals.length);
          const watchers = [0, 1].map((w) =>
            updates.flatMap(({ timestamp }, n) =>
              arrivals[n]?.[w] ? [received(timestamp, timestamp + 300)] : [],
            ),
          );
          const { deliveries, superseded, lost } = deliveryOf(updates, watchers, within);
          expect(deliveries).toBe(arrivals.flat().filter(Boolean).length);
          const nobodys = arrivals.filter(([a, b]) => !a && !b).length;
          const somebodys = 2 * (arrivals.length - nobodys) - deliveries;
          // What one has and the other has not is lost; of what nobody has, either is true
          expect(lost).toBeGreaterThanOrEqual(somebodys + nobodys - superseded);
          expect(lost).toBeLessThanOrEqual(somebodys + 2 * (nobodys - superseded));
        },
      ),
    );
  });
});

describe('a simulated vehicle', () => {
  let tracks: Track[];
  beforeAll(async () => {
    tracks = await loadTracks();
  });

  test('no position of a recorded drive is refused, however often it reports and wherever it turns', () => {
    const drives = tracks.flatMap((track) => longestDrive(track) ?? []);
    expect(drives.length).toBeGreaterThan(10_000);
    for (const track of tracks.slice(0, 40)) {
      const drive = longestDrive(track);
      if (!drive) continue;
      for (const everyMs of [40, 1000, 5000]) {
        let state = noHistory;
        for (let ms = 0; ms < 100 * everyMs; ms += everyMs) {
          const fix = { ...whereabouts(drive, ms), accuracy: 10, timestamp: ms };
          const judged = checkPosition(state, fix, ms);
          expect(judged.refused).toBeNull();
          state = judged.state;
        }
      }
    }
  });

  test('is at the recorded points at their times, and comes back the same way', () => {
    const drive = longestDrive(tracks[0] as Track) ?? [];
    const [first, last] = [drive[0], drive.at(-1)];
    if (!first || !last) throw new Error('The first track has a drive');
    const lengthMs = last.timeMs - first.timeMs;
    for (const point of drive)
      for (const ms of [point.timeMs - first.timeMs, 2 * lengthMs - (point.timeMs - first.timeMs)])
        expect(distanceM(whereabouts(drive, ms), point)).toBeLessThan(1);
  });

  test('a track that no car can have driven is none', () => {
    const far = { lat: 0, lng: 0, speed: 0, heading: 0 };
    const points = [
      { ...far, timeMs: 0 },
      { ...far, lat: 1, timeMs: 1000 },
    ];
    expect(longestDrive({ id: '1', points })).toBeNull();
    expect(longestDrive({ id: '1', points: [...points, { ...far, lat: 1, timeMs: 2000 }] })).toHaveLength(2);
  });
});

describe('what Redis is asked', () => {
  let redis: RedisTopology;
  beforeAll(async () => {
    redis = await startSingle();
  });
  afterAll(() => redis.stop());

  test('commands of clients and those inside scripts are counted apart', async () => {
    const [port = 0] = redis.ports;
    const client = redis.connect(port);
    await client.ping();
    const counting = redisCommands(port, 300);
    // MONITOR itself may be on its way; what is counted is a difference that no other command makes
    for (let n = 0; n < 20; n++) {
      await client.eval("redis.call('SET', KEYS[1], 1) redis.call('GET', KEYS[1])", 1, 'key');
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    const { sent: commands, inScripts } = await counting;
    expect(commands).toBeGreaterThan(0);
    expect(inScripts).toBe(2 * commands);
  });
});
