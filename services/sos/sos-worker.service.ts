/**
 * The database's copy of alerts, and the jobs that they need and nobody has queued yet: after each step, and when a door died
 * over it. Role `sos`; needs the SOS Redis, nothing else. Owns the queue {sos} and the alerts in the DB. Any job may run twice: what was done stands
 * in the alert's record.
 */
import type { MetricRegistry } from 'moleculer';
import type { AdminAlert } from '../../contracts/sos.ts';
import { pause } from '../../lib/backoff.ts';
import { defineService } from '../../lib/define-service.ts';
import { isConnectionTrouble } from '../../lib/errors.ts';
import { producer, queue } from '../../mixins/queue.ts';
import { redis } from '../../mixins/redis.ts';
import { store } from '../../mixins/store.ts';
import { type AlertRecord, adminsView, type LogEntry } from './alert-record.ts';
import { type FollowJob, followQueue, type ProcessJob, sosLock, stepTime, toFollow } from './follow-jobs.ts';
import { makeRoom } from './make-room.ts';
import { Planner } from './planner.ts';
import { SosRecords } from './records.ts';

/** An alert in the database: what admins see, kept for good. */
interface ArchivedAlert {
  _id: string;
  version: number;
  userId: string;
  tripId: string | null;
  status: string;
  acceptedAt: string;
  alert: AdminAlert;
  /** As it came, JSON, for those who look into it later: no database takes any key that a client may think of. */
  press: string;
}

function archivedOf(record: AlertRecord, log: readonly LogEntry[]): ArchivedAlert {
  const alert = adminsView(record, log);
  const { alertId, version, userId, tripId, status, press } = record;
  return {
    _id: alertId,
    version,
    userId,
    tripId,
    status,
    acceptedAt: alert.acceptedAt,
    alert,
    press: JSON.stringify(press),
  };
}

const sweepEveryMs = 1000;
/** Unprocessed for so long with an empty queue: its job was never queued, or is lost, ms. */
const overdueMs = 1000;
/** Kept in the SOS Redis after the end, ms; see scripts.ts. */
const keptMs = 8 * 86_400_000;
const projectAtOnce = 500;

interface Parts {
  records: SosRecords;
  planner: Planner;
}

/** What the queue's processor uses of the service. */
interface Inside {
  parts(): Parts;
  project(records: readonly AlertRecord[]): Promise<void>;
}

function registerMetrics(metrics: MetricRegistry): void {
  metrics.register(stepTime);
  metrics.register({
    type: 'counter',
    name: 'sos.swept.total',
    description: 'Alerts that the sweep had to queue',
  });
  metrics.register({
    type: 'gauge',
    name: 'sos.redis.memory.share',
    description: 'Share of its memory (maxmemory) that the SOS Redis uses; 0 when it has no limit',
  });
  metrics.register({
    type: 'counter',
    name: 'sos.room.made.total',
    labelNames: ['what'],
    description:
      'What had to go from the SOS Redis for want of memory: the oldest events, alerts that are over',
  });
}

export default defineService({
  name: 'sos-worker',
  mixins: [
    redis('sos'),
    store<ArchivedAlert>('alerts', [{ fields: ['userId', 'acceptedAt'] }, { fields: ['tripId'] }]),
    queue<ProcessJob, 'processing'>({
      name: 'sos',
      as: 'processing',
      redis: 'sos',
      // Groups of up to 1000: more at once would only take Redis away from who presses now
      concurrency: 2,
      ...sosLock,
      async process({ ids, fresh = false }) {
        const service = this as typeof this & Inside;
        const { planner, records } = service.parts();
        const read = async () => (await records.readMany(ids)).filter((record) => record !== null);
        // What new ones need is queued: all that is left is the copy
        if (fresh) return planner.copy(async () => service.project(await read()));
        const found = await read();
        await planner.process(found, () => service.project(found));
      },
      async onExhausted(job, error) {
        // What was not queued is in the index, what was not copied in its own
        this.logger.error('Alerts wait for the sweep', { alerts: job.data.ids.length, error });
      },
    }),
    producer<FollowJob, 'following'>(followQueue),
  ],
  state: () => ({
    kept: undefined as Parts | undefined,
    sweepers: [] as { timer: NodeJS.Timeout; running: Promise<void> }[],
    stopping: new AbortController(),
  }),

  methods: {
    /** Made at the first use: a job may come before the service has started. */
    parts(): Parts {
      this.kept ??= this.makeParts();
      return this.kept;
    },

    makeParts(): Parts {
      const { broker, config, logger, sosRedis } = this;
      const { metrics } = broker;
      registerMetrics(metrics);
      const records = new SosRecords(sosRedis, { replicas: 0, replicaWithinMs: 0 });
      const planner = new Planner({
        records,
        logger,
        metrics,
        follow: toFollow(this.following),
        escalateAfterMs: config.sosEscalateAfterMs,
        now: Date.now,
      });
      return { records, planner };
    },

    /** The database gets these alerts in their newest form. What it does not take stays in the index. */
    async project(records: readonly AlertRecord[]): Promise<void> {
      const kept = this.parts().records;
      if (records.length === 0) return;
      const logs = await kept.logs(records.map(({ alertId }) => alertId));
      const copies = records.map((record, index) => archivedOf(record, logs[index] ?? []));
      const refused = new Map<string, unknown>();
      try {
        await this.store.replaceNewer(copies);
      } catch (error) {
        if (isConnectionTrouble(error)) throw error;
        // One that the database cannot take must not keep the others out
        for (const copy of copies) {
          try {
            await this.store.replaceNewer([copy]);
          } catch (reason) {
            if (isConnectionTrouble(reason)) throw reason;
            refused.set(copy._id, reason);
          }
        }
      }
      await kept.projected(records.filter(({ alertId }) => !refused.has(alertId)));
      const [first] = refused.values();
      if (refused.size > 0)
        throw new Error(`The database does not take ${[...refused.keys()].join(', ')}`, { cause: first });
    },

    async projectWaiting(): Promise<void> {
      const { records } = this.parts();
      for (let waited = 0; ; ) {
        const began = performance.now();
        const ids = await records.unprojected(projectAtOnce);
        const found = await records.readMany(ids);
        await this.project(found.filter((record) => record !== null));
        if (ids.length < projectAtOnce || this.sweepers.length === 0) return;
        const wait = await records.unprojectedCount();
        // More than before: the SOS Redis and this machine belong to who presses now
        if (wait > waited) await pause(10 * (performance.now() - began), this.stopping.signal);
        waited = wait;
      }
    },

    /** Queues alerts whose job was lost between the answer and the queue. */
    async sweepUnprocessed(): Promise<void> {
      const records = this.parts().records;
      const now = Date.now();
      const ids = await records.unprocessed(now - overdueMs, 1000);
      if (ids.length === 0) return;
      // While jobs wait, theirs may be among them
      const { waiting, active } = await this.processing.counts();
      const lost = waiting + active === 0 ? ids : await records.unprocessed(now - 3 * overdueMs, 1000);
      for (let start = 0; start < lost.length; start += 200) {
        const group = lost.slice(start, start + 200);
        this.broker.metrics.increment('sos.swept.total', {}, group.length);
        await this.processing.add(
          { ids: group },
          { jobId: `sweep:${group[0]}:${Math.floor(now / (2 * overdueMs))}` },
        );
      }
    },

    /** Before the SOS Redis is full, and takes no alerts. */
    async keepRoom(): Promise<void> {
      const { metrics } = this.broker;
      const { share, events, alerts } = await makeRoom(this.sosRedis, this.parts().records, Date.now());
      metrics.set('sos.redis.memory.share', share);
      if (events + alerts === 0) return;
      metrics.increment('sos.room.made.total', { what: 'events' }, events);
      metrics.increment('sos.room.made.total', { what: 'alerts' }, alerts);
      this.logger.warn('The SOS Redis is short of memory: what is only looked at goes', {
        share,
        events,
        alerts,
      });
    },

    async sweepOnce(part: () => Promise<void>): Promise<void> {
      await part().catch((error: unknown) =>
        this.logger.warn('A sweep of alerts failed; it runs again', { error }),
      );
    },

    /** Each part by itself: a database that hangs must not hold up the alerts. */
    sweepParts(): (() => Promise<void>)[] {
      return [
        () => this.sweepUnprocessed(),
        () => this.projectWaiting(),
        () => this.parts().records.forget(Date.now() - keptMs),
        () => this.keepRoom(),
      ];
    },

    sweepLater(index: number, part: () => Promise<void>): void {
      const sweeper = {
        running: Promise.resolve(),
        timer: setTimeout(() => {
          sweeper.running = this.sweepOnce(part);
          void sweeper.running.finally(() => this.sweepers[index] && this.sweepLater(index, part));
        }, sweepEveryMs),
      };
      this.sweepers[index] = sweeper;
    },
  },

  actions: {
    archived: {
      permissions: 'internal',
      async handler(ctx) {
        return (await this.store.get(ctx.params.id))?.alert ?? null;
      },
    },
    sweep: {
      permissions: 'internal',
      async handler() {
        await Promise.all(this.sweepParts().map((part) => this.sweepOnce(part)));
        return null;
      },
    },
  },

  async started() {
    this.parts();
    for (const [index, part] of this.sweepParts().entries()) this.sweepLater(index, part);
  },

  async stopped() {
    this.stopping.abort();
    const sweepers = this.sweepers.splice(0);
    for (const { timer } of sweepers) clearTimeout(timer);
    await Promise.all(sweepers.map(({ running }) => running));
    await this.kept?.planner.settled();
  },
});
