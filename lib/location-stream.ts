import type { Reported, Update } from '../contracts/location.ts';
import { shardKeys } from './location-keys.ts';
import type { RedisConnection } from './redis-client.ts';

/** JSON `{at, updates}` as the scripts write it. Written by us alone, from updates that contracts/ has checked. */
export function parseBatch(json: string): Update[] {
  const { at, updates } = JSON.parse(json) as { at: number; updates: Reported[] };
  return updates.map((update) => ({ ...update, at }));
}

/** A last position as the scripts write it, `<timestamp> <at> <JSON>`; null when there is none. */
export function parseLast(value: string | null | undefined): Update | null {
  if (!value) return null;
  const [, at, json] = /^\d+ (\d+) (.*)$/s.exec(value) ?? [];
  return at && json ? (parseBatch(`{"at":${at},"updates":[${json}]}`)[0] ?? null) : null;
}

export interface StreamEntry {
  id: string;
  /** What went to the trip rooms. */
  live: Update[];
  /** Points of offline backlogs: for the track, not for the rooms. */
  history: Update[];
}

const pageSize = 500;

/** A shard's entries from `start` to `end` (ids of the stream, inclusive; `(` before one excludes it), page by page. */
export async function* readStream(
  redis: RedisConnection,
  shard: number,
  start: string,
  end = '+',
): AsyncGenerator<StreamEntry> {
  let from = start;
  for (;;) {
    const page = await redis.xrange(shardKeys(shard).stream, from, end, 'COUNT', pageSize);
    for (const [id, fields] of page) {
      const [, live = '{"at":0,"updates":[]}', , history = '[]'] = fields;
      const batch = parseBatch(live);
      const at = Number(id.split('-')[0]);
      const points = JSON.parse(history) as Reported[];
      yield { id, live: batch, history: points.map((point) => ({ ...point, at })) };
    }
    const last = page.at(-1)?.[0];
    if (!last || page.length < pageSize) return;
    from = `(${last}`;
  }
}
