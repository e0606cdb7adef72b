/**
 * Live positions: buffers what gateways report and lets Redis take it in once a second; last positions, nearby
 * trips. Owns the location keys in Redis. Any node may do any trip's work: correctness is in the scripts.
 */
import type { Reported } from '../../contracts/location.ts';
import type { Trip } from '../../contracts/trips.ts';
import { defineService } from '../../lib/define-service.ts';
import { AppError } from '../../lib/errors.ts';
import { shardCount, shardOf } from '../../lib/location-keys.ts';
import { redis } from '../../mixins/redis.ts';
import { judgeBacklog } from './backlog.ts';
import { LatestPerUser } from './latest-per-user.ts';
import { LiveIndex } from './live-index.ts';
import { dueAfter, groupSize, slicesOf } from './slices.ts';

/** A backlog is taken up to this long after the trip's end, ms. */
const backlogForMs = 86_400_000;
/** How often silent trips are taken out of the geo-index, ms. */
const sweepEveryMs = 60_000;

export default defineService({
  name: 'location',
  mixins: [redis()],
  state: () => ({
    buffer: new LatestPerUser<Reported>(),
    slices: 1,
    /** Updates processed in the tick under way. */
    processed: 0,
    /** The batch under way; batches follow one another. */
    batch: Promise.resolve(),
    /** Batches that wait for it, by slice: what comes until then is in them. */
    waiting: new Map<number, Promise<void>>(),
    timer: undefined as NodeJS.Timeout | undefined,
    sweeper: undefined as NodeJS.Timeout | undefined,
    sweep: Promise.resolve(),
    liveIndex: undefined as LiveIndex | undefined,
  }),

  methods: {
    index(): LiveIndex {
      if (!this.liveIndex) throw new AppError('UNAVAILABLE');
      return this.liveIndex;
    },

    count(
      outcome: 'accepted' | 'superseded' | 'late' | 'not-active' | 'retried' | 'broken',
      by: number,
    ): void {
      if (by > 0) this.broker.metrics.increment('location.updates.total', { outcome }, by);
    },

    sliceOf(tripId: string): number {
      return shardOf(tripId) % this.slices;
    },

    /** Processes what is buffered of some slices. What Redis did not take goes back, unless something newer has come. */
    async processBatch(slices: readonly number[]): Promise<void> {
      const updates = slices.flatMap((slice) => this.buffer.take(slice));
      if (updates.length === 0) return;
      this.processed += updates.length;
      const stopTimer = this.broker.metrics.timer('location.batch.time');
      let trouble: unknown;
      const outcome = await this.index()
        .apply(updates)
        .catch((error: unknown) => {
          trouble = error;
          return { accepted: 0, late: 0, notActive: 0, failed: updates, broken: [], lost: 0 };
        });
      stopTimer();
      const waiting = outcome.failed.length;
      if (waiting > 0)
        this.logger.warn('A batch of locations waits for Redis', { updates: waiting, error: trouble });
      for (const update of outcome.failed) this.buffer.add(update);
      this.count('accepted', outcome.accepted);
      this.count('late', outcome.late);
      this.count('not-active', outcome.notActive);
      this.count('retried', waiting);
      this.count('broken', outcome.broken.length);
      if (outcome.broken.length > 0) {
        const trips = outcome.broken.map(({ tripId }) => tripId);
        this.logger.error('Redis refuses these updates; they are dropped', { trips });
      }
      if (outcome.lost > 0) {
        this.broker.metrics.increment('location.stream.lost.total', {}, outcome.lost);
        this.logger.error(
          'Location history is lost: LOCATION_STREAMS_MAX_MB is full of what no database has taken',
          {
            entries: outcome.lost,
          },
        );
      }
      this.broker.metrics.set('location.buffer.size', this.buffer.size);
    },

    async dropSilent(): Promise<void> {
      await this.index()
        .dropSilent()
        .catch((error: unknown) =>
          this.logger.warn('Silent trips stay in the geo-index until the next sweep', { error }),
        );
    },

    async flushSlices(slices: readonly number[]): Promise<void> {
      const due = slices.filter((slice) => !this.waiting.has(slice));
      if (due.length > 0) {
        this.batch = this.batch.then(() => {
          for (const slice of due) this.waiting.delete(slice);
          return this.processBatch(due);
        });
        for (const slice of due) this.waiting.set(slice, this.batch);
      }
      await Promise.all(slices.flatMap((slice) => this.waiting.get(slice) ?? []));
    },

    flushBuffer(): Promise<void> {
      return this.flushSlices(Array.from({ length: this.slices }, (_, slice) => slice));
    },

    /** Each slice once a tick, in its place or with its neighbours. */
    startTicks(tickMs: number): void {
      let n = 0;
      let sizes: [now: number, before: number] = [1, 1];
      this.timer = setInterval(() => {
        void this.flushSlices(dueAfter(n, sizes));
        n = (n + 1) % this.slices;
        if (n > 0) return;
        sizes = [groupSize(this.processed, this.slices), sizes[0]];
        this.processed = 0;
      }, tickMs / this.slices);
    },
  },

  actions: {
    report: {
      permissions: 'internal',
      // The buffer is bounded by the number of trips; queueing or opening a breaker would only add delay
      bulkhead: { enabled: false },
      circuitBreaker: { enabled: false },
      async handler(ctx) {
        let superseded = 0;
        for (const update of ctx.params.updates) if (!this.buffer.add(update)) superseded++;
        this.count('superseded', superseded);
        return { taken: ctx.params.updates.length };
      },
    },

    open: {
      permissions: 'internal',
      async handler(ctx) {
        await this.index().open(ctx.params.tripId, ctx.params.driverId);
        return null;
      },
    },

    close: {
      permissions: 'internal',
      async handler(ctx) {
        // What is buffered on another node counts too, when it comes; from here it comes before the end is told
        await this.flushSlices([this.sliceOf(ctx.params.tripId)]);
        await this.index().close(ctx.params.tripId);
        return null;
      },
    },

    state: {
      permissions: 'user',
      async handler(ctx) {
        const { tripId } = ctx.params;
        const state = await this.index().state(tripId);
        if (state.driverId !== null) return state;
        // Nobody opened it, or it is not active: trips knows
        const trip = await ctx.call('trips.authorize', { id: tripId, as: 'watch' });
        if (trip.status !== 'active') return state;
        return { driverId: await this.index().open(tripId, trip.driverId), last: state.last };
      },
    },

    missed: {
      permissions: 'internal',
      async handler(ctx) {
        return this.index().missed(ctx.params.tripId, ctx.params.after);
      },
    },

    nearby: {
      permissions: ['driver', 'viewer', 'support', 'operations', 'super-admin'],
      rest: { method: 'GET', path: '/trips/nearby' },
      async handler(ctx) {
        const { lat, lng, radiusM, limit } = ctx.params;
        return { trips: await this.index().nearby(lat, lng, radiusM, limit) };
      },
    },

    backlog: {
      permissions: 'user',
      rest: { method: 'POST', path: '/trips/:id/locations' },
      async handler(ctx) {
        const { id: tripId, updates } = ctx.params;
        const trip: Trip = await ctx.call('trips.authorize', { id: tripId, as: 'watch' });
        const { driverId } = trip;
        if (ctx.meta.user?.id !== driverId) throw new AppError('LOCATION_NOT_DRIVER');
        const endedAt = trip.endedAt === null ? null : Date.parse(trip.endedAt);
        const isOver = endedAt !== null && Date.now() > endedAt + backlogForMs;
        if (trip.startedAt === null || isOver) throw new AppError('LOCATION_TRIP_NOT_ACTIVE');
        const { accepted, points, rejected } = judgeBacklog(
          updates,
          { startedAt: Date.parse(trip.startedAt), endedAt },
          Date.now(),
        );
        await this.index().append(
          tripId,
          driverId,
          points.map((point) => ({ ...point, tripId, userId: driverId })),
        );
        return { accepted, rejected };
      },
    },

    flush: {
      permissions: 'internal',
      async handler() {
        await this.flushBuffer();
        return null;
      },
    },
  },

  async started() {
    const { metrics } = this.broker;
    metrics.register({
      type: 'counter',
      name: 'location.updates.total',
      labelNames: ['outcome'],
      description: 'Updates by outcome',
    });
    metrics.register({
      type: 'counter',
      name: 'location.stream.lost.total',
      description:
        'Entries of the streams that were dropped before the database had them, for want of memory',
    });
    metrics.register({
      type: 'gauge',
      name: 'location.buffer.size',
      description: 'Updates waiting for the next batch',
    });
    metrics.register({
      type: 'histogram',
      name: 'location.batch.time',
      unit: 'ms',
      quantiles: true,
      description: 'Time of a batch in Redis',
    });
    const { locationRetentionMs, locationStreamsMaxMb, locationTickMs } = this.config;
    const maxShardBytes = Math.floor((locationStreamsMaxMb * 1024 * 1024) / shardCount);
    this.liveIndex = new LiveIndex(this.redis, locationRetentionMs, maxShardBytes);
    this.sweeper = setInterval(() => {
      this.sweep = this.dropSilent();
    }, sweepEveryMs);
    this.slices = slicesOf(locationTickMs);
    this.buffer = new LatestPerUser<Reported>(this.slices, (tripId) => this.sliceOf(tripId));
    this.startTicks(locationTickMs);
  },

  async stopped() {
    clearInterval(this.timer);
    clearInterval(this.sweeper);
    await this.sweep;
    // R2.5 +: what is buffered is handed out before the node goes
    await this.flushBuffer();
  },
});
