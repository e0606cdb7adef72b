/** What a position costs Redis: trips that report once a second, written as location writes them. No phones, no gateways. */
import { setTimeout as pause } from 'node:timers/promises';
import type { Redis } from 'ioredis';
import type { Reported } from '../../../contracts/location.ts';
import { newId } from '../../../lib/ids.ts';
import { shardChannel, shardKeys, shardOf } from '../../../lib/location-keys.ts';
import { LiveIndex } from '../../../services/location/live-index.ts';
import { aracaju } from '../clients.ts';
import { startSingle } from '../redis-topology.ts';
import { redisCpuMs } from './machine.ts';

const slices = 16;
const tickMs = 1000;
const retentionMs = 3_600_000;
/** As many as gateways that hear everything. */
const subscribers = 2;

export interface RedisLoad {
  trips: number;
  /** That are measured, after half as many to get warm. */
  ticks: number;
  /** Settings of Redis itself, other than those we recommend. */
  settings?: Record<string, string>;
  /** The same commands without a script: nothing is compared, so nothing can be kept from going back. */
  bare?: boolean;
}

/** Takes updates; resolves with how many were. */
type Take = (updates: readonly Reported[]) => Promise<number>;

const bareTake =
  (redis: Redis): Take =>
  async (updates) => {
    const at = Date.now();
    const pipeline = redis.pipeline();
    for (const [shard, theirs] of Map.groupBy(updates, ({ tripId }) => shardOf(tripId))) {
      const { active, last, geo, stream } = shardKeys(shard);
      const batch = JSON.stringify({ at, updates: theirs });
      pipeline.hmget(active, ...theirs.map(({ tripId }) => tripId));
      pipeline.xadd(stream, '*', 'b', batch);
      pipeline.publish(shardChannel(shard), batch);
      pipeline.geoadd(geo, ...theirs.flatMap(({ lng, lat, tripId }) => [lng, lat, tripId]));
      pipeline.hset(last, ...theirs.flatMap((update) => [update.tripId, JSON.stringify(update)]));
    }
    for (const [error] of (await pipeline.exec()) ?? []) if (error) throw error;
    return updates.length;
  };

/** Redis' CPU an update, µs. */
export async function redisCpuUsPerUpdate({
  trips,
  ticks,
  settings = {},
  bare = false,
}: RedisLoad): Promise<number> {
  const redis = await startSingle(settings);
  try {
    const [port = 0] = redis.ports;
    const client = redis.connect(port);
    const index = new LiveIndex(client, retentionMs);
    const take: Take = bare ? bareTake(client) : async (updates) => (await index.apply(updates)).accepted;
    const people = Array.from({ length: trips }, () => ({ tripId: newId('trp'), userId: newId('usr') }));
    for (const { tripId, userId } of people) await index.open(tripId, userId);
    for (let n = 0; n < subscribers; n++) await redis.connect(port).psubscribe('*');
    const bySlice = Map.groupBy(people, ({ tripId }) => shardOf(tripId) % slices);
    let taken = 0;
    const tick = async () => {
      for (const slice of bySlice.values()) {
        const timestamp = Date.now();
        taken += await take(
          slice.map((each, n) => ({
            ...each,
            lat: aracaju.lat + n / 1e5,
            lng: aracaju.lng - n / 1e5,
            accuracy: 8,
            speed: 9.25,
            heading: 120,
            timestamp,
          })),
        );
        await pause(Math.max(0, tickMs / slices - (Date.now() - timestamp)));
      }
    };
    for (let n = 0; n < Math.ceil(ticks / 2); n++) await tick();
    taken = 0;
    const before = await redisCpuMs(client);
    for (let n = 0; n < ticks; n++) await tick();
    const usedMs = (await redisCpuMs(client)) - before;
    if (taken !== trips * ticks) throw new Error(`${taken} of ${trips * ticks} positions were taken`);
    return (usedMs * 1000) / taken;
  } finally {
    await redis.stop();
  }
}
