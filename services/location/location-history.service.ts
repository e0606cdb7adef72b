/**
 * Where trips were: moves the location streams to the database every half a minute, and joins both into a trip's track.
 * Comes with the role `location`; any number of processes share the work. Owns the points in the DB, and the cursor of each
 * stream. Never deletes from a stream: that is done behind the cursor, when something is appended.
 */

import type { Update } from '../../contracts/location.ts';
import { defineService } from '../../lib/define-service.ts';
import { AppError } from '../../lib/errors.ts';
import { redis } from '../../mixins/redis.ts';
import { timeSeries } from '../../mixins/time-series.ts';
import { historyCollection } from './history.collection.ts';
import { HistoryMover } from './history-mover.ts';
import { readTrack } from './track.ts';

/** Nothing is reported from further ahead than a phone's clock may be, ms. */
const aheadMs = 60_000;

/** ISO 8601 or epoch ms. */
function parseTime(text: string | undefined, field: string, otherwise: number): number {
  if (text === undefined) return otherwise;
  const time = new Date(/^\d+$/.test(text) ? Number(text) : text).getTime();
  if (Number.isNaN(time))
    throw new AppError('VALIDATION', { fields: [{ path: field, message: 'must be ISO 8601 or epoch ms' }] });
  return time;
}

export default defineService({
  name: 'location-history',
  mixins: [redis(), timeSeries<Update>(historyCollection)],
  state: () => ({
    mover: undefined as HistoryMover | undefined,
    moving: Promise.resolve(),
    stopping: new AbortController(),
  }),

  actions: {
    track: {
      permissions: 'user',
      rest: { method: 'GET', path: '/trips/:id/track' },
      async handler(ctx) {
        const from = parseTime(ctx.params.from, 'from', 0);
        const to = parseTime(ctx.params.to, 'to', Date.now() + aheadMs);
        const { id: tripId, startedAt } = await ctx.call('trips.authorize', {
          id: ctx.params.id,
          as: 'watch',
        });
        const { points, next } =
          startedAt === null
            ? { points: [], next: null }
            : await readTrack(this.redis, this.series, tripId, Date.parse(startedAt), {
                from,
                to,
                limit: ctx.params.limit,
              });
        return {
          type: 'Feature' as const,
          geometry: {
            type: 'LineString' as const,
            coordinates: points.map((p): [number, number] => [p.lng, p.lat]),
          },
          properties: { tripId, times: points.map((p) => p.timestamp), next },
        };
      },
    },

    sync: {
      permissions: 'internal',
      async handler() {
        await this.mover?.moveAll(this.stopping.signal);
        return null;
      },
    },
  },

  async started() {
    const { redis: connection, series, logger, broker, config } = this;
    this.mover = new HistoryMover({
      redis: connection,
      series,
      nodeId: broker.nodeID,
      intervalMs: config.locationHistoryIntervalMs,
      logger,
      metrics: broker.metrics,
    });
    this.moving = this.mover.run(this.stopping.signal);
  },

  async stopped() {
    this.stopping.abort();
    await this.moving;
  },
});
