/**
 * Notifications under way, in the main Redis, all in the slot of {notify}. A hash each: `request` (JSON), `lane`, `sealed`, `progress` (JSON),
 * `version`. `{notify}:due`: when somebody has to look at each that has not ended, ms; it is the schedule, and the net below
 * the queues. `{notify}:unlogged`: which of them the delivery log does not have yet, since when. `{notify}:message:…`: a
 * provider's message id → ours; `{notify}:early:…`: receipts that came before it. `{notify}:dead`: what could not be delivered.
 */
import type { ChainableCommander, Redis, Result } from 'ioredis';
import { AppError } from '../../lib/errors.ts';
import { GroupCommit } from '../../lib/group-commit.ts';
import type { RedisConnection } from '../../lib/redis-client.ts';
import { replicated } from '../../lib/replicated.ts';
import type { Lane, Notification, Progress, Receipt, Request } from './notification.ts';
import { isEnded } from './notification.ts';

const keys = {
  due: '{notify}:due',
  unlogged: '{notify}:unlogged',
  dead: '{notify}:dead',
  record: (id: string) => `{notify}:record:${id}`,
};

/** A key is one notification for so long after its end, ms; and late receipts find it. */
const keptMs = 86_400_000;
/** A receipt waits so long for what it is about, ms. */
const earlyForMs = 3_600_000;
/** Messages are known by their provider's id for so long, ms: receipts may come days later, but change nothing then. */
const messageForMs = 2 * 86_400_000;
const deadKept = 10_000;
const tries = 20;
/**
 * So long a notification that is queued may lie there, ms; then it is queued again. Twice in a queue is harmless: the record says what
 * is to be done.
 */
export const leaseMs = (lane: Lane): number => (lane === 'otp' || lane === 'high' ? 3000 : 15_000);

/** ARGV: now, then for each: id, request, lane, sealed, progress, when it is due. What is there already stays as it is. */
const createScript = `
for i = 2, #ARGV, 6 do
  local id, key = ARGV[i], '{notify}:record:' .. ARGV[i]
  if redis.call('EXISTS', key) == 0 then
    redis.call('HSET', key, 'request', ARGV[i + 1], 'lane', ARGV[i + 2], 'sealed', ARGV[i + 3], 'progress', ARGV[i + 4], 'version', 1)
    redis.call('ZADD', KEYS[1], ARGV[i + 5], id)
    redis.call('ZADD', KEYS[2], 'NX', ARGV[1], id)
  end
end
return 1`;

/**
 * ARGV: id, progress as it was read, the new one, when it is due (empty: it has ended), now, dead letter (empty: none), then provider and
 * message id of what was just taken (or nothing). Answers {1, early receipts …} or, when it is another by now, {0}.
 */
const swapScript = `
local key = '{notify}:record:' .. ARGV[1]
if redis.call('HGET', key, 'progress') ~= ARGV[2] then return {0} end
redis.call('HSET', key, 'progress', ARGV[3])
redis.call('HINCRBY', key, 'version', 1)
if ARGV[4] == '' then
  redis.call('HDEL', key, 'sealed')
  redis.call('ZREM', KEYS[1], ARGV[1])
  redis.call('PEXPIRE', key, ${keptMs})
else
  redis.call('ZADD', KEYS[1], ARGV[4], ARGV[1])
end
redis.call('ZADD', KEYS[2], 'NX', ARGV[5], ARGV[1])
if ARGV[6] ~= '' then
  redis.call('LPUSH', KEYS[3], ARGV[6])
  redis.call('LTRIM', KEYS[3], 0, ${deadKept - 1})
end
local answer = {1}
if ARGV[7] then
  local message = ARGV[7] .. ':' .. ARGV[8]
  redis.call('SET', '{notify}:message:' .. message, ARGV[1], 'PX', ${messageForMs})
  for _, receipt in ipairs(redis.call('LRANGE', '{notify}:early:' .. message, 0, -1)) do answer[#answer + 1] = receipt end
end
return answer`;

/** ARGV: now, lease of what is urgent and of the rest (ms), most. Answers id and lane of those that are due; each is due again after the lease. */
const takeDueScript = `
local found = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], 0, ARGV[1], 'LIMIT', 0, ARGV[4])) do
  local lane = redis.call('HGET', '{notify}:record:' .. id, 'lane')
  if lane then
    local lease = (lane == 'otp' or lane == 'high') and ARGV[2] or ARGV[3]
    redis.call('ZADD', KEYS[1], ARGV[1] + lease, id)
    found[#found + 1] = id
    found[#found + 1] = lane
  else
    redis.call('ZREM', KEYS[1], id)
  end
end
return found`;

/**
 * ARGV: for each receipt its provider, message id, the notification it names (or empty) and itself as JSON. Answers for each the
 * notification it is about, or empty; then it is kept until the message is recorded.
 */
const receiptsScript = `
local found = {}
for i = 1, #ARGV, 4 do
  local message = ARGV[i] .. ':' .. ARGV[i + 1]
  local id = redis.call('GET', '{notify}:message:' .. message)
  if not id then
    local early = '{notify}:early:' .. message
    if redis.call('LLEN', early) < 20 then redis.call('RPUSH', early, ARGV[i + 3]) end
    redis.call('PEXPIRE', early, ${earlyForMs})
    if ARGV[i + 2] ~= '' and redis.call('EXISTS', '{notify}:record:' .. ARGV[i + 2]) == 1 then id = ARGV[i + 2] end
  end
  found[#found + 1] = id or ''
end
return found`;

/** ARGV: id and version as they are in the log now. */
const loggedScript = `
for i = 1, #ARGV, 2 do
  local version = redis.call('HGET', '{notify}:record:' .. ARGV[i], 'version')
  if not version or version == ARGV[i + 1] then redis.call('ZREM', KEYS[1], ARGV[i]) end
end
return 1`;

declare module 'ioredis' {
  interface RedisCommander<Context> {
    notifyCreate(...args: (string | number)[]): Result<number, Context>;
    notifySwap(...args: (string | number)[]): Result<[number, ...string[]], Context>;
    notifyTakeDue(...args: (string | number)[]): Result<string[], Context>;
    notifyReceipts(...args: (string | number)[]): Result<string[], Context>;
    notifyLogged(...args: (string | number)[]): Result<number, Context>;
  }
}

const scripts: [name: string, numberOfKeys: number, lua: string][] = [
  ['notifyCreate', 2, createScript],
  ['notifySwap', 3, swapScript],
  ['notifyTakeDue', 1, takeDueScript],
  ['notifyReceipts', 1, receiptsScript],
  ['notifyLogged', 1, loggedScript],
];
const defined = new WeakSet<RedisConnection>();

function withScripts<C extends RedisConnection>(connection: C): C {
  if (!defined.has(connection)) {
    defined.add(connection);
    for (const [name, numberOfKeys, lua] of scripts) connection.defineCommand(name, { numberOfKeys, lua });
  }
  return connection;
}

/** What came of a change. `early`: receipts that had waited for the message that was taken. */
export interface Changed {
  before: Progress;
  notification: Notification;
  /** This call made the change. */
  changed: boolean;
  early: Receipt[];
}

/** What is to be kept of a new notification. */
export interface Created {
  id: string;
  request: Request;
  sealed: string;
  progress: Progress;
  dueAt: number;
}

function parse(id: string, [request, sealed, progress, version]: (string | null)[]): Notification | null {
  if (!request || !progress) return null;
  return {
    id,
    // Written by this file alone
    request: JSON.parse(request) as Request,
    progress: JSON.parse(progress) as Progress,
    sealed: sealed ?? null,
    version: Number(version),
  };
}

/** Each method is one script or one pipeline; errors are Redis'. */
export class NotificationRecords {
  readonly #redis: RedisConnection;
  readonly #creates: GroupCommit<Created, true>;

  constructor(redis: RedisConnection) {
    this.#redis = withScripts(redis);
    this.#creates = new GroupCommit({
      maxSize: 200,
      maxUnderWay: 2,
      commit: async (items) => {
        const args = items.flatMap(({ id, request, sealed, progress, dueAt }) => [
          id,
          JSON.stringify(request),
          request.lane,
          sealed,
          JSON.stringify(progress),
          dueAt,
        ]);
        const { kept } = await replicated(redis, keys.due, (primary: Redis) =>
          withScripts(primary).notifyCreate(keys.due, keys.unlogged, Date.now(), ...args),
        );
        if (!kept) throw new AppError('UNAVAILABLE', { retryAfterS: 2 });
        return items.map(() => true);
      },
    });
  }

  /** Resolves when it is kept, on a replica too where there is one; one of the same id that is there stays as it is. */
  async create(created: Created): Promise<void> {
    await this.#creates.add(created);
  }

  async read(id: string): Promise<Notification | null> {
    return (await this.readMany([id]))[0] ?? null;
  }

  async readMany(ids: readonly string[]): Promise<(Notification | null)[]> {
    if (ids.length === 0) return [];
    // All in one slot: one pipeline, on a Cluster too
    const pipeline: ChainableCommander = this.#redis.pipeline();
    for (const id of ids) pipeline.hmget(keys.record(id), 'request', 'sealed', 'progress', 'version');
    const results = (await pipeline.exec()) ?? [];
    return ids.map((id, index) => {
      const [error, fields] = results[index] ?? [new Error('The pipeline was not run')];
      if (error) throw error;
      return parse(id, fields as (string | null)[]);
    });
  }

  /**
   * Moves a notification by `change`, which answers the same object for no change, and says when it is due then. Tried again when
   * another was faster.
   */
  async change(
    found: Notification,
    now: number,
    change: (progress: Progress) => Progress,
    options: {
      dueAt: (progress: Progress) => number;
      dead?: (progress: Progress) => object | null;
      taken?: { provider: string; messageId: string };
      /** Another that was faster ends it. */
      once?: boolean;
    },
  ): Promise<Changed> {
    let notification = found;
    for (let attempt = 0; attempt < tries; attempt++) {
      const progress = change(notification.progress);
      const { taken, dead } = options;
      if (progress === notification.progress && !taken)
        return { before: progress, notification, changed: false, early: [] };
      const letter = dead?.(progress);
      const [swapped, ...early] = await this.#redis.notifySwap(
        keys.due,
        keys.unlogged,
        keys.dead,
        notification.id,
        JSON.stringify(notification.progress),
        JSON.stringify(progress),
        isEnded(progress) ? '' : Math.round(options.dueAt(progress)),
        now,
        letter ? JSON.stringify(letter) : '',
        ...(taken ? [taken.provider, taken.messageId] : []),
      );
      if (swapped === 1) {
        const after = { ...notification, progress, version: notification.version + 1 };
        return {
          before: notification.progress,
          notification: after,
          changed: true,
          early: early.map((json) => JSON.parse(json) as Receipt),
        };
      }
      const newer = await this.read(notification.id);
      if (!newer || options.once) {
        const { progress: before } = newer ?? notification;
        return { before, notification: newer ?? notification, changed: false, early: [] };
      }
      notification = newer;
    }
    throw new AppError('UNAVAILABLE', { retryAfterS: 1 });
  }

  /** Those that somebody has to look at now; they are due again after the lease. */
  async takeDue(now: number, most: number): Promise<{ id: string; lane: Lane }[]> {
    const found = await this.#redis.notifyTakeDue(keys.due, now, leaseMs('high'), leaseMs('low'), most);
    const taken: { id: string; lane: Lane }[] = [];
    for (let i = 0; i + 1 < found.length; i += 2)
      taken.push({ id: found[i] ?? '', lane: found[i + 1] as Lane });
    return taken;
  }

  /** Whose these receipts are, in their order; null: of nothing that is known yet, then they are kept for it. */
  async ownersOf(
    receipts: readonly (Receipt & { notificationId?: string | undefined })[],
  ): Promise<(string | null)[]> {
    if (receipts.length === 0) return [];
    const args = receipts.flatMap(({ notificationId = '', ...receipt }) => [
      receipt.provider,
      receipt.providerMessageId,
      notificationId,
      JSON.stringify(receipt),
    ]);
    const { value, kept } = await replicated(this.#redis, keys.due, (primary: Redis) =>
      withScripts(primary).notifyReceipts(keys.due, ...args),
    );
    if (!kept) throw new AppError('UNAVAILABLE', { retryAfterS: 2 });
    return value.map((id) => id || null);
  }

  /** What the delivery log does not have, changed at `until` (ms) or before; the oldest first. */
  unlogged(until: number, limit: number): Promise<string[]> {
    return this.#redis.zrangebyscore(keys.unlogged, 0, until, 'LIMIT', 0, limit);
  }

  /** The log has these in these versions. */
  async logged(versions: readonly { id: string; version: number }[]): Promise<void> {
    if (versions.length === 0) return;
    await this.#redis.notifyLogged(
      keys.unlogged,
      ...versions.flatMap(({ id, version }) => [id, String(version)]),
    );
  }

  async dead(limit: number): Promise<string[]> {
    return this.#redis.lrange(keys.dead, 0, limit - 1);
  }
}
