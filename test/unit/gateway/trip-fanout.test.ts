import { once } from 'node:events';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, jest, test } from '@jest/globals';
import type { Redis } from 'ioredis';
import type { Update } from '../../../contracts/location.ts';
import { newId } from '../../../lib/ids.ts';
import { shardChannel, shardOf } from '../../../lib/location-keys.ts';
import { TripFanout } from '../../../services/gateway/trip-fanout.ts';
import { LiveIndex } from '../../../services/location/live-index.ts';
import { eventually } from '../../support/eventually.ts';
import { reportedAt, tripsOfOneShard } from '../../support/positions.ts';
import { startTestRedis, type TestRedis } from '../../support/redis.ts';

describe('TripFanout', () => {
  let server: TestRedis;
  let redis: Redis;
  let index: LiveIndex;
  let subscriber: Redis;
  let fanout: TripFanout;
  let delivered: Update[];
  let troubles: string[];
  let tripId: string;

  beforeAll(async () => {
    server = await startTestRedis();
    redis = server.connect();
    index = new LiveIndex(redis, 3_600_000);
  });
  afterAll(() => server.stop());

  beforeEach(async () => {
    subscriber = server.connect();
    await subscriber.ping();
    delivered = [];
    troubles = [];
    fanout = new TripFanout({
      redis,
      subscriber,
      deliver: (update) => delivered.push(update),
      onTrouble: (text) => troubles.push(text),
    });
    tripId = newId('trp');
    await index.open(tripId, 'usr_driver');
  });
  afterEach(() => subscriber.disconnect());

  let clock = 0;
  /** One update of the trip, as a batch of its own; answers its timestamp. */
  const report = async (trip = tripId): Promise<number> => {
    const timestamp = ++clock;
    expect(await index.apply([reportedAt(trip, timestamp)])).toMatchObject({ accepted: 1 });
    return timestamp;
  };
  const reports = async (howMany: number, trip = tripId): Promise<number[]> => {
    const timestamps: number[] = [];
    for (let i = 0; i < howMany; i++) timestamps.push(await report(trip));
    return timestamps;
  };
  const timestamps = () => delivered.map((u) => u.timestamp);
  const channel = () => shardChannel(shardOf(tripId));
  /** Messages that are published before this has answered have reached the subscriber. */
  const settled = async (expected: readonly number[]) => {
    const last = await report();
    await eventually(() => expect(timestamps().at(-1)).toBe(last));
    expect(timestamps()).toEqual([...expected, last]);
  };

  test('R2.2 delivers what is published after watch, as it was stored', async () => {
    await report();
    await fanout.watch(tripId);
    const timestamp = await report();
    await eventually(() => expect(delivered).toHaveLength(1));
    expect(delivered).toEqual([{ ...reportedAt(tripId, timestamp), at: expect.any(Number) }]);
    expect(delivered[0]).toEqual((await index.state(tripId)).last);
  });

  test('R2.5 delivers watched trips only, also of the same shard', async () => {
    const [neighbour = ''] = tripsOfOneShard(1, tripId);
    await index.open(neighbour, 'usr_driver');
    await fanout.watch(tripId);
    await report(neighbour);
    await settled([]);
    await fanout.watch(neighbour);
    await fanout.unwatch(tripId);
    await report();
    const seen = await report(neighbour);
    await eventually(() => expect(delivered.at(-1)).toMatchObject({ tripId: neighbour, timestamp: seen }));
    expect(delivered).toHaveLength(2);
  });

  test('R1.3 a message that was missed is filled from the stream, in order', async () => {
    await fanout.watch(tripId);
    const before = await reports(2);
    await eventually(() => expect(timestamps()).toEqual(before));
    await subscriber.unsubscribe(channel());
    const missed = await reports(3);
    await subscriber.subscribe(channel());
    await settled([...before, ...missed]);
  });

  test('R1.3 a gap longer than a page of the stream is filled whole', async () => {
    await fanout.watch(tripId);
    await subscriber.unsubscribe(channel());
    const missed = await reports(1100);
    await subscriber.subscribe(channel());
    await settled(missed);
    expect(troubles).toEqual([]);
  });

  test('R1.2 after a lost connection it catches up by itself, with nothing doubled', async () => {
    await fanout.watch(tripId);
    const all: number[] = [];
    for (let round = 0; round < 5; round++) {
      all.push(...(await reports(5)));
      await redis.client('KILL', 'TYPE', 'pubsub');
      all.push(...(await reports(20)));
    }
    await eventually(() => expect(timestamps()).toEqual(all));
    await settled(all);
    expect(troubles).toEqual([]);
  });

  test('R1.2 a trip that is watched while the connection comes up stays watched', async () => {
    // ioredis sends SUBSCRIBE then before its own INFO, which Redis refuses, and forgets it when it connects anew
    const seen: number[] = [];
    const connecting = server.connect();
    await once(connecting, 'connect');
    const early = new TripFanout({
      redis,
      subscriber: connecting,
      deliver: (update) => seen.push(update.timestamp),
      onTrouble: (text) => troubles.push(text),
    });
    await early.watch(tripId);
    const all = await reports(100);
    await eventually(() => expect(seen).toEqual(all));
    all.push(await report());
    await eventually(() => expect(seen).toEqual(all));
    connecting.disconnect();
  });

  test('R1.3 what the channels did not bring is asked for where nothing came, and nowhere else', async () => {
    const asked = jest.spyOn(redis, 'pipeline');
    try {
      await fanout.watch(tripId);
      const all: number[] = [];
      for (let look = 0; look < 3; look++) {
        all.push(await report());
        await eventually(() => expect(timestamps()).toEqual(all));
        asked.mockClear();
        await fanout.catchUp();
        expect(asked).not.toHaveBeenCalled();
      }
      // Its node falls silent
      await subscriber.unsubscribe(channel());
      all.push(await report());
      for (let look = 0; look < 2; look++) await fanout.catchUp();
      expect(asked).toHaveBeenCalled();
      await eventually(() => expect(timestamps()).toEqual(all));
      await settled(all);
    } finally {
      asked.mockRestore();
    }
  });

  test('P3 a message that comes twice, or an old one, is delivered once', async () => {
    await fanout.watch(tripId);
    const messages: string[] = [];
    const listener = server.connect();
    listener.on('message', (_channel, message: string) => messages.push(message));
    await listener.subscribe(channel());
    const all = await reports(3);
    await eventually(() => expect(messages).toHaveLength(3));
    for (const message of [...messages, ...messages]) await redis.publish(channel(), message);
    await settled(all);
  });

  test('something else on the channel is reported and stops nothing', async () => {
    await fanout.watch(tripId);
    await redis.publish(channel(), 'hello');
    await settled([]);
    expect(troubles).toEqual(['A location channel carries something else']);
  });

  test('unwatch: nothing more comes, and Redis is not listened to', async () => {
    // Subscribers of other tests may not have left yet, and one of sixty-four shards is soon the same
    const listened = new Set(await redis.pubsub('CHANNELS'));
    while (listened.has(channel())) tripId = newId('trp');
    await index.open(tripId, 'usr_driver');
    await fanout.watch(tripId);
    const [first] = [await report()];
    await eventually(() => expect(timestamps()).toEqual([first]));
    await fanout.unwatch(tripId);
    expect(await redis.pubsub('NUMSUB', channel())).toEqual([channel(), 0]);
    await report();
    // What was published while nobody watched is the business of trip:join's `missed`
    await fanout.watch(tripId);
    await settled([first]);
  });

  test('watching again while unwatch is under way works, however often', async () => {
    await fanout.watch(tripId);
    const all: number[] = [];
    for (let round = 0; round < 10; round++) {
      const leaving = fanout.unwatch(tripId);
      await fanout.watch(tripId);
      all.push(await report());
      await leaving;
      all.push(await report());
      await eventually(() => expect(timestamps()).toEqual(all));
    }
  });

  test('unwatch of a trip that nobody watches is nothing', async () => {
    await expect(fanout.unwatch(tripId)).resolves.toBeUndefined();
  });

  test('R1.2 watch, then read: between the two nothing is lost, whenever the trip is joined', async () => {
    for (let round = 0; round < 10; round++) {
      delivered.length = 0;
      const trip = newId('trp');
      await index.open(trip, 'usr_driver');
      const reporting = reports(30, trip);
      await fanout.watch(trip);
      const { missed } = await index.missed(trip, 0);
      const all = await reporting;
      const seen = () => new Set([...missed, ...delivered].map((u) => u.timestamp));
      await eventually(() => expect(seen()).toEqual(new Set(all)));
      expect(new Set(timestamps()).size).toBe(delivered.length);
    }
  });

  test('a watch that fails leaves nothing behind: the next one works', async () => {
    await subscriber.quit();
    await expect(fanout.watch(tripId)).rejects.toThrow(/closed/i);
    await subscriber.connect();
    await fanout.watch(tripId);
    await settled([]);
  });
});
