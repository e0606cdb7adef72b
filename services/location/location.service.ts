/**
 * Live positions: lets Redis take in what gateways hand on, a slice of all trips at a time; last positions, nearby
 * trips. Owns the location keys in Redis. Any node may do any trip's work: correctness is in the scripts.
 */
import type { Reported } from '../../contracts/location.ts';
import type { Trip } from '../../contracts/trips.ts';
import { soonest } from '../../lib/backoff.ts';
import { defineService } from '../../lib/define-service.ts';
import { AppError } from '../../lib/errors.ts';
import { LatestPerUser } from '../../lib/latest-per-user.ts';
import { shardCount } from '../../lib/location-keys.ts';
import { memoryOf } from '../../lib/redis-memory.ts';
import { redis } from '../../mixins/redis.ts';
import { judgeBacklog } from './backlog.ts';
import { LiveIndex } from './live-index.ts';

/** A backlog is taken up to this long after the trip's end, ms. */
const backlogForMs = 86_400_000;
/** How often silent trips are taken out of the geo-index, and Redis' memory is looked at, ms. */
const sweepEveryMs = 60_000;
const mb = 1024 * 1024;
/** Gateways hand the same slice on at the same time: so long the others are waited for, ms. */
const collectMs = 30;
/** What Redis did not take is tried again after this time, ms. */
const retryMs = 1000;
/** Gateways wait so long for Redis, ms: until then they hand on again what a node that died had. */
const answerWithinMs = 250;

export default defineService({
  name: 'location',
  mixins: [redis()],
  state: () => ({
    /** For the next batch. */
    buffer: new LatestPerUser<Reported>(),
    /** Resolved when that batch is through. */
    through: Promise.withResolvers<void>(),
    /** What Redis did not take; apart, or each batch would try it again. */
    failed: new LatestPerUser<Reported>(),
    /** The batch under way; batches follow one another. */
    batch: Promise.resolve(),
    /** The one that waits for it: what comes until then is in it. */
    next: undefined as Promise<void> | undefined,
    collecting: undefined as NodeJS.Timeout | undefined,
    retrying: undefined as NodeJS.Timeout | undefined,
    sweeper: undefined as NodeJS.Timeout | undefined,
    sweep: Promise.resolve() as Promise<unknown>,
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

    /** Processes what is buffered. What Redis does not take is tried again, unless something newer has come. */
    async processBatch(): Promise<void> {
      const updates = this.buffer.take();
      if (updates.length === 0) return;
      const { through } = this;
      this.through = Promise.withResolvers();
      const stopTimer = this.broker.metrics.timer('location.batch.time');
      let trouble: unknown;
      const outcome = await this.index()
        .apply(updates)
        .catch((error: unknown) => {
          trouble = error;
          return { accepted: 0, late: 0, notActive: 0, failed: updates, broken: [], lost: 0 };
        });
      stopTimer();
      through.resolve();
      const waiting = outcome.failed.length;
      if (waiting > 0)
        this.logger.warn('A batch of locations waits for Redis', { updates: waiting, error: trouble });
      for (const update of outcome.failed) this.failed.add(update);
      if (waiting > 0) this.retrying ??= setTimeout(() => void this.flushBuffer(), retryMs);
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
      this.broker.metrics.set('location.buffer.size', this.buffer.size + this.failed.size);
    },

    /** The streams may take what is configured, and half of Redis' memory at most: sessions and queues need the rest. */
    async limitStreams(): Promise<void> {
      const wanted = this.config.locationStreamsMaxMb * mb;
      try {
        const { limit } = await memoryOf(this.redis);
        const most = limit === 0 ? wanted : Math.min(wanted, limit / 2);
        const maxShardBytes = Math.floor(most / shardCount);
        if (most < wanted && this.index().maxShardBytes !== maxShardBytes)
          this.logger.warn('LOCATION_STREAMS_MAX_MB is more than half of the memory of Redis: half it is', {
            wantedMb: wanted / mb,
            mb: Math.floor(most / mb),
          });
        this.index().maxShardBytes = maxShardBytes;
      } catch (error) {
        this.logger.warn('How much memory Redis has could not be asked', { error });
      }
    },

    async dropSilent(): Promise<void> {
      await this.index()
        .dropSilent()
        .catch((error: unknown) =>
          this.logger.warn('Silent trips stay in the geo-index until the next sweep', { error }),
        );
    },

    /** All that is here, in one batch. */
    flushBuffer(): Promise<void> {
      clearTimeout(this.retrying);
      this.retrying = undefined;
      for (const update of this.failed.take()) this.buffer.add(update);
      return this.nextBatch();
    },

    nextBatch(): Promise<void> {
      clearTimeout(this.collecting);
      this.collecting = undefined;
      if (!this.next) {
        this.next = this.batch.then(() => {
          this.next = undefined;
          return this.processBatch();
        });
        this.batch = this.next;
      }
      return this.next;
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
        this.collecting ??= setTimeout(() => void this.nextBatch(), collectMs);
        await soonest(this.through.promise, answerWithinMs);
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
        await this.flushBuffer();
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
    const { locationRetentionMs, locationStreamsMaxMb } = this.config;
    const maxShardBytes = Math.floor((locationStreamsMaxMb * mb) / shardCount);
    this.liveIndex = new LiveIndex(this.redis, locationRetentionMs, maxShardBytes);
    this.sweep = this.limitStreams();
    this.sweeper = setInterval(() => {
      this.sweep = Promise.all([this.limitStreams(), this.dropSilent()]);
    }, sweepEveryMs);
  },

  async stopped() {
    clearInterval(this.sweeper);
    await this.sweep;
    // R2 +: what is buffered is handed out before the node goes
    await this.flushBuffer();
    clearTimeout(this.retrying);
  },
});
