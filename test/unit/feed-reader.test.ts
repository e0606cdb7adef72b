import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import * as fc from 'fast-check';
import type { Redis } from 'ioredis';
import type { DeliveredEvent, FeedDigest, FeedFilter } from '../../contracts/feed.ts';
import { FeedReader, type FeedSink } from '../../lib/feed-reader.ts';
import {
  feedKeys,
  isOutOfReach,
  parseEntry,
  readBounds,
  readNewest,
  readPage,
} from '../../lib/feed-stream.ts';
import { eventually } from '../support/eventually.ts';
import { appendEvent, feedIds } from '../support/feed.ts';
import { startTestRedis, type TestRedis } from '../support/redis.ts';

let server: TestRedis;
let redis: Redis;
let reader: FeedReader;
let troubles: string[];
/** The reader's own connections, in the order in which it made them. */
let waiting: Redis[];

beforeAll(async () => {
  server = await startTestRedis();
  redis = server.connect();
});
afterAll(() => server.stop());
beforeEach(async () => {
  await redis.flushall();
  troubles = [];
  waiting = [];
  reader = newReader();
});
afterEach(() => reader.close());

function newReader(keep?: number): FeedReader {
  return new FeedReader({
    redis,
    connect: () => {
      const connection = server.connect();
      waiting.push(connection);
      return connection;
    },
    onTrouble: (text) => troubles.push(text),
    ...(keep === undefined ? {} : { keep }),
  });
}

/** What a subscriber was sent. */
interface Seen {
  ids: string[];
  messages: DeliveredEvent[][];
  digests: FeedDigest[];
  resyncs: string[];
  sink: FeedSink;
}
function collect(ready: () => Promise<void> = async () => undefined): Seen {
  const seen: Seen = {
    ids: [],
    messages: [],
    digests: [],
    resyncs: [],
    sink: {
      events(events) {
        seen.messages.push(events);
        seen.ids.push(...events.map(({ id }) => id));
      },
      digest: (digest) => void seen.digests.push(digest),
      resync: (cursor) => void seen.resyncs.push(cursor),
      ready,
    },
  };
  return seen;
}

const append = (kind = 'trip.started', data: Record<string, unknown> = {}) => appendEvent(redis, kind, data);
async function appendMany(count: number, kind = 'trip.started'): Promise<void> {
  const pipeline = redis.pipeline();
  for (let n = 0; n < count; n++)
    pipeline.xadd(feedKeys.stream, '*', 'kind', kind, 'at', n + 1, 'data', '{}');
  await pipeline.exec();
}
const expectArrived = (seen: Seen, ids: string[]) => eventually(() => expect(seen.ids).toEqual(ids));

describe('entries', () => {
  test('fields are found by name; what is broken is passed on without its data', () => {
    expect(parseEntry(['5-1', ['data', '{"a":1}', 'at', '7', 'kind', 'k']])).toEqual({
      id: '5-1',
      kind: 'k',
      at: 7,
      data: { a: 1 },
    });
    const empty = { id: '5-1', kind: 'unknown', at: 5, data: {} };
    for (const fields of [null, [], ['data', '{'], ['data', '[1]'], ['data', 'null', 'at', 'x']])
      expect(parseEntry(['5-1', fields])).toEqual(empty);
  });

  test('P9 a page is never taken for complete when something after the cursor was trimmed', async () => {
    const ids: string[] = [];
    for (let n = 0; n < 12; n++) ids.push(await append());
    expect((await readPage(redis, '0', 100)).outOfReach).toBe(false);
    await redis.xtrim(feedKeys.stream, 'MAXLEN', 5);
    const bounds = await readBounds(redis);
    expect(bounds).toEqual({ firstId: ids[7], lastId: ids[11], trimmed: true });
    for (const [n, id] of ids.entries()) {
      const { events, outOfReach } = await readPage(redis, id, 100);
      // Of the last that was trimmed nobody can tell that nothing came between
      expect([n, outOfReach]).toEqual([n, n < 7]);
      expect(events.map((event) => event.id)).toEqual(ids.slice(Math.max(7, n + 1)));
    }
    await redis.xtrim(feedKeys.stream, 'MAXLEN', 0);
    expect(isOutOfReach(ids[10] ?? '', await readBounds(redis))).toBe(true);
    expect(isOutOfReach(ids[11] ?? '', await readBounds(redis))).toBe(false);
    expect(isOutOfReach('99999999999999', await readBounds(redis))).toBe(true);
  });

  test('of a feed that nobody has written to', async () => {
    expect(await readBounds(redis)).toEqual({ firstId: null, lastId: '0-0', trimmed: false });
    expect(await readPage(redis, '0-0', 10)).toMatchObject({ events: [], outOfReach: false });
    expect(await readNewest(redis, 10)).toEqual([]);
  });
});

describe('a subscriber', () => {
  test('P9 gets history and then what is live, without gap or double', async () => {
    await appendMany(1200);
    const seen = collect();
    reader.subscribe('0-0', {}, seen.sink);
    await appendMany(300);
    for (let n = 0; n < 20; n++) await append();
    await expectArrived(seen, await feedIds(redis));
    expect(Math.max(...seen.messages.map(({ length }) => length))).toBeLessThanOrEqual(500);
    expect([seen.digests, seen.resyncs]).toEqual([[], []]);
  });

  test('R7.6 gets only what its filter names', async () => {
    const filters: FeedFilter[] = [
      { kinds: ['sos.triggered'] },
      { tripId: 'trp_a' },
      { bbox: [0, 0, 10, 10] },
      {},
    ];
    const seen = filters.map((filter) => {
      const one = collect();
      reader.subscribe('0-0', filter, one.sink);
      return one;
    });
    const ids = [
      await append('sos.triggered', { tripId: 'trp_a', location: { lat: 50, lng: 5 } }),
      await append('trip.started', { tripId: 'trp_a' }),
      await append('booking.created', { from: { lat: 5, lng: 5 } }),
      await append('trip.started', { tripId: 'trp_b' }),
    ];
    const picks = [[0], [0, 1], [2], [0, 1, 2, 3]];
    for (const [n, pick] of picks.entries())
      await expectArrived(
        seen[n]!,
        pick.map((i) => ids[i] ?? ''),
      );
  });

  test('what comes together is sent in one message', async () => {
    const seen = collect();
    reader.subscribe('0-0', {}, seen.sink);
    await append();
    await eventually(() => expect(seen.messages).toHaveLength(1));
    await redis
      .multi()
      .xadd(feedKeys.stream, '*', 'kind', 'a')
      .xadd(feedKeys.stream, '*', 'kind', 'b')
      .exec();
    await eventually(() => expect(seen.messages.at(-1)).toHaveLength(2));
  });

  test('nobody reads while nobody is subscribed', async () => {
    const [one, two] = [collect(), collect()];
    const first = reader.subscribe('0-0', {}, one.sink);
    const second = reader.subscribe('0-0', {}, two.sink);
    const id = await append();
    await Promise.all([expectArrived(one, [id]), expectArrived(two, [id])]);
    expect(waiting).toHaveLength(1);
    first.close();
    first.close();
    const next = await append();
    await expectArrived(two, [id, next]);
    second.close();
    await eventually(() => expect(waiting[0]?.status).toBe('end'));
    expect(one.ids).toEqual([id]);
    // And again from where it was
    const third = collect();
    const later = await append();
    reader.subscribe(second.cursor, {}, third.sink);
    await expectArrived(third, [later]);
    expect(waiting).toHaveLength(2);
  });

  test('one that is slow holds nothing in memory and misses nothing, even past what is remembered', async () => {
    reader.close();
    reader = newReader(10);
    let take: () => void = () => undefined;
    const slow = collect(() => new Promise((resolve) => (take = resolve)));
    const fast = collect();
    reader.subscribe('0-0', {}, slow.sink);
    reader.subscribe('0-0', {}, fast.sink);
    for (let n = 0; n < 60; n++) await append();
    const ids = await feedIds(redis);
    await expectArrived(fast, ids);
    expect(slow.ids).toEqual([]);
    await eventually(() => {
      take();
      expect(slow.ids).toEqual(ids);
    });
    expect(slow.resyncs).toEqual([]);
  });

  test('R3.5 a storm comes as counts and the newest; all of it stays to be read', async () => {
    const seen = collect();
    reader.subscribe('0-0', {}, seen.sink);
    const first = await append();
    await expectArrived(seen, [first]);
    await appendMany(6000, 'sos.triggered');
    const ids = await feedIds(redis);
    await eventually(() => expect(seen.ids.at(-1)).toBe(ids.at(-1)));
    expect(seen.digests.length).toBeGreaterThan(0);
    const counted = seen.digests.reduce((sum, { counts }) => sum + (counts['sos.triggered'] ?? 0), 0);
    expect(counted + seen.ids.length).toBe(6001);
    // What a digest stands for is exactly what lies between its ends
    for (const { from, to, counts } of seen.digests) {
      const between = ids.slice(ids.indexOf(from), ids.indexOf(to) + 1);
      expect(between).toHaveLength(counts['sos.triggered'] ?? 0);
      expect(between.filter((id) => seen.ids.includes(id))).toEqual([]);
    }
    expect(seen.ids).toEqual(ids.filter((id) => seen.ids.includes(id)));
  });

  test('one that comes back too late is told so, and goes on with what is live', async () => {
    const old = await append();
    await appendMany(50);
    await redis.xtrim(feedKeys.stream, 'MAXLEN', 10);
    const seen = collect();
    reader.subscribe(old, {}, seen.sink);
    await eventually(() => expect(seen.resyncs).toHaveLength(1));
    const id = await append();
    await expectArrived(seen, [id]);
    expect(seen.resyncs).toHaveLength(1);
  });
});

describe('when Redis goes', () => {
  test('P9 R3.5 the reader goes on from the last id when it comes back', async () => {
    const seen = collect();
    reader.subscribe('0-0', {}, seen.sink);
    await append();
    await expectArrived(seen, await feedIds(redis));
    for (let round = 0; round < 2; round++) {
      await server.halt();
      await eventually(() => expect(waiting.at(-1)?.status).not.toBe('ready'));
      await server.resume();
      await eventually(() => redis.ping());
      for (let n = 0; n < 5; n++) await append();
      await expectArrived(seen, await feedIds(redis));
    }
    expect(seen.resyncs).toEqual([]);
  }, 20_000);

  test('a feed that was lost is a resync, not a silence', async () => {
    const seen = collect();
    reader.subscribe('0-0', {}, seen.sink);
    await redis.xadd(feedKeys.stream, '90000000000000-1', 'kind', 'a');
    await eventually(() => expect(seen.ids).toHaveLength(1));
    await redis.flushall();
    waiting.at(-1)?.disconnect(true);
    await eventually(() => expect(seen.resyncs).toEqual(['0-0']));
    const id = await append();
    await eventually(() => expect(seen.ids.at(-1)).toBe(id));
  });

  test('P9 a gap that was trimmed while the reader was away is a resync', async () => {
    const seen = collect();
    reader.subscribe('0-0', {}, seen.sink);
    await append();
    await eventually(() => expect(seen.ids).toHaveLength(1));
    // Away: what it asks for is answered only when there is more than it may see
    await redis.client('PAUSE', 300, 'WRITE');
    waiting.at(-1)?.disconnect(true);
    const transaction = redis.multi();
    for (let n = 0; n < 20; n++) transaction.xadd(feedKeys.stream, '*', 'kind', 'b');
    await transaction.xtrim(feedKeys.stream, 'MAXLEN', 5).exec();
    await eventually(() => expect(seen.ids.length + seen.resyncs.length).toBeGreaterThan(1));
    const ids = await feedIds(redis);
    const id = await append();
    await eventually(() => expect(seen.ids.at(-1)).toBe(id));
    // Either it was back before the trimming and has all, or it says that it has not
    if (seen.resyncs.length === 0) expect(seen.ids).toHaveLength(22);
    else expect(seen.ids.slice(1, -1).every((one) => ids.includes(one))).toBe(true);
  });
});

test('P9 producers race, subscribers are cut at random and come back: exactly the feed, in its order', async () => {
  const step = fc.oneof(
    fc.record({ kind: fc.constant('append' as const), count: fc.integer({ min: 1, max: 40 }) }),
    fc.record({ kind: fc.constant('cut' as const), who: fc.nat(2) }),
    fc.record({ kind: fc.constant('lose' as const) }),
  );
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 3, maxLength: 12 }), async (steps) => {
      await redis.flushall();
      reader.close();
      waiting = [];
      // So little is remembered that coming back needs Redis as well
      reader = newReader(16);
      const people = [0, 1, 2].map(() => {
        const seen = collect();
        return { seen, subscription: reader.subscribe('0-0', {}, seen.sink) };
      });
      const producers: Promise<unknown>[] = [];
      for (const one of steps) {
        if (one.kind === 'append')
          producers.push(Promise.all(Array.from({ length: one.count }, () => append())));
        else if (one.kind === 'lose') waiting.at(-1)?.disconnect(true);
        else {
          const person = people[one.who]!;
          person.subscription.close();
          // As a client does: from the last that it has seen
          person.subscription = reader.subscribe(person.seen.ids.at(-1) ?? '0-0', {}, person.seen.sink);
        }
        await redis.ping();
      }
      await Promise.all(producers);
      const ids = await feedIds(redis);
      for (const { seen } of people) {
        await expectArrived(seen, ids);
        expect(seen.resyncs).toEqual([]);
      }
    }),
    { numRuns: 15 },
  );
}, 60_000);
