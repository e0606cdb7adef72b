import type { Redis } from 'ioredis';
import { feedKeys } from '../../lib/feed-stream.ts';

/** Appends an event as the producers do; answers its id. */
export async function appendEvent(
  redis: Redis,
  kind: string,
  data: Record<string, unknown> = {},
  at = Date.now(),
): Promise<string> {
  const id = await redis.xadd(feedKeys.stream, '*', 'kind', kind, 'at', at, 'data', JSON.stringify(data));
  return id ?? '';
}

/** Every id that is in the feed. */
export const feedIds = async (redis: Redis): Promise<string[]> =>
  (await redis.xrange(feedKeys.stream, '-', '+')).map(([id]) => id);
