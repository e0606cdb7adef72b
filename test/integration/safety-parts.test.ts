/** What safety keeps in Redis, tried by several at once: shards' leases, questions, and a reader that takes over. */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import * as fc from 'fast-check';
import type { Redis } from 'ioredis';
import type { TripPlan } from '../../contracts/trips.ts';
import { loadConfig } from '../../lib/config.ts';
import { readNewest } from '../../lib/feed-stream.ts';
import { newId } from '../../lib/ids.ts';
import { shardCount, shardOf } from '../../lib/location-keys.ts';
import { LiveIndex } from '../../services/location/live-index.ts';
import { QuestionStore } from '../../services/safety/question-store.ts';
import { answer, ask, type TripQuestions } from '../../services/safety/questions.ts';
import { safetyRules } from '../../services/safety/rules.ts';
import { ShardLeases } from '../../services/safety/shard-leases.ts';
import { ShardReader } from '../../services/safety/shard-reader.ts';
import { aracaju } from '../support/clients.ts';
import { eventually } from '../support/eventually.ts';
import { tripsOfShards } from '../support/positions.ts';
import { startTestRedis, type TestRedis } from '../support/redis.ts';

const rules = safetyRules(loadConfig({ NODE_ENV: 'test' }));
const driverId = 'usr_driver';

let server: TestRedis;
let redis: Redis;
beforeAll(async () => {
  server = await startTestRedis();
  redis = server.connect();
});
afterAll(() => server.stop());
beforeEach(() => redis.flushall());

describe('leases of shards', () => {
  const leaseMs = 60_000;
  const reader = (name: string, ms = leaseMs) =>
    new ShardLeases(server.connect(), { reader: name, leaseMs: ms, shards: shardCount });
  const all = Array.from({ length: shardCount }, (_, n) => n);

  test('+ one reader a shard at a time, none left over, equally many each, whoever comes and goes', async () => {
    const readers = ['a', 'b', 'c', 'd'].map((name) => reader(name));
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.record({ who: fc.nat(3), leaves: fc.boolean() }), { maxLength: 12 }),
        async (steps) => {
          await redis.flushall();
          const alive = new Set([0]);
          const held = new Map<number, number[]>();
          const settle = async () => {
            // Each gives away, then each takes
            for (let round = 0; round < 2; round++) {
              for (const who of alive) {
                held.set(who, (await readers[who]!.renew()).shards);
                // Never twice, also halfway
                const taken = [...alive].flatMap((one) => held.get(one) ?? []);
                if (round === 1) expect(new Set(taken).size).toBe(taken.length);
              }
            }
          };
          for (const { who, leaves } of steps) {
            if (leaves && alive.size > 1 && alive.delete(who)) {
              held.delete(who);
              await readers[who]!.release();
            } else if (!leaves) alive.add(who);
            await settle();
            const counts = [...alive].map((one) => held.get(one)!.length);
            expect([...alive].flatMap((one) => held.get(one)!).toSorted((a, b) => a - b)).toEqual(all);
            expect(Math.max(...counts)).toBeLessThanOrEqual(Math.ceil(shardCount / alive.size));
          }
        },
      ),
      { numRuns: 15 },
    );
  });

  test('+ those of a reader that died are taken over when its lease is over', async () => {
    const [dead, alive] = [reader('dead', 300), reader('alive')];
    expect((await dead.renew()).shards).toHaveLength(shardCount);
    expect((await alive.renew()).shards).toEqual([]);
    await eventually(async () => expect((await alive.renew()).shards).toEqual(all));
  });

  test('+ the time that it answers is that of Redis', async () => {
    const { now } = await reader('a').renew();
    expect(Math.abs(now - Date.now())).toBeLessThan(1000);
  });
});

describe('questions in Redis', () => {
  const store = () => new QuestionStore(server.connect(), rules.questions);
  const none = (tripId: string): TripQuestions => ({ tripId, riderId: 'usr_r', driverId, byKind: {} });
  const askStop = (one: QuestionStore, tripId: string, now: number) =>
    one.change(tripId, now, (record) => ask(record ?? none(tripId), 'long-stop', now, rules.questions));
  const alarms = async () => (await readNewest(redis, 1000)).filter(({ kind }) => kind === 'safety.alarm');
  const stores = () => Array.from({ length: 5 }, () => store());

  test('+ of many who ask at once one asks; of many who look, one raises the alarm', async () => {
    const nodes = stores();
    const now = Date.now();
    const trips = Array.from({ length: 30 }, (_, n) => `trp_${n}`);
    for (const tripId of trips) {
      const made = await Promise.all(nodes.map((node) => askStop(node, tripId, now)));
      expect(made.filter((one) => one?.asked)).toHaveLength(1);
    }
    const late = now + rules.questions.answerWithinMs;
    expect((await nodes[0]!.overtakeDue(now)).alarms).toEqual([]);
    const looked = await Promise.all(nodes.map((node) => node.overtakeDue(late)));
    expect(looked.flatMap((one) => one.failed)).toEqual([]);
    expect(looked.flatMap((one) => one.alarms)).toHaveLength(trips.length);
    expect((await alarms()).map(({ data }) => String(data['tripId'])).toSorted()).toEqual(trips.toSorted());
    expect((await nodes[0]!.overtakeDue(late + 3_600_000)).alarms).toEqual([]);
    // What is over ends by itself; nothing is due any more
    expect(await redis.pttl('safety:trip:trp_0')).toBeGreaterThan(0);
    expect(await redis.zcard('safety:due')).toBe(0);
  });

  test('+ an answer and the end of its time at once: either it is safe, or there is an alarm', async () => {
    const nodes = stores();
    for (let n = 0; n < 20; n++) {
      const [tripId, now] = [newId('trp'), Date.now()];
      await askStop(nodes[0]!, tripId, now);
      const late = now + rules.questions.answerWithinMs;
      const before = (await alarms()).length;
      const [given] = await Promise.all([
        nodes[1]!.change(tripId, late, (record) => record && answer(record, true)),
        ...nodes.slice(2).map((node) => node.overtakeDue(late)),
      ]);
      const outcome = given?.next.byKind['long-stop'];
      const told = (await alarms()).length - before;
      // Late: then admins have heard both
      expect([outcome?.outcome, told]).toEqual(outcome?.answeredLate ? ['alarmed', 1] : ['safe', 0]);
    }
  });

  test('+ what is open does not expire; who is due is reminded by one of all that look', async () => {
    const nodes = stores();
    const now = Date.now();
    await askStop(nodes[0]!, 'trp_1', now);
    expect(await redis.pttl('safety:trip:trp_1')).toBe(-1);
    const looked = await Promise.all(
      nodes.map((node) => node.overtakeDue(now + rules.questions.remindEveryMs)),
    );
    expect(looked.flatMap((one) => one.remind)).toEqual([
      {
        tripId: 'trp_1',
        userId: 'usr_r',
        kind: 'long-stop',
        answerBy: now + rules.questions.answerWithinMs,
      },
    ]);
  });

  test('+ one that cannot be read is named, and holds up no other', async () => {
    const [node] = stores();
    const now = Date.now();
    await redis.set('safety:trip:trp_broken', '{');
    await redis.zadd('safety:due', 1, 'trp_broken');
    await askStop(node!, 'trp_1', now);
    const { alarms: raised, failed } = await node!.overtakeDue(now + rules.questions.answerWithinMs);
    expect(failed.map(({ tripId }) => tripId)).toEqual(['trp_broken']);
    expect(raised).toHaveLength(1);
  });
});

describe('a reader of shards', () => {
  const planOf = (tripId: string, startedAt = Date.now()): TripPlan => ({
    tripId,
    riderId: 'usr_rider',
    driverId,
    from: aracaju,
    to: { lat: -10.9, lng: -37.05 },
    startedAt,
    route: null,
    durationS: null,
  });
  let index: LiveIndex;
  let known: Map<string, TripPlan>;
  let trouble: string[];
  beforeAll(() => {
    index = new LiveIndex(server.connect(), 3_600_000);
  });
  beforeEach(() => {
    known = new Map();
    trouble = [];
  });

  const newReader = (plansOf = async (ids: string[]) => ids.flatMap((id) => known.get(id) ?? [])) =>
    new ShardReader({ redis: server.connect(), rules, plansOf, onTrouble: (text) => trouble.push(text) });
  async function start(startedAt?: number, tripId = newId('trp')): Promise<string> {
    known.set(tripId, planOf(tripId, startedAt));
    await index.open(tripId, driverId);
    return tripId;
  }
  const report = (tripId: string, timestamp: number, place = aracaju) =>
    index.apply([{ tripId, userId: driverId, ...place, accuracy: 5, speed: 0, heading: null, timestamp }]);
  const suspected = async (reader: ShardReader, tripId: string, now = Date.now()) =>
    (await reader.read([shardOf(tripId)], now)).map(({ kind }) => kind);

  test('+ says what one says that followed from the beginning, when it takes over', async () => {
    const now = Date.now();
    const tripId = await start(now);
    const first = newReader();
    expect(await suspected(first, tripId)).toEqual([]);
    await report(tripId, now - 400_000);
    expect(await suspected(first, tripId)).toEqual([]);
    await report(tripId, now - 1000);
    expect(await suspected(first, tripId)).toEqual(['long-stop']);
    expect(await suspected(newReader(), tripId)).toEqual(['long-stop']);
    // It drives on
    await report(tripId, now, { lat: -10.93, lng: -37.06 });
    expect(await suspected(first, tripId)).toEqual([]);
    expect(await suspected(newReader(), tripId)).toEqual([]);
  });

  test('+ a reader that is far behind reads all that there is, of each of its shards', async () => {
    const now = Date.now();
    const [standing, driving] = [await start(now), await start(now)];
    const entries = 60;
    for (let n = 0; n <= entries; n++) {
      const time = now - 400_000 + (n * 399_000) / entries;
      await Promise.all([
        report(standing, time),
        report(driving, time, n === entries ? { lat: -10.93, lng: -37.06 } : aracaju),
      ]);
    }
    // The last of the entries decides
    const shards = [...new Set([standing, driving].map(shardOf))];
    const suspicions = await newReader().read(shards, now);
    expect(suspicions).toMatchObject([{ kind: 'long-stop', watch: { plan: { tripId: standing } } }]);
  });

  test('+ a trip that was never heard of is noticed, and one that fell silent long ago', async () => {
    const now = Date.now();
    const [never = '', silent = ''] = tripsOfShards(2);
    for (const tripId of [never, silent]) await start(now, tripId);
    await report(silent, now);
    const lost = now + rules.signal.lostAfterMs;
    for (const tripId of [never, silent]) {
      expect(await suspected(newReader(), tripId, lost - 5000)).toEqual([]);
      expect(await suspected(newReader(), tripId, lost + 5000)).toEqual(['signal-lost']);
    }
    // Its last position is beyond what is read back of the stream
    const hours = now + 1_000_000;
    const [suspicion] = await newReader().read([shardOf(silent)], hours);
    expect(suspicion).toMatchObject({ kind: 'signal-lost', watch: { last: { lat: aracaju.lat } } });
  });

  test('+ a trip that has ended is no longer watched; a shard that was given away neither', async () => {
    const [tripId, now] = [await start(), Date.now()];
    const reader = newReader();
    await report(tripId, now);
    await suspected(reader, tripId, now);
    expect(reader.state).toMatchObject({ shards: 1, trips: 1, unplanned: 0 });
    await index.close(tripId);
    expect(await suspected(reader, tripId, now + 400_000)).toEqual([]);
    expect(reader.state).toMatchObject({ shards: 1, trips: 0 });
    await reader.read([], now + 400_000);
    expect(reader.state).toMatchObject({ shards: 0, trips: 0 });
  });

  test('+ plans that cannot be had are asked for again; what came meanwhile counts', async () => {
    const now = Date.now();
    const tripId = await start(now - 600_000);
    let isAway = true;
    const reader = newReader(async (ids) => {
      if (isAway) throw new Error('trips are away');
      return ids.flatMap((id) => known.get(id) ?? []);
    });
    await report(tripId, now - 400_000);
    expect(await suspected(reader, tripId, now)).toEqual([]);
    expect([trouble.length, reader.state.unplanned]).toEqual([1, 1]);
    isAway = false;
    await report(tripId, now - 1000);
    expect(await suspected(reader, tripId, now + 1000)).toEqual([]);
    expect(await suspected(reader, tripId, now + 6000)).toEqual(['long-stop']);
  });

  test('+ a question that was asked is left alone for its time', async () => {
    const now = Date.now();
    const tripId = await start(now);
    const reader = newReader();
    const lost = now + rules.signal.lostAfterMs + 1000;
    expect(await suspected(reader, tripId, lost)).toEqual(['signal-lost']);
    reader.quiet(tripId, 'signal-lost', lost + 10_000);
    expect(await suspected(reader, tripId, lost + 9000)).toEqual([]);
    expect(await suspected(reader, tripId, lost + 10_000)).toEqual(['signal-lost']);
  });

  test('+ when most trips fall silent at once it is we who do not hear: nobody is asked', async () => {
    const now = Date.now();
    const trips: string[] = [];
    for (let n = 0; n < 25; n++) trips.push(await start(now));
    const shards = [...new Set(trips.map(shardOf))];
    const reader = newReader();
    expect(await reader.read(shards, now)).toEqual([]);
    const lost = now + rules.signal.lostAfterMs + 60_000;
    expect(await reader.read(shards, lost)).toEqual([]);
    expect(reader.state.isDeaf).toBe(true);
    // Of fewer each counts
    const [few = ''] = trips;
    expect(await suspected(newReader(), few, lost)).toContain('signal-lost');
  });

  test('+ a Redis that does not answer is an error, and nothing is forgotten', async () => {
    const now = Date.now();
    const tripId = await start(now - 600_000);
    const reader = newReader();
    await report(tripId, now - 400_000);
    await suspected(reader, tripId, now);
    await server.halt();
    await expect(reader.read([shardOf(tripId)], now + 10_000)).rejects.toThrow();
    await server.resume();
    await eventually(() => report(tripId, now - 1000));
    expect(await suspected(reader, tripId, now + 11_000)).toEqual(['long-stop']);
  });
});
