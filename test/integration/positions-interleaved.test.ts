import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import type { Reported, Update } from '../../contracts/location.ts';
import { newId } from '../../lib/ids.ts';
import { LatestPerUser } from '../../lib/latest-per-user.ts';
import { shardKeys, shardOf } from '../../lib/location-keys.ts';
import { parseBatch, readStream } from '../../lib/location-stream.ts';
import {
  closeConnection,
  commandConnection,
  isReady,
  type RedisConnection,
  subscriberConnection,
} from '../../lib/redis-client.ts';
import { parseRedisUrl } from '../../lib/redis-url.ts';
import { LiveIndex } from '../../services/location/live-index.ts';
import { eventually } from '../support/eventually.ts';
import { reportedAt, tripsOfOneShard } from '../support/positions.ts';
import { startTestRedis } from '../support/redis.ts';
import { startCluster } from '../support/redis-topology.ts';

const driver = 'usr_driver';
/** So many trips, of which two share a shard. */
const tripCount = 3;

const node = fc.constantFrom(0, 1);
const trip = fc.nat(tripCount - 1);
/** Seconds of the ride; everything is before its end. */
const time = fc.integer({ min: 1, max: 30 });
const update = fc.record({ trip, time, user: fc.constantFrom(driver, driver, driver, 'usr_other') });
const step = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({ do: fc.constant('batch'), node, updates: fc.array(update, { maxLength: 6 }) }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant('backlog'),
      node,
      trip,
      times: fc.array(time, { minLength: 1, maxLength: 4 }),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('close'), node, trip }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('open'), node, trip }) },
);
type Step = typeof step extends fc.Arbitrary<infer S> ? S : never;
/** What is in a round is under way at once. */
const rounds = fc.array(fc.array(step, { minLength: 1, maxLength: 6 }), { minLength: 1, maxLength: 5 });

describe.each([
  ['one Redis', startTestRedis],
  ['a Cluster', startCluster],
] as const)('P3 two location nodes on %s', (_, startRedis) => {
  let server: { url: string; stop(): Promise<void> };
  let connections: RedisConnection[];
  let nodes: LiveIndex[];
  let redis: RedisConnection;
  let listener: ReturnType<typeof subscriberConnection>;
  const published = new Map<string, Update[]>();

  beforeAll(async () => {
    server = await startRedis();
    const parsed = parseRedisUrl(server.url);
    if ('problem' in parsed) throw new Error(parsed.problem);
    connections = [commandConnection(parsed.target), commandConnection(parsed.target)];
    for (const connection of connections) {
      connection.on('error', () => undefined);
      expect(await isReady(connection)).toBe(true);
    }
    nodes = connections.map((connection) => new LiveIndex(connection, 3_600_000));
    [redis] = connections as [RedisConnection];
    listener = subscriberConnection(parsed.target);
    listener.on('error', () => undefined);
    listener.on('pmessage', (_pattern, _channel, message: string) => {
      for (const one of parseBatch(message.split(' ').slice(2).join(' ')))
        published.get(one.tripId)?.push(one);
    });
    await listener.psubscribe('*:live');
  }, 40_000);
  afterAll(async () => {
    listener.disconnect();
    for (const connection of connections) closeConnection(connection);
    await server.stop();
  });

  async function streamed(tripId: string): Promise<Update[]> {
    const live: Update[] = [];
    for await (const entry of readStream(redis, shardOf(tripId), '-', { mentioning: tripId }))
      live.push(...entry.live.filter((one) => one.tripId === tripId));
    return live;
  }

  test('late, doubled and concurrent batches, backlogs, ends: never an older position over a newer', async () => {
    await fc.assert(
      fc.asyncProperty(rounds, async (sequence) => {
        const [a = '', b = ''] = tripsOfOneShard(2);
        const trips = [a, b, newId('trp')];
        const base = Date.now() - 60_000;
        const nth = (n: number) => trips[n] ?? '';
        for (const tripId of trips) {
          published.set(tripId, []);
          await nodes[0]?.open(tripId, driver);
        }
        const closed = new Set<string>();
        /** The newest that its driver has sent, by trip. */
        const newest = new Map<string, number>();
        const sent = (tripId: string, timestamp: number) =>
          newest.set(tripId, Math.max(timestamp, newest.get(tripId) ?? 0));

        const run = async (one: Step): Promise<void> => {
          const index = nodes[one.node];
          if (!index) return;
          if (one.do === 'close') {
            closed.add(nth(one.trip));
            return index.close(nth(one.trip));
          }
          if (one.do === 'open') return void (await index.open(nth(one.trip), driver));
          if (one.do === 'backlog') {
            const times = [...new Set(one.times)].toSorted((x, y) => x - y);
            const points = times.map((t) => reportedAt(nth(one.trip), base + t * 1000, { lat: t, lng: -t }));
            await index.append(nth(one.trip), driver, points);
            await index.append(nth(one.trip), driver, points);
            return;
          }
          const buffer = new LatestPerUser<Reported>();
          for (const { trip: n, time: t, user } of one.updates)
            buffer.add(reportedAt(nth(n), base + t * 1000, { userId: user, lat: t, lng: -t }));
          const batch = buffer.take();
          // From both nodes, and once more
          await Promise.all(nodes.map((each) => each.apply(batch)));
          await index.apply(batch);
        };

        const seen = new Map<string, number>();
        for (const round of sequence) {
          for (const one of round) {
            if (one.do === 'batch')
              for (const { trip: n, time: t, user } of one.updates)
                if (user === driver) sent(nth(n), base + t * 1000);
            if (one.do === 'backlog') sent(nth(one.trip), base + Math.max(...one.times) * 1000);
          }
          await Promise.all(round.map(run));
          for (const tripId of trips) {
            const { last, driverId } = (await nodes[1]?.state(tripId)) ?? {};
            const [position] = await redis.geopos(shardKeys(shardOf(tripId)).geo, tripId);
            if (closed.has(tripId)) expect([driverId, last, position]).toEqual([null, null, null]);
            else {
              // The newest that was ever sent, so never older than a round ago, and the marker stands there
              expect(last?.timestamp).toBe(newest.get(tripId));
              expect(last?.timestamp ?? 0).toBeGreaterThanOrEqual(seen.get(tripId) ?? 0);
              seen.set(tripId, last?.timestamp ?? 0);
              if (last) expect(Number(position?.[1])).toBeCloseTo(last.lat, 3);
            }
          }
        }
        for (const tripId of trips) {
          const live = await streamed(tripId);
          await eventually(() => expect(published.get(tripId)).toHaveLength(live.length));
          expect(published.get(tripId)).toEqual(live);
          const times = live.map(({ timestamp }) => timestamp);
          expect(times).toEqual([...new Set(times)].toSorted((x, y) => x - y));
          expect(live.every(({ userId }) => userId === driver)).toBe(true);
          const stamps = live.map(({ at }) => at);
          expect(stamps).toEqual(stamps.toSorted((x, y) => x - y));
        }
        published.clear();
      }),
      { numRuns: 40 },
    );
  }, 60_000);
});
