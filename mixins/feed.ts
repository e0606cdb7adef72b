import type { Redis, Result } from 'ioredis';
import type { Service } from 'moleculer';
import type { FeedEvent } from '../contracts/feed.ts';
import { brokerConfig } from '../lib/broker-config.ts';
import type { Mixin } from '../lib/define-service.ts';
import { AppError, publicError } from '../lib/errors.ts';
import { feedKeys, feedMaxLength } from '../lib/feed-stream.ts';
import { replicated } from '../lib/replicated.ts';
import { redis } from './redis.ts';
import type { Collection } from './store.ts';

/** A record that carries its events until the feed has them: written in the same write as what happened. */
export interface WithPending {
  _id: string;
  /** Counts the record's events; the last one's `version`. */
  version: number;
  pending: FeedEvent[];
  /** For the sweep: true while `pending` is not empty. */
  hasPending: boolean;
}

/**
 * The feed knows for so long what it has of an entity, ms: longer than a record can keep events that the feed has already. (Only a
 * database that is away takes none off a record; what it had last would then be told twice.)
 */
const versionKeptMs = 2 * 86_400_000;

/**
 * Appends what is newer than the entity's last version, oldest first. Twice is once, late never reorders.
 * KEYS: stream, version of the entity. ARGV: version, kind, at, data for each event.
 */
const appendScript = `
local last = tonumber(redis.call('GET', KEYS[2]) or '0')
local appended = 0
for i = 1, #ARGV, 4 do
  local version = tonumber(ARGV[i])
  if version > last then
    redis.call('XADD', KEYS[1], 'MAXLEN', '~', ${feedMaxLength}, '*', 'kind', ARGV[i + 1], 'at', ARGV[i + 2], 'data', ARGV[i + 3])
    last = version
    appended = appended + 1
  end
end
if appended > 0 then redis.call('SET', KEYS[2], last, 'PX', ${versionKeptMs}) end
return appended`;

declare module 'ioredis' {
  interface RedisCommander<Context> {
    appendToFeed(...args: (string | number)[]): Result<number, Context>;
  }
}

const defined = new WeakSet<Redis>();

function defineAppend(connection: Redis): void {
  if (defined.has(connection)) return;
  defined.add(connection);
  connection.defineCommand('appendToFeed', { numberOfKeys: 2, lua: appendScript });
}

interface FeedFields {
  /**
   * Appends the pending events of a record to the admin feed and takes them off the record. A failure is logged and
   * left to the sweep: the events are safe with the record.
   */
  publishPending(id: string): Promise<void>;
}

interface Inside {
  sosRedis: Redis;
  store: Collection<WithPending>;
}

/** `this.publishPending(id)` for a service with a store whose records are `WithPending`, and a sweep for what a crash left. */
export function feed(): Mixin<FeedFields> {
  const sweeps = new WeakMap<Service, { timer: NodeJS.Timeout; running: Promise<void> }>();

  async function publish(service: Service & Inside, id: string): Promise<void> {
    const record = await service.store.get(id);
    if (!record || record.pending.length === 0) return;
    const args = record.pending.flatMap((event) => [
      event.version,
      event.kind,
      event.at,
      JSON.stringify(event.data),
    ]);
    const { kept } = await replicated(service.sosRedis, feedKeys.stream, (primary) => {
      // A connection of its own does not have the script yet
      defineAppend(primary);
      return primary.appendToFeed(feedKeys.stream, feedKeys.version(id), ...args);
    });
    // Only the primary has them: the record keeps them until a replica does
    if (!kept) throw new AppError('UNAVAILABLE', { retryAfterS: 2 });
    // Only if no further event joined meanwhile: then the next publish takes all of them off
    await service.store.update(
      { _id: id, version: record.version },
      { $set: { pending: [], hasPending: false } },
    );
  }

  async function sweep(service: Service & Inside): Promise<void> {
    const left = await service.store.find({ hasPending: true }, { limit: 500, fields: [], stale: true });
    for (const { _id } of left) {
      try {
        await publish(service, _id);
      } catch (error) {
        if (publicError(error).code === 'UNAVAILABLE') throw error;
        // One that fails by itself must not hold up those behind it
        service.logger.warn('The feed cannot take what happened to a record', { id: _id, error });
      }
    }
  }

  return {
    mixins: [redis('sos')],
    async started(this: Service & Inside & Partial<FeedFields>) {
      this.publishPending = (id) =>
        publish(this, id).catch((error: unknown) =>
          this.logger.warn('The feed has to wait for the sweep', { id, error }),
        );
      const again = () => {
        const next = {
          running: Promise.resolve(),
          timer: setTimeout(() => {
            next.running = sweep(this)
              .catch((error: unknown) => this.logger.warn('The feed sweep failed; it runs again', { error }))
              .finally(() => sweeps.has(this) && again());
          }, brokerConfig(this.broker).feedSweepEveryMs),
        };
        sweeps.set(this, next);
      };
      again();
    },
    async stopped(this: Service) {
      const last = sweeps.get(this);
      sweeps.delete(this);
      clearTimeout(last?.timer);
      await last?.running;
    },
  };
}
