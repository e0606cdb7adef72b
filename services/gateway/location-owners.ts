/**
 * Which location node a trip's updates are handed to. Any node may do any trip's work; when the same one does it as long as
 * the nodes are the same, its batches are larger, and so fewer.
 */
import { shardCount, shardOf } from '../../lib/location-keys.ts';

/** A node that did not take a batch is passed over for so long, ms: about until the broker knows that it is gone. */
const passedOverMs = 5000;

/** FNV-1a with the last steps of MurmurHash3: names that differ in one character must rank differently. */
function rankOf(shard: number, node: string): number {
  let hash = 0x811c9dc5 ^ shard;
  for (let i = 0; i < node.length; i++) hash = Math.imul(hash ^ node.charCodeAt(i), 0x01000193);
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}

/**
 * The owner of each shard (rendezvous hashing: a node that comes or goes moves only the shards that it gets or had); empty
 * without nodes.
 */
export function ownersOf(nodes: readonly string[]): string[] {
  if (nodes.length === 0) return [];
  return Array.from({ length: shardCount }, (_, shard) =>
    nodes.reduce((best, node) => (rankOf(shard, node) > rankOf(shard, best) ? node : best)),
  );
}

export class LocationOwners {
  readonly #nodes: () => readonly string[];
  readonly #now: () => number;
  readonly #passedOver = new Map<string, number>();
  #known = '';
  #owners: string[] = [];

  /** `nodes`: ids of those that can take a batch now. */
  constructor(nodes: () => readonly string[], now: () => number = Date.now) {
    this.#nodes = nodes;
    this.#now = now;
  }

  /** The updates by who they are handed to; undefined when there is nobody in particular. */
  group<U extends { tripId: string }>(updates: readonly U[]): Map<string | undefined, U[]> {
    const owners = this.#current();
    return Map.groupBy(updates, ({ tripId }) => owners[shardOf(tripId)]);
  }

  /** It did not take what it was handed. */
  passOver(node: string): void {
    this.#passedOver.set(node, this.#now() + passedOverMs);
  }

  #current(): readonly string[] {
    const now = this.#now();
    for (const [node, until] of this.#passedOver) if (until <= now) this.#passedOver.delete(node);
    const nodes = this.#nodes()
      .filter((node) => !this.#passedOver.has(node))
      .toSorted();
    const key = nodes.join();
    if (key !== this.#known) {
      this.#known = key;
      this.#owners = ownersOf(nodes);
    }
    return this.#owners;
  }
}
