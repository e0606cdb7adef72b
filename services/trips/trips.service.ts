/**
 * From booking to the end of the trip. Owns the trips; a booking and the trip it becomes are one record, so that each
 * step is one write. Emits trip.accepted, started, ended, cancelled, and tells the admin feed. Never moves a trip
 * backwards.
 */
import { adminRoles } from '../../contracts/common.ts';
import type { FeedEvent, FeedKind } from '../../contracts/feed.ts';
import type { EventPayload } from '../../contracts/index.ts';
import type { Booking, Trip, TripPlan } from '../../contracts/trips.ts';
import type { Calls, RequestContext } from '../../lib/context.ts';
import { defineService } from '../../lib/define-service.ts';
import { AppError } from '../../lib/errors.ts';
import { randomId } from '../../lib/ids.ts';
import type { Caller } from '../../lib/permissions.ts';
import { type GeoPoint, geoPoint } from '../../mixins/collection.ts';
import { feed, type WithPending } from '../../mixins/feed.ts';
import { shareGraceMs, shares } from '../../mixins/shares.ts';
import { store } from '../../mixins/store.ts';
import { regionOf } from './region.ts';
import { mayAccess, mayReadBooking, mayShare, mayStep } from './trip-access.ts';
import { allowedFrom, nextStatus, type TripStep } from './trip-state.ts';

interface TripRecord extends WithPending, Omit<Trip, 'id' | 'driverId'> {
  driverId: string | null;
  /** `from`, as the database finds it by distance. */
  pickup: GeoPoint;
  /** Of the pickup: the first part of the key that trips are sharded by. */
  region: string;
  /** As the rider's app gave them; missing in records that are older than they. */
  route?: TripPlan['route'];
  durationS?: TripPlan['durationS'];
  /** True, from the same write as its start, until location knows of the trip. */
  openPending?: boolean;
}

/** A record that a driver has accepted is a trip. */
const toTrip = ({ _id, driverId, ...record }: TripRecord): Trip => {
  if (driverId === null) throw new AppError('TRIP_NOT_FOUND');
  return { id: _id, driverId, ...record };
};

/** What safety checks measure an active trip by. */
const toPlan = ({ _id, riderId, driverId, from, to, startedAt, route, durationS }: TripRecord): TripPlan[] =>
  driverId === null || startedAt === null
    ? []
    : [
        {
          tripId: _id,
          riderId,
          driverId,
          from,
          to,
          startedAt: Date.parse(startedAt),
          route: route ?? null,
          durationS: durationS ?? null,
        },
      ];

const toBooking = ({
  _id,
  bookingId,
  status,
  riderId,
  driverId,
  from,
  to,
  departAt,
}: TripRecord): Booking => ({
  id: bookingId,
  status,
  riderId,
  from,
  to,
  departAt,
  tripId: driverId === null ? null : _id,
});

const requireCaller = (user: Caller | null | undefined): Caller => {
  if (!user) throw new AppError('UNAUTHENTICATED');
  return user;
};

/** Links of one trip at once. */
const maxShares = 10;

/** How often trips that location does not know of yet are told to it again, ms. */
const openSweepMs = 5000;

type TripEvent = 'trip.accepted' | 'trip.started' | 'trip.ended' | 'trip.cancelled';

export default defineService({
  name: 'trips',
  mixins: [
    shares(),
    // Ahead of the store, which its sweep uses: what is listed first stops first
    feed(),
    store<TripRecord>('trips', [
      // Unique by how it is made: it has the record's own key. A shard could not check more
      { fields: ['bookingId'] },
      { fields: ['riderId'] },
      { fields: ['driverId'] },
      { fields: ['hasPending'] },
      { fields: ['openPending'] },
      { fields: ['status', 'departAt'] },
      { fields: ['region', '_id'] },
      { fields: ['pickup'], geo: true },
    ]),
  ],
  state: () => ({ openSweep: undefined as NodeJS.Timeout | undefined }),

  methods: {
    async tripById(id: string): Promise<TripRecord> {
      const record = await this.store.get(id);
      if (!record || record.driverId === null) throw new AppError('TRIP_NOT_FOUND');
      return record;
    },

    async recordOfBooking(bookingId: string): Promise<TripRecord> {
      const record = await this.store.findOne({ bookingId });
      if (!record) throw new AppError('BOOKING_NOT_FOUND');
      return record;
    },

    /**
     * Moves a record by one step with its feed event in the same write. Of two requests that race one wins; the
     * other sees TRIP_WRONG_STATE.
     */
    async step(
      record: TripRecord,
      step: TripStep,
      kind: FeedKind,
      set: Partial<TripRecord>,
    ): Promise<TripRecord> {
      const status = nextStatus(record.status, step);
      if (status === null) throw new AppError('TRIP_WRONG_STATE');
      const version = record.version + 1;
      const { _id: tripId, region, riderId } = record;
      const event = {
        kind,
        version,
        at: Date.now(),
        data: { tripId, riderId, driverId: set.driverId ?? record.driverId },
      } as FeedEvent;
      const changed = await this.store.update(
        { _id: tripId, region, version: record.version, status: { $in: allowedFrom(step) } },
        { $set: { ...set, status, hasPending: true }, $inc: { version: 1 }, $push: { pending: event } },
      );
      if (changed === 0) throw new AppError('TRIP_WRONG_STATE');
      return { ...record, ...set, status, version };
    },

    /**
     * Takes an active trip out of the location index before its state says that it is over: when either fails, the
     * same request works again. A trip that is not active is left alone: it may be about to start.
     */
    async closeLocation(ctx: Calls, record: TripRecord, step: 'end' | 'cancel'): Promise<void> {
      if (record.status !== 'active' || nextStatus(record.status, step) === null) return;
      await ctx.call('location.close', { tripId: record._id });
    },

    /**
     * Has location watch a trip that has started, also one whose driver never reports: the signal of such a trip is lost from its
     * start. What fails is left to the sweep: the record says that it is pending.
     */
    async openLocation({ _id: tripId, region, status, driverId }: TripRecord): Promise<void> {
      try {
        if (status === 'active' && driverId !== null) await this.call('location.open', { tripId, driverId });
        await this.store.update({ _id: tripId, region }, { $set: { openPending: false } });
      } catch (error) {
        this.logger.warn('Location does not know of a trip yet', { tripId, error });
      }
    },

    async openPending(): Promise<void> {
      for (const record of await this.store.find({ openPending: true }, { limit: 500 }))
        await this.openLocation(record);
    },

    sweepOpen(): void {
      this.openSweep = setTimeout(() => {
        this.openPending()
          .catch((error: unknown) => this.logger.warn('Trips could not be looked through', { error }))
          .finally(() => this.openSweep && this.sweepOpen());
      }, openSweepMs);
    },

    /** Tells those who react. Hints: each also finds out by itself. */
    async announce(ctx: Calls, event: TripEvent, trip: Trip): Promise<void> {
      const { id: tripId, riderId, driverId, status } = trip;
      const payload: EventPayload<TripEvent> = { tripId, riderId, driverId, status, at: Date.now() };
      await Promise.all([ctx.emit(event, payload), this.publishPending(tripId)]);
    },

    /** A trip whose links the caller may manage. */
    async sharedBy(ctx: RequestContext<{ id: string }>): Promise<TripRecord> {
      const record = await this.tripById(ctx.params.id);
      if (!mayShare(record, requireCaller(ctx.meta.user))) throw new AppError('TRIP_FORBIDDEN');
      return record;
    },

    /** Ends or cancels a trip: first where it is seen, then in its record. */
    async finish(
      ctx: RequestContext<{ id: string }>,
      step: 'end' | 'cancel',
      event: 'trip.ended' | 'trip.cancelled',
    ): Promise<Trip> {
      const record = await this.tripById(ctx.params.id);
      if (!mayStep(record, requireCaller(ctx.meta.user), step)) throw new AppError('TRIP_FORBIDDEN');
      await this.closeLocation(ctx, record, step);
      const trip = toTrip(await this.step(record, step, event, { endedAt: new Date().toISOString() }));
      // Without this the door finds out when it looks at the trip's state
      const links = this.shares
        .endWithin(trip.id, shareGraceMs)
        .catch((error: unknown) => ctx.logger.warn('Links outlive their trip', { tripId: trip.id, error }));
      await Promise.all([links, this.announce(ctx, event, trip)]);
      return trip;
    },
  },

  actions: {
    book: {
      permissions: ['rider', 'driver'],
      rest: { method: 'POST', path: '/bookings', status: 201, location: '/bookings/:id' },
      async handler(ctx) {
        const riderId = requireCaller(ctx.meta.user).id;
        const key = randomId();
        const [tripId, bookingId] = [`trp_${key}`, `bkg_${key}`];
        const { from, to, departAt, route = null, durationS = null } = ctx.params;
        const event: FeedEvent = {
          kind: 'booking.created',
          version: 1,
          at: Date.now(),
          data: { bookingId, riderId, from, to, departAt },
        };
        const record: TripRecord = {
          _id: tripId,
          bookingId,
          riderId,
          driverId: null,
          status: 'requested',
          from,
          to,
          departAt,
          pickup: geoPoint(from),
          region: regionOf(from),
          route,
          durationS,
          startedAt: null,
          endedAt: null,
          version: 1,
          pending: [event],
          hasPending: true,
        };
        await this.store.insert(record);
        await this.publishPending(tripId);
        return toBooking(record);
      },
    },

    nearbyBookings: {
      permissions: ['driver'],
      rest: { method: 'GET', path: '/bookings/nearby' },
      async handler(ctx) {
        const { radiusM, limit, ...point } = ctx.params;
        const { id } = requireCaller(ctx.meta.user);
        // Some seconds old will do: accepting decides
        const found = await this.store.near('pickup', point, {
          radiusM,
          limit,
          query: { status: 'requested', riderId: { $ne: id } },
          stale: true,
        });
        return {
          bookings: found.map(({ document, distanceM }) => ({
            ...toBooking(document),
            distanceM: Math.round(distanceM),
          })),
        };
      },
    },

    getBooking: {
      permissions: 'user',
      rest: { method: 'GET', path: '/bookings/:id' },
      async handler(ctx) {
        const record = await this.recordOfBooking(ctx.params.id);
        if (!mayReadBooking(record, requireCaller(ctx.meta.user))) throw new AppError('TRIP_FORBIDDEN');
        return toBooking(record);
      },
    },

    cancelBooking: {
      permissions: 'user',
      rest: { method: 'POST', path: '/bookings/:id/cancel' },
      async handler(ctx) {
        const record = await this.recordOfBooking(ctx.params.id);
        if (!mayStep(record, requireCaller(ctx.meta.user), 'cancel')) throw new AppError('TRIP_FORBIDDEN');
        if (record.status !== 'requested') throw new AppError('TRIP_WRONG_STATE');
        const endedAt = new Date().toISOString();
        const cancelled = await this.step(record, 'cancel', 'trip.cancelled', { endedAt });
        await this.publishPending(record._id);
        return toBooking(cancelled);
      },
    },

    accept: {
      permissions: ['driver'],
      rest: { method: 'POST', path: '/bookings/:id/accept', status: 201, location: '/trips/:id' },
      async handler(ctx) {
        const driverId = requireCaller(ctx.meta.user).id;
        const record = await this.recordOfBooking(ctx.params.id);
        if (record.riderId === driverId) throw new AppError('OWN_BOOKING');
        if (this.config.requireVerifiedDrivers) {
          const { verified } = await ctx.call('accounts.driverStatus', { userId: driverId });
          if (!verified) throw new AppError('DRIVER_NOT_VERIFIED');
        }
        const trip = toTrip(await this.step(record, 'accept', 'trip.accepted', { driverId }));
        await this.announce(ctx, 'trip.accepted', trip);
        return trip;
      },
    },

    start: {
      permissions: 'user',
      rest: { method: 'POST', path: '/trips/:id/start' },
      async handler(ctx) {
        const record = await this.tripById(ctx.params.id);
        if (!mayStep(record, requireCaller(ctx.meta.user), 'start')) throw new AppError('TRIP_FORBIDDEN');
        const startedAt = new Date().toISOString();
        const started = await this.step(record, 'start', 'trip.started', { startedAt, openPending: true });
        await this.openLocation(started);
        const trip = toTrip(started);
        await this.announce(ctx, 'trip.started', trip);
        return trip;
      },
    },

    end: {
      permissions: 'user',
      rest: { method: 'POST', path: '/trips/:id/end' },
      handler(ctx) {
        return this.finish(ctx, 'end', 'trip.ended');
      },
    },

    cancel: {
      permissions: 'user',
      rest: { method: 'POST', path: '/trips/:id/cancel' },
      handler(ctx) {
        return this.finish(ctx, 'cancel', 'trip.cancelled');
      },
    },

    get: {
      permissions: 'user',
      rest: { method: 'GET', path: '/trips/:id' },
      async handler(ctx) {
        const record = await this.tripById(ctx.params.id);
        if (!mayAccess(record, requireCaller(ctx.meta.user), 'watch')) throw new AppError('TRIP_FORBIDDEN');
        return toTrip(record);
      },
    },

    list: {
      permissions: 'user',
      rest: { method: 'GET', path: '/trips' },
      async handler(ctx) {
        const { status, limit, after } = ctx.params;
        const { id, role } = requireCaller(ctx.meta.user);
        const isAdmin = adminRoles.some((admin) => admin === role);
        const mine = isAdmin ? {} : { $or: [{ riderId: id }, { driverId: id }] };
        const query = {
          ...mine,
          driverId: { $ne: null },
          ...(status ? { status } : {}),
          ...(after ? { _id: { $gt: after } } : {}),
        };
        const found = await this.store.find(query, { sort: ['_id'], limit: limit + 1, stale: isAdmin });
        const page = found.slice(0, limit).map(toTrip);
        return { trips: page, next: found.length > limit ? (page.at(-1)?.id ?? null) : null };
      },
    },

    share: {
      permissions: 'user',
      rest: { method: 'POST', path: '/trips/:id/shares', status: 201 },
      async handler(ctx) {
        const { _id: tripId, riderId, status } = await this.sharedBy(ctx);
        if (status !== 'scheduled' && status !== 'active') throw new AppError('TRIP_WRONG_STATE');
        const ttlMs = ctx.params.ttlMinutes * 60_000;
        const made = await this.shares.create({ tripId, userId: riderId, ttlMs, max: maxShares });
        const { hash: id, token, url } = made;
        return { id, token, url, expiresAt: new Date(made.expiresAt).toISOString() };
      },
    },

    shares: {
      permissions: 'user',
      rest: { method: 'GET', path: '/trips/:id/shares' },
      async handler(ctx) {
        const { _id: tripId } = await this.sharedBy(ctx);
        const found = await this.shares.list(tripId);
        return {
          shares: found.map(({ hash, createdAt, expiresAt }) => ({
            id: hash,
            createdAt: new Date(createdAt).toISOString(),
            expiresAt: new Date(expiresAt).toISOString(),
          })),
        };
      },
    },

    unshare: {
      permissions: 'user',
      rest: { method: 'DELETE', path: '/trips/:id/shares/:token' },
      async handler(ctx) {
        const { _id: tripId } = await this.sharedBy(ctx);
        const hash = await this.shares.revoke(tripId, ctx.params.token);
        if (hash === null) throw new AppError('SHARE_INVALID');
        await ctx.emit('share.revoked', { hash });
        return null;
      },
    },

    status: {
      permissions: 'internal',
      async handler(ctx) {
        const { status, startedAt, endedAt } = await this.tripById(ctx.params.id);
        const since = endedAt ?? startedAt;
        return { status, at: since === null ? Date.now() : Date.parse(since) };
      },
    },

    plans: {
      permissions: 'internal',
      async handler(ctx) {
        const query = { _id: { $in: ctx.params.ids }, status: 'active' };
        return { plans: (await this.store.find(query)).flatMap(toPlan) };
      },
    },

    authorize: {
      permissions: 'user',
      async handler(ctx) {
        const record = await this.tripById(ctx.params.id);
        if (!mayAccess(record, requireCaller(ctx.meta.user), ctx.params.as))
          throw new AppError('TRIP_FORBIDDEN');
        return toTrip(record);
      },
    },
  },

  async started() {
    this.sweepOpen();
  },

  async stopped() {
    clearTimeout(this.openSweep);
    this.openSweep = undefined;
  },
});
