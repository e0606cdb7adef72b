/**
 * Sends messages to people: push, WhatsApp, SMS, email. Owns notifications while they are under way ({notify} keys), their queues, and the
 * addresses that must not be written to (DB). Feeds the admin stream. Never logs what a message says or to whom it goes.
 */
import type { z } from 'zod';
import type { notify } from '../../contracts/notify.ts';
import type { Mixin } from '../../lib/define-service.ts';
import { defineService } from '../../lib/define-service.ts';
import { AppError } from '../../lib/errors.ts';
import { keyedHash } from '../../lib/pins.ts';
import { createMessageProviders } from '../../lib/providers/index.ts';
import { sealerOf } from '../../lib/sealed.ts';
import { newestTemplate, render } from '../../lib/templates/index.ts';
import { type Jobs, queue } from '../../mixins/queue.ts';
import { redis } from '../../mixins/redis.ts';
import { store } from '../../mixins/store.ts';
import { DeliveryRates, rateRules } from './delivery-rate.ts';
import { type LaneJob, LaneQueues } from './lane-queues.ts';
import { begun, type Contents, type Lane, type Request } from './notification.ts';
import { ProviderHealth } from './provider-health.ts';
import { timeOfDay } from './quiet-hours.ts';
import { suppressionId } from './recipients.ts';
import { leaseMs, NotificationRecords } from './records.ts';
import { registerMetrics } from './report.ts';
import { Sender } from './sender.ts';
import { Slots } from './turns.ts';

type Sending = z.input<typeof notify.actions.send.params>;

/** An address that must not be written to, under a keyed hash of it. */
interface Suppression {
  _id: string;
  /** ms: of two changes the later one holds. */
  version: number;
  /** False: its owner wants to hear from us again. */
  active: boolean;
  reason: 'opt-out' | 'bounce' | 'complaint';
}

interface Parts {
  records: NotificationRecords;
  queues: LaneQueues;
  sender: Sender;
  rates: DeliveryRates;
}

/** R4.1: workers of each queue in each process; each has the messages of a job under way at once. */
const workers = 8;
/** Sign-in codes under way at once, beside everything else. */
const otpInFlight = 64;
const sweepEveryMs = 200;
const sweptAtOnce = 1000;

/** A queue of its own for each lane: Bull's priorities would walk the backlog with each job. */
const laneQueue = <As extends string>(lane: Lane, as: As): Mixin<{ [K in As]: Jobs<LaneJob> }> =>
  queue<LaneJob, As>({
    name: `notify-${lane}`,
    as,
    concurrency: workers,
    lockMs: 5000,
    stalledMs: 1000,
    async process({ ids }) {
      await (this as typeof this & { parts(): Parts }).parts().sender.process(ids);
    },
    async onExhausted(job, error) {
      // Each of them is due again by itself
      this.logger.warn('Notifications come up again later', { lane, count: job.data.ids.length, error });
    },
  });

export default defineService({
  name: 'notify',
  mixins: [
    redis(),
    redis('sos'),
    store<Suppression>('suppressions'),
    laneQueue('otp', 'otpQueue'),
    laneQueue('high', 'highQueue'),
    laneQueue('normal', 'normalQueue'),
    laneQueue('low', 'lowQueue'),
  ],
  state: () => ({
    kept: undefined as Parts | undefined,
    sweeper: undefined as { timer: NodeJS.Timeout; running: Promise<void> } | undefined,
    queueing: new Set<Promise<void>>(),
  }),

  methods: {
    /** Made at the first use: a job may come before the service has started. */
    parts(): Parts {
      this.kept ??= this.makeParts();
      return this.kept;
    },

    makeParts(): Parts {
      const { broker, config, logger, redis: mainRedis, sosRedis } = this;
      const { metrics } = broker;
      registerMetrics(metrics);
      const records = new NotificationRecords(mainRedis);
      const rates = new DeliveryRates({
        redis: mainRedis,
        sosRedis,
        windowMs: config.notifyDegradedWindowMs,
        rules: rateRules(config.notifyDegradedBelow),
        now: Date.now,
        onRate: (way, rate) => metrics.set('notify.delivery.rate', rate, { ...way }),
        onTrouble: (error) => logger.warn('Delivery rates could not be judged; it is tried again', { error }),
      });
      const sender = new Sender({
        records,
        providers: createMessageProviders(config),
        health: new ProviderHealth({ perSecond: config.notifyPerSecond, logger }),
        sealer: sealerOf(config),
        logger,
        metrics,
        reporting: { metrics, logger, rates },
        slots: { otp: new Slots(otpInFlight), others: new Slots(config.notifyInFlight) },
        pushAckMs: config.notifyPushAckMs,
        receiptAfterMs: config.notifyReceiptAfterMs,
        hashSecret: config.hashSecret,
        now: Date.now,
        peopleOf: async (userIds) =>
          (await this.call('accounts.recipients', { userIds }, { timeout: 2000 })).recipients,
        closed: async (ids) => {
          const found = await this.store.find({ _id: { $in: ids }, active: true }, { fields: [] });
          return new Set(found.map(({ _id }) => _id));
        },
        dropPushToken: async (userId, token) => {
          await this.call('accounts.dropPushToken', { userId, token }, { timeout: 2000 });
        },
      });
      const queues = new LaneQueues({
        otp: this.otpQueue,
        high: this.highQueue,
        normal: this.normalQueue,
        low: this.lowQueue,
      });
      return { records, queues, sender, rates };
    },

    /** Queues a notification that is kept: without that it comes up by itself a little later. */
    bringOn(lane: Lane, id: string): void {
      const queued = this.parts()
        .queues.add(lane, id)
        .catch((error: unknown) =>
          this.logger.warn('A notification has to wait for the sweep', { notificationId: id, error }),
        )
        .finally(() => this.queueing.delete(queued));
      this.queueing.add(queued);
    },

    /** Keeps a notification, and queues it if its time has come; its id. */
    async keep(sending: Sending): Promise<string> {
      const { to, data = {}, priority = 'normal', idempotencyKey, expiresInMs, sendAt, channels } = sending;
      const template = newestTemplate(sending.template);
      checkChannels(to, channels);
      checkTexts(template, to, data);
      const id = `ntf_${keyedHash(this.config.hashSecret, idempotencyKey).slice(0, 32)}`;
      const lane: Lane = sending.template === 'otp' ? 'otp' : priority;
      const now = Date.now();
      const contents: Contents = { ...('userId' in to ? {} : to), data };
      const request: Request = {
        template,
        lane,
        userId: 'userId' in to ? to.userId : null,
        channels: channels ?? null,
        createdAt: now,
        expiresAt: now + expiresInMs,
        sendAt: sendAt ?? null,
      };
      const isLater = sendAt !== undefined && sendAt > now;
      await this.parts().records.create({
        id,
        request,
        sealed: sealerOf(this.config).seal(JSON.stringify(contents)),
        progress: begun,
        dueAt: isLater ? sendAt : now + leaseMs(lane),
      });
      if (!isLater) this.bringOn(lane, id);
      return id;
    },

    /** Tells the rider of a trip; the event is a hint, and twice is once. */
    async tellRider(
      event: { tripId: string; riderId: string },
      template: 'trip-accepted' | 'trip-ended' | 'trip-cancelled',
      data: Record<string, string> = {},
    ): Promise<void> {
      await this.keep({
        to: { userId: event.riderId },
        template,
        data,
        priority: template === 'trip-ended' ? 'low' : 'normal',
        idempotencyKey: `${template}:${event.tripId}`,
        expiresInMs: 3_600_000,
      });
    },

    async sweep(): Promise<void> {
      const { records } = this.parts();
      for (;;) {
        const due = await records.takeDue(Date.now(), sweptAtOnce);
        for (const { id, lane } of due) this.bringOn(lane, id);
        for (const [lane, some] of Map.groupBy(due, (one) => one.lane))
          this.broker.metrics.increment('notify.swept.total', { lane }, some.length);
        if (due.length < sweptAtOnce) return;
      }
    },

    sweepLater(): void {
      const sweeper = {
        running: Promise.resolve(),
        timer: setTimeout(() => {
          sweeper.running = this.sweep().catch((error: unknown) =>
            this.logger.warn('A sweep of notifications failed; it runs again', { error }),
          );
          void sweeper.running.finally(() => this.sweeper && this.sweepLater());
        }, sweepEveryMs),
      };
      this.sweeper = sweeper;
    },

    async suppress(id: string, active: boolean, reason: Suppression['reason']): Promise<void> {
      await this.store.replaceNewer([{ _id: id, version: Date.now(), active, reason }]);
    },
  },

  actions: {
    send: {
      permissions: 'internal',
      async handler(ctx) {
        return { notificationId: await this.keep(ctx.params) };
      },
    },

    receipts: {
      permissions: 'internal',
      async handler(ctx) {
        const { records, sender } = this.parts();
        const { receipts } = ctx.params;
        const owners = await records.ownersOf(receipts);
        const known = receipts.flatMap((receipt, index) => {
          const id = owners[index] ?? null;
          const { provider } = receipt;
          this.broker.metrics.increment('notify.receipts.total', { provider, found: String(id !== null) });
          return id === null ? [] : [{ id, receipt }];
        });
        // A thousand may come at once: only those of one notification go one after the other
        await Promise.all(
          [...Map.groupBy(known, ({ id }) => id)].map(async ([id, ofOne]) => {
            for (const { receipt } of ofOne) {
              const { provider, providerMessageId, state, code } = receipt;
              const lane = await sender.receipt(id, { provider, providerMessageId, state, code });
              if (lane) this.bringOn(lane, id);
            }
          }),
        );
        return null;
      },
    },

    ack: {
      permissions: 'user',
      rest: { method: 'POST', path: '/notifications/:id/ack' },
      async handler(ctx) {
        if (!ctx.meta.user) throw new AppError('UNAUTHENTICATED');
        const isKnown = await this.parts().sender.acknowledge(ctx.params.id, ctx.meta.user.id);
        if (!isKnown) throw new AppError('NOTIFICATION_NOT_FOUND');
        return null;
      },
    },

    optOut: {
      permissions: 'internal',
      async handler(ctx) {
        const { channel, phone, optedOut } = ctx.params;
        await this.suppress(suppressionId(this.config.hashSecret, channel, phone), optedOut, 'opt-out');
        return null;
      },
    },

    suppress: {
      permissions: 'internal',
      async handler(ctx) {
        const { email, reason } = ctx.params;
        await this.suppress(suppressionId(this.config.hashSecret, 'email', email), true, reason);
        return null;
      },
    },
  },

  events: {
    'trip.accepted': {
      async handler({ params }) {
        const { recipients } = await this.call('accounts.recipients', { userIds: [params.driverId] });
        const [driver] = recipients;
        await this.tellRider(params, 'trip-accepted', {
          driver: driver?.name ?? '',
          vehicle: driver?.vehicle?.model ?? '',
          plate: driver?.vehicle?.plate ?? '',
        });
      },
    },
    'trip.ended': {
      handler({ params }) {
        return this.tellRider(params, 'trip-ended');
      },
    },
    'trip.cancelled': {
      handler({ params }) {
        return this.tellRider(params, 'trip-cancelled');
      },
    },
    /** Besides the rider's sockets, for a phone whose app is asleep. Nobody else's. */
    'safety.asked': {
      async handler({ params: { userId, tripId, kind, answerBy } }) {
        const expiresInMs = answerBy - Date.now();
        if (expiresInMs <= 0) return;
        const { recipients } = await this.call('accounts.recipients', { userIds: [userId] });
        const timeZone = recipients[0]?.preferences.timeZone ?? 'UTC';
        await this.keep({
          to: { userId },
          template: 'safety-check',
          data: { answerBy: timeOfDay(answerBy, timeZone) },
          priority: 'high',
          idempotencyKey: `safety-check:${tripId}:${kind}:${answerBy}`,
          expiresInMs,
        });
      },
    },
  },

  async started() {
    this.parts().rates.start();
    this.sweepLater();
  },

  async stopped() {
    const { sweeper } = this;
    this.sweeper = undefined;
    clearTimeout(sweeper?.timer);
    await sweeper?.running;
    await Promise.all(this.queueing);
    await this.kept?.rates.stop();
  },
});

/** An address has the channels of its kind. @throws VALIDATION */
function checkChannels(to: Sending['to'], channels: Sending['channels']): void {
  if ('userId' in to || !channels) return;
  const fitting = 'phone' in to ? ['sms', 'whatsapp'] : ['email'];
  if (!channels.every((channel) => fitting.includes(channel)))
    throw new AppError('VALIDATION', {
      fields: [{ path: 'channels', message: 'must be ways to this address' }],
    });
}

/** Refuses at the door what could not be made into a message later. @throws TEMPLATE_… */
function checkTexts(template: string, to: Sending['to'], data: Record<string, string>): void {
  const channel = 'email' in to ? 'email' : 'sms';
  render({ template, channel, language: 'en', data });
  if ('userId' in to) render({ template, channel, language: 'hi', data });
}
