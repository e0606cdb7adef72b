/**
 * The delivery log: what became of each notification, attempt by attempt, in the database, behind the records in Redis, which are the
 * truth while it is under way. Holds no number, no address and no text. Role `notify`.
 */
import { adminRoles } from '../../contracts/common.ts';
import type { LoggedNotification } from '../../contracts/notify.ts';
import { defineService } from '../../lib/define-service.ts';
import { AppError } from '../../lib/errors.ts';
import { redis } from '../../mixins/redis.ts';
import { store } from '../../mixins/store.ts';
import { isEnded, type Notification } from './notification.ts';
import { NotificationRecords } from './records.ts';

interface Entry {
  _id: string;
  version: number;
  userId: string | null;
  entry: LoggedNotification;
  /** The database takes it away then. */
  goneAt: Date;
}

const keptDays = 90;
const writeEveryMs = 500;
/** Most notifications have come far in that time: one write for each is enough, ms. */
const settleMs = 1000;
const atOnce = 500;

const isoOf = (ms: number): string => new Date(ms).toISOString();

/** What may be read of a notification. */
export function loggedOf({ id, request, progress }: Notification): LoggedNotification {
  const { template, lane, userId, createdAt, expiresAt } = request;
  const { status, reason = null, wait, attempts, endedAt } = progress;
  const waits = isEnded(progress) ? undefined : wait;
  return {
    id,
    template,
    priority: lane,
    userId,
    status,
    reason,
    waitsFor: waits?.why ?? null,
    waitsUntil: waits ? isoOf(waits.until) : null,
    attempts: attempts.map(({ channel, provider, state, code, at, changedAt }) => ({
      channel,
      provider,
      state,
      ...(code === undefined ? {} : { code }),
      at: isoOf(at),
      changedAt: isoOf(changedAt),
    })),
    createdAt: isoOf(createdAt),
    expiresAt: isoOf(expiresAt),
    endedAt: endedAt === undefined ? null : isoOf(endedAt),
  };
}

export default defineService({
  name: 'notify-log',
  mixins: [
    redis(),
    store<Entry>('notifications', [{ fields: ['userId'] }, { fields: ['goneAt'], expires: true }]),
  ],
  state: () => ({
    kept: undefined as NotificationRecords | undefined,
    writer: undefined as { timer: NodeJS.Timeout; running: Promise<void> } | undefined,
  }),

  methods: {
    records(): NotificationRecords {
      this.kept ??= new NotificationRecords(this.redis);
      return this.kept;
    },

    /** The database gets what has changed. What it does not take stays in the index, for as long as it takes. */
    async write(): Promise<void> {
      const records = this.records();
      for (;;) {
        const ids = await records.unlogged(Date.now() - settleMs, atOnce);
        const found = (await records.readMany(ids)).filter((notification) => notification !== null);
        await this.store.replaceNewer(
          found.map((notification) => ({
            _id: notification.id,
            version: notification.version,
            userId: notification.request.userId,
            entry: loggedOf(notification),
            goneAt: new Date(notification.request.createdAt + keptDays * 86_400_000),
          })),
        );
        const versions = new Map(found.map(({ id, version }) => [id, version]));
        await records.logged(ids.map((id) => ({ id, version: versions.get(id) ?? 0 })));
        if (ids.length < atOnce || !this.writer) return;
      }
    },

    writeLater(): void {
      const writer = {
        running: Promise.resolve(),
        timer: setTimeout(() => {
          writer.running = this.write().catch((error: unknown) =>
            this.logger.warn('The delivery log waits for the database', { error }),
          );
          void writer.running.finally(() => this.writer && this.writeLater());
        }, writeEveryMs),
      };
      this.writer = writer;
    },
  },

  actions: {
    get: {
      permissions: adminRoles,
      rest: { method: 'GET', path: '/admin/notifications/:id' },
      async handler(ctx) {
        const { id } = ctx.params;
        const current = await this.records().read(id);
        if (current) return loggedOf(current);
        const entry = (await this.store.get(id, { stale: true }))?.entry;
        if (!entry) throw new AppError('NOTIFICATION_NOT_FOUND');
        return entry;
      },
    },
  },

  async started() {
    this.writeLater();
  },

  async stopped() {
    const { writer } = this;
    this.writer = undefined;
    clearTimeout(writer?.timer);
    await writer?.running;
  },
});
