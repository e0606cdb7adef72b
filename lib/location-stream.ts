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

/** An entry as Redis has it: id, then names and values in turn. */
export type RawEntry = [id: string, fields: string[]];

/** When an entry was made, server time, ms. */
export const entryTime = (id: string): number => Number(id.split('-')[0]);

export function parseEntry([id, fields]: RawEntry): StreamEntry {
  const [, live = '{"at":0,"updates":[]}', , history = '[]'] = fields;
  const at = entryTime(id);
  const points = JSON.parse(history) as Reported[];
  return { id, live: parseBatch(live), history: points.map((point) => ({ ...point, at })) };
}

const pageSize = 500;

/**
 * A shard's entries from `start` (an id of the stream; `(` before it excludes it) on, page by page. `mentioning`: only
 * entries with this trip, for the others are not worth parsing.
 */
export async function* readStream(
  redis: RedisConnection,
  shard: number,
  start: string,
  { mentioning = '' } = {},
): AsyncGenerator<StreamEntry> {
  let from = start;
  for (;;) {
    const page = await redis.xrange(shardKeys(shard).stream, from, '+', 'COUNT', pageSize);
    for (const entry of page)
      if (entry[1].some((value) => value.includes(mentioning))) yield parseEntry(entry);
    const last = page.at(-1)?.[0];
    if (!last || page.length < pageSize) return;
    from = `(${last}`;
  }
}
