/** Where locations live in Redis. All keys of a shard share a hash tag, so that a Cluster keeps them together. */

/**
 * Few enough that a shard's batch is worth its commands, many enough to spread over the nodes of a Cluster. Fixed: what Redis
 * holds is found by it.
 */
export const shardCount = 64;

/** The shard of a trip: FNV-1a over its id. Every process must agree, for as long as data lives. */
export function shardOf(tripId: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < tripId.length; i++) hash = Math.imul(hash ^ tripId.charCodeAt(i), 0x01000193);
  return (hash >>> 0) % shardCount;
}

export const shardKeys = (shard: number) => ({
  /** Hash: trip → its driver, while the trip is active. */
  active: `{loc:${shard}}:active`,
  /** Hash: trip → `<timestamp> <at> <JSON of the update>`. */
  last: `{loc:${shard}}:last`,
  geo: `{loc:${shard}}:geo`,
  /** Stream: an entry for each batch; `b` is JSON `{at, updates}`, `h` a backlog's JSON array. */
  stream: `{loc:${shard}}:stream`,
  /**
   * Hash: `at` and `id` of the newest entry; `synced`: the database has all up to this id; `turn`: when somebody last began
   * to move entries there; `measured`: when the stream's size was last looked at.
   */
  head: `{loc:${shard}}:head`,
  /** Who moves entries to the database at the moment; expires. */
  mover: `{loc:${shard}}:mover`,
});

/**
 * Kept for a day once a trip is over, `<end> <timestamp of its newest update> <driver>`: a late `open` must not bring it
 * back, and late updates from before the end still belong to it.
 */
export const closedKey = (shard: number, tripId: string): string => `{loc:${shard}}:closed:${tripId}`;

/** Pub/sub: `<entry id> <id of the entry before> <JSON as in the stream>`. */
export const shardChannel = (shard: number): string => `{loc:${shard}}:live`;
