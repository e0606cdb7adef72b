/**
 * Alerts, as doors need them: takes presses, shows and moves alerts. Runs in every api and gateway process and works with
 * nothing but the SOS Redis; a press is taken without that too. Owns the alerts there. Emits sos.updated, to the raiser's
 * own devices alone: whoever else is in the car must see no difference.
 */
import { hostname } from 'node:os';
import { join } from 'node:path';
import type { Redis } from 'ioredis';
import { adminRoles } from '../../contracts/common.ts';
import type { AdminAlert, Alert, AlertStatus } from '../../contracts/sos.ts';
import { pause } from '../../lib/backoff.ts';
import type { RequestContext } from '../../lib/context.ts';
import { defineService } from '../../lib/define-service.ts';
import { AppError } from '../../lib/errors.ts';
import { healthOf } from '../../lib/health.ts';
import type { Caller } from '../../lib/permissions.ts';
import { isPin } from '../../lib/pins.ts';
import { createSosProviders } from '../../lib/providers/sos-providers.ts';
import { closeConnection, commandConnection, isReady } from '../../lib/redis-client.ts';
import { type Sealer, sealerOf } from '../../lib/sealed.ts';
import { cards } from '../../mixins/cards.ts';
import { producer } from '../../mixins/queue.ts';
import { logTrouble, redis, redisTarget } from '../../mixins/redis.ts';
import {
  type AlertRecord,
  adminsView,
  type MessageState,
  queued,
  raisersView,
  viewOf,
} from './alert-record.ts';
import { type AlertStep, isOver } from './alert-state.ts';
import { attempt, claimed, dueNext, messageTo, openContacts } from './contact-messages.ts';
import { type FollowJob, followQueue, jobsOfNew, type ProcessJob, toFollow } from './follow-jobs.ts';
import { Intake } from './intake.ts';
import { Journal, type Waiting } from './journal.ts';
import { lastKnown } from './last-known.ts';
import { type Press, readLocation, readPress } from './read-press.ts';
import { SosRecords } from './records.ts';
import { type Way, waysOf } from './ways.ts';

/** Silence of the SOS Redis that a press waits for, ms; and a replica's, where one is configured. */
const silentMs = 200;
const replicaWithinMs = 150;
/** So many wrong PINs and only the duress PIN is looked at: four digits must not be guessed in a car. */
const maxWrongPins = 10;

const requireCaller = (user: Caller | null | undefined): Caller => {
  if (!user) throw new AppError('UNAUTHENTICATED');
  return user;
};

const sosDoor = { unlimited: true, admits: 'unverified' } as const;
const handlers = ['support', 'operations', 'super-admin'] as const;
/** Nothing may stand before an SOS; in a burst a late answer is better than one that it was not taken, ms. */
const nothingBefore = {
  bulkhead: { enabled: false },
  circuitBreaker: { enabled: false },
  timeout: 30_000,
};

/** What the raiser sees of a press that only the journal has. */
function journaledView({ alertId, drill, tripId, location, acceptedAt }: Press): Alert {
  const at = new Date(acceptedAt).toISOString();
  return {
    alertId,
    status: 'active',
    drill,
    ...(tripId === null ? {} : { tripId }),
    ...(location === null ? {} : { location }),
    acceptedAt: at,
    contacts: [],
    log: [{ at, what: 'raised' }],
  };
}

/** After this a raiser's devices are told the same again, ms. */
const sameAgainMs = 1000;

export default defineService({
  name: 'sos',
  mixins: [
    redis(),
    cards(),
    producer<ProcessJob, 'processing'>({ name: 'sos', redis: 'sos', as: 'processing' }),
    producer<FollowJob, 'following'>(followQueue),
  ],
  state: () => ({
    kept: undefined as
      | { intake: Intake; records: SosRecords; journal: Journal | undefined; connection: Redis }
      | undefined,
    texts: [] as readonly Way[],
    sealer: undefined as Sealer | undefined,
    changes: [] as { alertId: string; userId: string; status: AlertStatus; at: number }[],
    /** What raisers were told within the last second, oldest first. */
    told: new Map<string, { status: AlertStatus; at: number }>(),
  }),

  methods: {
    parts() {
      if (!this.kept) throw new AppError('UNAVAILABLE', { retryAfterS: 1 });
      return this.kept;
    },

    /** An alert of the caller's own; SOS_NOT_FOUND also for others', which are nobody's business. */
    async ownAlert(ctx: RequestContext<{ id: string }>): Promise<AlertRecord> {
      const record = await this.parts().records.read(ctx.params.id);
      if (!record || record.userId !== requireCaller(ctx.meta.user).id) throw new AppError('SOS_NOT_FOUND');
      return record;
    },

    async adminAlert(id: string): Promise<AdminAlert> {
      const { records } = this.parts();
      const record = await records.read(id);
      if (record) return adminsView(record, await records.log(record.alertId));
      const archived = await this.call('sos-worker.archived', { id });
      if (!archived) throw new AppError('SOS_NOT_FOUND');
      return archived;
    },

    /**
     * The raiser's devices are told what the raiser may see. A hint: they ask as well. The same not twice a second: each press would
     * go out to as many devices as there are, and somebody can have very many and press all the time.
     */
    tellRaiser({ alertId, userId }: Pick<AlertRecord, 'alertId' | 'userId'>, status: AlertStatus): void {
      const now = Date.now();
      const last = this.told.get(alertId);
      if (last?.status === status && now - last.at < sameAgainMs) return;
      this.told.delete(alertId);
      this.told.set(alertId, { status, at: now });
      for (const [id, { at }] of this.told) {
        if (now - at < sameAgainMs) break;
        this.told.delete(id);
      }
      // In a burst, those of a turn of the event loop together
      if (this.changes.push({ alertId, userId, status, at: now }) > 1) return;
      setImmediate(() => {
        const changes = this.changes.splice(0);
        this.emit('sos.updated', { changes }).catch((error: unknown) =>
          this.logger.warn('Raisers were not told', { alerts: changes.length, error }),
        );
      });
    },

    async step(
      ctx: RequestContext<{ id: string; note?: string | undefined }>,
      step: AlertStep,
    ): Promise<AdminAlert> {
      const { records } = this.parts();
      const record = await records.read(ctx.params.id);
      if (!record) throw new AppError('SOS_NOT_FOUND');
      const { note } = ctx.params;
      const who = requireCaller(ctx.meta.user).id;
      const outcome = await records.step(record, step, { at: Date.now(), who, ...(note ? { note } : {}) });
      if (outcome === 'missing') throw new AppError('SOS_NOT_FOUND');
      if (outcome !== 'ok') throw new AppError('SOS_WRONG_STATE');
      this.queueSoon(record.alertId);
      const now = await this.adminAlert(record.alertId);
      // After a true cancel there would be nothing to hear
      if (!now.duress) this.tellRaiser(record, now.status);
      return now;
    },

    /** What a step brings with it; the sweep does it otherwise. */
    queueSoon(alertId: string): void {
      this.processing
        .add({ ids: [alertId] })
        .catch((error: unknown) => this.logger.warn('A step waits for the sweep', { alertId, error }));
    },

    /**
     * For an alert that is in the journal alone for too long: texts its contacts from here, with retries, each attempt on the
     * disk before it is made. False when somebody could not be reached.
     */
    async tellContacts(
      { press, sent }: Waiting,
      note: (contact: string, state: MessageState) => Promise<void>,
      signal: AbortSignal,
    ): Promise<boolean> {
      const { alertId, userId, location } = press;
      try {
        const { texts, sealer } = this;
        if (texts.length === 0 || !sealer) throw new Error('Not started');
        // From memory if the SOS Redis is away; else accounts, if that can be reached
        const card =
          (await this.cards.read(userId).catch(() => null)) ??
          (await this.call('accounts.card', { userId }, { timeout: 2000 }));
        const contacts = openContacts(sealer, this.config.hashSecret, card.contacts);
        const told = {
          name: card.name,
          language: card.language,
          status: 'active' as const,
          location,
          link: null,
        };
        const keep = (contact: string, state: MessageState) => {
          sent.set(contact, state);
          // A disk that is full must not keep a message back: twice beats never
          return note(contact, state).catch((error: unknown) =>
            this.logger.error('A message of an SOS is not in the journal', { alertId, error }),
          );
        };
        const outcomes = await Promise.all(
          contacts.map(async (contact) => {
            const known = sent.get(contact.key);
            if (known?.status === 'sent') return true;
            let state = known?.status === 'sending' ? known : queued(contact.name, Date.now(), false);
            const message = messageTo(contact, 'raised', told);
            for (let due = dueNext(texts, state); due; due = dueNext(texts, state)) {
              await pause(due.delayMs, signal);
              if (signal.aborted) return false;
              const way = texts.find(({ name }) => name === due?.channel);
              if (!way) throw new Error(`No provider ${due.channel}`);
              state = claimed(state, way, Date.now(), location);
              await keep(contact.key, state);
              ({ state } = await attempt(texts, message, state, Date.now));
              await keep(contact.key, state);
              if (state.status === 'sent') break;
            }
            this.broker.metrics.increment('sos.messages.total', { outcome: state.status, from: 'door' });
            if (state.status === 'sent') return true;
            this.logger.error('A contact could not be reached from the journal', { alertId });
            return false;
          }),
        );
        return outcomes.every((isTold) => isTold);
      } catch (error) {
        this.broker.metrics.increment('sos.messages.total', { outcome: 'failed', from: 'door' });
        this.logger.error('The contacts of an alert in the journal could not be told', { alertId, error });
        return false;
      }
    },
  },

  actions: {
    trigger: {
      permissions: 'user',
      rest: {
        method: 'POST',
        path: '/sos',
        status: 202,
        unlimited: true,
        admits: 'ever',
        neverRefuses: true,
      },
      ...nothingBefore,
      async handler(ctx) {
        const press = readPress(ctx.params, requireCaller(ctx.meta.user), Date.now());
        const accepted = await this.parts().intake.take(press);
        this.tellRaiser({ alertId: accepted.alertId, userId: press.userId }, accepted.status);
        return { ...accepted, acceptedAt: new Date(accepted.acceptedAt).toISOString() };
      },
    },

    get: {
      permissions: 'user',
      rest: { method: 'GET', path: '/sos/:id', ...sosDoor },
      ...nothingBefore,
      async handler(ctx) {
        const { intake, records } = this.parts();
        const press = intake.waiting(ctx.params.id)?.press;
        const own = press?.userId === requireCaller(ctx.meta.user).id ? press : undefined;
        if (own && intake.silent) return journaledView(own);
        try {
          const record = await this.ownAlert(ctx);
          return raisersView(record, await records.log(record.alertId));
        } catch (error) {
          // The SOS Redis has fallen silent, or lost what no replica had
          if (own) return journaledView(own);
          throw error;
        }
      },
    },

    cancel: {
      permissions: 'user',
      rest: { method: 'POST', path: '/sos/:id/cancel', ...sosDoor },
      ...nothingBefore,
      async handler(ctx) {
        const { records } = this.parts();
        const record = await this.ownAlert(ctx);
        const { alertId, userId } = record;
        if (isOver(viewOf(record))) throw new AppError('SOS_WRONG_STATE');
        const { hashSecret } = this.config;
        const { pin } = ctx.params;
        // Both always, so that the time it takes tells nothing
        const [isTrue, isDuress] = await Promise.all([
          isPin(hashSecret, userId, pin, record.pin),
          isPin(hashSecret, userId, pin, record.duressPin),
        ]);
        const at = Date.now();
        if (isDuress) await records.duress(record, at);
        else if (isTrue && record.wrongPins < maxWrongPins) {
          const outcome = await records.step(record, 'cancel', { at, who: userId });
          if (outcome !== 'ok') throw new AppError('SOS_WRONG_STATE');
        } else {
          await records.wrongPin(alertId, at);
          throw new AppError('WRONG_PIN');
        }
        this.queueSoon(alertId);
        this.tellRaiser(record, 'cancelled');
        return { alertId, status: 'cancelled' as const };
      },
    },

    locate: {
      permissions: 'user',
      rest: { method: 'POST', path: '/sos/:id/locations', unlimited: true, admits: 'ever' },
      ...nothingBefore,
      async handler(ctx) {
        const record = await this.ownAlert(ctx);
        const now = Date.now();
        const read = ctx.params.updates.map((update) => readLocation(update, now));
        const rejected = read.flatMap((fix, index) => (fix ? [] : [{ index, code: 'LOCATION_INVALID' }]));
        const newest = read
          .filter((fix) => fix !== null)
          // A clock that runs ahead must not shut out what comes after it
          .map(({ location, gpsAt }) => ({ location, fixAt: Math.min(gpsAt ?? now, now) }))
          .reduce<{ location: NonNullable<AlertRecord['location']>; fixAt: number } | null>(
            (best, fix) => (best && best.fixAt > fix.fixAt ? best : fix),
            null,
          );
        // The same answer whether it still counts or not: under duress the raiser sees an alert that has ended
        if (newest) await this.parts().records.locate(record, newest.location, newest.fixAt, now);
        return { accepted: read.length - rejected.length, rejected };
      },
    },

    whereabouts: {
      permissions: 'internal',
      async handler(ctx) {
        const record = await this.parts().records.read(ctx.params.id);
        if (!record?.location || isOver(record.status)) return { position: null };
        const { userId, tripId, location, acceptedAt } = record;
        const { lat, lng, accuracy, ageMs } = location;
        const at = record.fixAt ?? acceptedAt - ageMs;
        return {
          position: { userId, tripId, lat, lng, accuracy, speed: null, heading: null, timestamp: at, at },
        };
      },
    },

    list: {
      permissions: adminRoles,
      rest: { method: 'GET', path: '/admin/sos', unlimited: true },
      async handler(ctx) {
        const { records } = this.parts();
        const { status, limit, after } = ctx.params;
        const which = status === undefined || isOver(status) ? 'all' : 'open';
        const alerts: AdminAlert[] = [];
        let cursor = after;
        for (;;) {
          const ids = await records.list(which, cursor, 100);
          for (const record of await records.readMany(ids)) {
            if (record === null || (status !== undefined && record.status !== status)) continue;
            if (alerts.length === limit) return { alerts, next: alerts.at(-1)?.alertId ?? null };
            alerts.push(adminsView(record, await records.log(record.alertId)));
          }
          cursor = ids.at(-1);
          if (cursor === undefined || ids.length < 100) return { alerts, next: null };
        }
      },
    },

    inspect: {
      permissions: adminRoles,
      rest: { method: 'GET', path: '/admin/sos/:id', unlimited: true },
      handler(ctx) {
        return this.adminAlert(ctx.params.id);
      },
    },

    acknowledge: {
      permissions: handlers,
      rest: { method: 'POST', path: '/admin/sos/:id/acknowledge', unlimited: true },
      handler(ctx) {
        return this.step(ctx, 'acknowledge');
      },
    },

    respond: {
      permissions: handlers,
      rest: { method: 'POST', path: '/admin/sos/:id/respond', unlimited: true },
      handler(ctx) {
        return this.step(ctx, 'respond');
      },
    },

    resolve: {
      permissions: handlers,
      rest: { method: 'POST', path: '/admin/sos/:id/resolve', unlimited: true },
      handler(ctx) {
        return this.step(ctx, ctx.params.falseAlarm ? 'false-alarm' : 'resolve');
      },
    },
  },

  async started() {
    const { broker, config, logger } = this;
    const { metrics } = broker;
    metrics.register({
      type: 'counter',
      name: 'sos.intake.total',
      labelNames: ['event', 'how'],
      description: 'Presses by what became of them',
    });
    metrics.register({
      type: 'counter',
      name: 'sos.messages.total',
      labelNames: ['outcome', 'from'],
      description: 'Messages to emergency contacts, by outcome and by who sent them',
    });
    metrics.register({
      type: 'gauge',
      name: 'sos.journal.size',
      description: 'Presses on this machine that the SOS Redis has not confirmed',
    });
    metrics.register({
      type: 'histogram',
      name: 'sos.done.time',
      unit: 'ms',
      quantiles: true,
      description: 'From acceptance until every message of an alert is safely queued',
    });
    this.sealer = sealerOf(config);
    this.texts = waysOf(createSosProviders(config)).texts;
    // Refuses at once what cannot be sent: then the journal takes it
    const target = redisTarget(broker, 'sos');
    const connection = commandConnection(target, { hold: false }) as Redis;
    logTrouble(broker, connection, { redis: 'sos', intake: true });
    const waits = target.replicas > 0 ? replicaWithinMs : 0;
    const directory = join(config.sosJournalDir ?? join(config.dataDir, 'sos-journal'), hostname());
    const journal = await Journal.open(directory, broker.nodeID).catch((error: unknown) => {
      logger.error('There is no journal for SOS: without the SOS Redis alerts would be refused', { error });
      return undefined;
    });
    const follow = toFollow(this.following);
    const intake = new Intake({
      records: new SosRecords(connection, {
        replicas: target.replicas,
        replicaWithinMs: waits,
        withinMs: silentMs + waits,
        alertsPerUser: config.sosAlertsPerUser,
      }),
      journal,
      lastKnown: (tripId) => lastKnown(this.redis, tripId, Date.now()),
      queue: (alerts) =>
        follow(jobsOfNew(alerts, { escalateAfterMs: config.sosEscalateAfterMs, now: Date.now() })),
      copy: (alertIds) => this.processing.add({ ids: alertIds, fresh: true }),
      onDrained: ({ alertId, status }, userId) => this.tellRaiser({ alertId, userId }, status),
      onQueued: (tookMs) => metrics.observe('sos.done.time', tookMs),
      tellContacts: (waiting, note, signal) => this.tellContacts(waiting, note, signal),
      count: (event, how) => {
        metrics.increment('sos.intake.total', { event, how });
        if (event !== 'accepted') metrics.set('sos.journal.size', journal?.waiting.size ?? 0);
      },
      logger,
      now: Date.now,
    });
    this.kept = {
      intake,
      records: new SosRecords(this.sosRedis, { replicas: 0, replicaWithinMs: 0 }),
      journal,
      connection,
    };
    healthOf(broker).add('sosJournal', async () => {
      if (!journal) throw new Error('The journal cannot be written');
    });
    intake.start();
    // Connects now, so that the first press need not; without it the journal takes presses
    if (!(await isReady(connection, silentMs))) logger.warn('SOS starts without its Redis', {});
  },

  async stopped() {
    const { kept } = this;
    this.kept = undefined;
    await kept?.intake.stop();
    await kept?.journal?.close();
    if (kept) closeConnection(kept.connection);
  },
});
