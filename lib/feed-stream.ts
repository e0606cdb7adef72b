/**
 * The admin feed as it is kept: one stream on the SOS Redis, whose ids are the order and the cursor. An entry has the
 * fields `kind`, `at` (ms) and `data` (JSON), in any order.
 *
 * Commands: https://redis.io/docs/latest/commands/xrange/, xinfo-stream (`entries-added` since Redis 7.0).
 */
import type { Redis } from 'ioredis';
import type { DeliveredEvent } from '../contracts/feed.ts';

export const feedKeys = {
  /** XADD it with MAXLEN ~ `feedMaxLength`. */
  stream: '{feed}:events',
  /** Version of an entity's last event, for a while; see mixins/feed.ts. */
  version: (id: string) => `{feed}:version:${id}`,
};

export const feedMaxLength = 1_000_000;

/** The order of two stream ids: negative when `a` comes first. An id without a sequence is that of sequence 0. */
export function compareIds(a: string, b: string): number {
  const [aMs = 0, aSeq = 0] = a.split('-').map(Number);
  const [bMs = 0, bSeq = 0] = b.split('-').map(Number);
  return aMs - bMs || aSeq - bSeq;
}

type Entry = [id: string, fields: string[] | null];

/** Whoever appends is one of us; what is broken all the same is passed on as empty rather than hold up the rest. */
function parseData(json: string | undefined): Record<string, unknown> {
  try {
    const data: unknown = JSON.parse(json ?? '{}');
    return typeof data === 'object' && data !== null && !Array.isArray(data) ? { ...data } : {};
  } catch {
    return {};
  }
}

export function parseEntry([id, fields]: Entry): DeliveredEvent {
  const byName = new Map<string, string>();
  for (let i = 0; i + 1 < (fields ?? []).length; i += 2) byName.set(fields?.[i] ?? '', fields?.[i + 1] ?? '');
  const at = Number(byName.get('at'));
  return {
    id,
    kind: byName.get('kind') ?? 'unknown',
    // An event without a time happened when it was appended
    at: Number.isSafeInteger(at) && at > 0 ? at : Number(id.split('-')[0]),
    data: parseData(byName.get('data')),
  };
}

/** The ends of the stream. */
export interface FeedBounds {
  /** Id of the oldest entry that is kept; null when none is. */
  firstId: string | null;
  /** Id of the newest entry that ever was; `0-0` before the first. */
  lastId: string;
  /** Have entries been trimmed? */
  trimmed: boolean;
}

/** What XINFO STREAM says; null is a stream that does not exist yet. */
function parseBounds(info: readonly unknown[] | null): FeedBounds {
  const values = new Map<unknown, unknown>();
  for (let i = 0; i + 1 < (info ?? []).length; i += 2) values.set(info?.[i], info?.[i + 1]);
  const first = values.get('first-entry') as Entry | null | undefined;
  const lastId = values.get('last-generated-id');
  return {
    firstId: first?.[0] ?? null,
    lastId: typeof lastId === 'string' ? lastId : '0-0',
    // Nothing is ever deleted but by trimming
    trimmed: Number(values.get('entries-added') ?? 0) > Number(values.get('length') ?? 0),
  };
}

/**
 * Can the events after `after` no longer all be had? Either some may have been trimmed, or the feed has gone back behind
 * `after` (a Redis that lost data). When in doubt, yes: reading again costs little, a gap that nobody sees does not.
 */
export function isOutOfReach(after: string, { firstId, lastId, trimmed }: FeedBounds): boolean {
  if (compareIds(after, lastId) > 0) return true;
  if (!trimmed || compareIds(after, lastId) === 0) return false;
  return firstId === null || compareIds(after, firstId) < 0;
}

/** The ends of the feed now. */
export async function readBounds(redis: Redis): Promise<FeedBounds> {
  try {
    return parseBounds((await redis.xinfo('STREAM', feedKeys.stream)) as unknown[]);
  } catch (error) {
    if (error instanceof Error && error.message.includes('no such key')) return parseBounds(null);
    throw error;
  }
}

export interface FeedPage {
  events: DeliveredEvent[];
  bounds: FeedBounds;
  /** See `isOutOfReach`: the events are then the oldest that are kept. */
  outOfReach: boolean;
}

/** At most `limit` events after `after`, oldest first. The bounds are read last: what was trimmed meanwhile is noticed. */
export async function readPage(redis: Redis, after: string, limit: number): Promise<FeedPage> {
  const entries = await redis.xrange(feedKeys.stream, `(${after}`, '+', 'COUNT', limit);
  const bounds = await readBounds(redis);
  return { events: entries.map(parseEntry), bounds, outOfReach: isOutOfReach(after, bounds) };
}

/** The newest `limit` events, oldest first. */
export async function readNewest(redis: Redis, limit: number): Promise<DeliveredEvent[]> {
  const entries = await redis.xrevrange(feedKeys.stream, '+', '-', 'COUNT', limit);
  return entries.map(parseEntry).toReversed();
}
