/**
 * Which location node a trip's updates are handed to. Any node may do any trip's work; when the same one does it as long as
 * the nodes are the same, its batches are larger, and so fewer.
 */
import type { Reported } from '../../contracts/location.ts';
import { shardCount, shardOf } from '../../lib/location-keys.ts';

/** A node that did not take a batch is passed over for so long, ms: the broker knows by then that one hangs (4 to 8 s). */
const passedOverMs = 10_000;

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

export interface OwnersParts {
  /** Ids of those that can take a batch now. */
  nodes(this: void): readonly string[];
  /** Hands updates to a node; undefined: to whichever the broker picks. */
  report(this: void, updates: Reported[], node: string | undefined): Promise<unknown>;
  onTrouble(this: void, node: string, error: unknown): void;
  now?(this: void): number;
}

export class LocationOwners {
  readonly #parts: OwnersParts;
  readonly #passedOver = new Map<string, number>();
  #known = '';
  #owners: string[] = [];

  constructor(parts: OwnersParts) {
    this.#parts = parts;
  }

  /** Hands each owner its updates, and what one does not take to the next in line; rejects if nobody took some of them. */
  async report(updates: readonly Reported[]): Promise<void> {
    const owners = this.#current();
    const groups = Map.groupBy(updates, ({ tripId }) => owners[shardOf(tripId)]);
    await Promise.all([...groups].map(([node, theirs]) => this.#reportTo(node, theirs)));
  }

  async #reportTo(node: string | undefined, updates: Reported[]): Promise<void> {
    const { report, onTrouble } = this.#parts;
    if (node === undefined) {
      await report(updates, undefined);
      return;
    }
    try {
      await report(updates, node);
    } catch (error) {
      this.#passedOver.set(node, this.#now() + passedOverMs);
      onTrouble(node, error);
      // Not whomever the broker picks: it still believes in one that has died, and the wait would begin again
      await this.report(updates);
    }
  }

  #now(): number {
    return this.#parts.now?.() ?? Date.now();
  }

  #current(): readonly string[] {
    const now = this.#now();
    for (const [node, until] of this.#passedOver) if (until <= now) this.#passedOver.delete(node);
    const nodes = this.#parts
      .nodes()
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
