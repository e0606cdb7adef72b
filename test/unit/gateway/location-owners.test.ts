import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import type { Reported } from '../../../contracts/location.ts';
import { shardCount, shardOf } from '../../../lib/location-keys.ts';
import { LocationOwners, ownersOf } from '../../../services/gateway/location-owners.ts';

const nodeNames = fc.uniqueArray(fc.string({ minLength: 1, maxLength: 20 }), { minLength: 1, maxLength: 8 });
const updates = Array.from({ length: 500 }, (_, n) => ({ tripId: `trp_${n}` })) as Reported[];

/** What was handed to whom, by a broker whose nodes do as `fails` says. */
function reporting(nodes: string[], fails: (node: string | undefined) => boolean = () => false) {
  const handed: { node: string | undefined; updates: Reported[] }[] = [];
  const troubles: string[] = [];
  const clock = { now: 0 };
  const owners = new LocationOwners({
    nodes: () => nodes,
    async report(theirs, node) {
      handed.push({ node, updates: theirs });
      if (fails(node)) throw new Error('away');
    },
    onTrouble: (node) => void troubles.push(node),
    now: () => clock.now,
  });
  return { owners, handed, troubles, clock };
}

describe('R2.1 who processes a trip', () => {
  test('every shard has one owner, the same one whatever the order of the nodes', () => {
    fc.assert(
      fc.property(nodeNames, (nodes) => {
        const owners = ownersOf(nodes);
        expect(owners).toHaveLength(shardCount);
        expect(owners.every((owner) => nodes.includes(owner))).toBe(true);
        expect(ownersOf(nodes.toReversed())).toEqual(owners);
      }),
    );
  });

  test('a node that goes moves its own shards only', () => {
    fc.assert(
      fc.property(nodeNames, fc.nat(), (nodes, pick) => {
        const gone = nodes[pick % nodes.length] ?? '';
        const left = nodes.filter((node) => node !== gone);
        const [before, after] = [ownersOf(nodes), ownersOf(left)];
        for (const [shard, owner] of after.entries())
          if (before[shard] !== gone) expect(owner).toBe(before[shard]);
      }),
    );
  });

  test.each([
    ['names of pods', ['location-6f7c9-x2x1a', 'location-6f7c9-x2x1b', 'location-6f7c9-x2x1c']],
    ['names that differ in a digit', ['location-1', 'location-2', 'location-3']],
  ])('the work is spread over all: %s', (_, nodes) => {
    const owners = ownersOf(nodes);
    const shares = nodes.map((node) => owners.filter((owner) => owner === node).length);
    expect(Math.min(...shares)).toBeGreaterThan(shardCount / nodes.length / 2);
  });

  test('each owner is handed its updates, none is left out', async () => {
    const { owners, handed } = reporting(['a', 'b', 'c']);
    await owners.report(updates);
    expect(handed.flatMap((call) => call.updates)).toHaveLength(updates.length);
    const expected = ownersOf(['a', 'b', 'c']);
    for (const { node, updates: theirs } of handed)
      for (const { tripId } of theirs) expect(expected[shardOf(tripId)]).toBe(node);
  });

  test('what one does not take another gets, and it is passed over for ten seconds', async () => {
    const { owners, handed, clock, troubles } = reporting(['a', 'b'], (node) => node === 'a');
    await owners.report(updates);
    expect(troubles).toEqual(['a']);
    const taken = handed.filter(({ node }) => node !== 'a').flatMap((call) => call.updates);
    expect(taken).toHaveLength(updates.length);
    const askedNow = async () => {
      handed.length = 0;
      await owners.report(updates);
      return new Set(handed.map(({ node }) => node));
    };
    clock.now = 9999;
    expect(await askedNow()).toEqual(new Set(['b']));
    clock.now = 10_000;
    expect(await askedNow()).toEqual(new Set(['a', 'b']));
  });

  test('whoever has died is asked once, and the broker, who does not know it yet, is not asked to pick', async () => {
    const dead = new Set<string | undefined>(['a', 'c', undefined]);
    const { owners, handed, troubles } = reporting(['a', 'b', 'c', 'd'], (node) => dead.has(node));
    await owners.report(updates);
    const taken = handed.filter(({ node }) => !dead.has(node)).flatMap((call) => call.updates);
    expect(new Set(taken.map(({ tripId }) => tripId)).size).toBe(updates.length);
    expect(new Set(troubles)).toEqual(new Set(['a', 'c']));
    handed.length = 0;
    await owners.report(updates);
    expect(new Set(handed.map(({ node }) => node))).toEqual(new Set(['b', 'd']));
  });

  test('without a node that is known, whoever the broker finds; if there is nobody, the caller is told', async () => {
    const { owners, handed } = reporting([]);
    await owners.report(updates);
    expect(handed).toEqual([{ node: undefined, updates }]);
    await expect(reporting(['a', 'b'], () => true).owners.report(updates)).rejects.toThrow('away');
  });
});
