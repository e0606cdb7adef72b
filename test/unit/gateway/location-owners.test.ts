import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { shardCount, shardOf } from '../../../lib/location-keys.ts';
import { LocationOwners, ownersOf } from '../../../services/gateway/location-owners.ts';

const nodeNames = fc.uniqueArray(fc.string({ minLength: 1, maxLength: 20 }), { minLength: 1, maxLength: 8 });
const updatesOf = (count: number) => Array.from({ length: count }, (_, n) => ({ tripId: `trp_${n}` }));

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

  test('updates are grouped by owner, none is left out', () => {
    const nodes = ['a', 'b', 'c'];
    const updates = updatesOf(500);
    const groups = new LocationOwners(() => nodes).group(updates);
    expect([...groups.values()].flat()).toHaveLength(updates.length);
    const owners = ownersOf(nodes);
    for (const [node, theirs] of groups)
      for (const { tripId } of theirs) expect(owners[shardOf(tripId)]).toBe(node);
  });

  test('who does not take a batch is passed over for five seconds', () => {
    let now = 0;
    const owners = new LocationOwners(
      () => ['a', 'b'],
      () => now,
    );
    const nodesOf = () => [...owners.group(updatesOf(500)).keys()].toSorted();
    expect(nodesOf()).toEqual(['a', 'b']);
    owners.passOver('a');
    expect(nodesOf()).toEqual(['b']);
    now = 4999;
    expect(nodesOf()).toEqual(['b']);
    now = 5000;
    expect(nodesOf()).toEqual(['a', 'b']);
  });

  test('without a node that is known, whoever the broker finds', () => {
    const updates = updatesOf(3);
    expect(new LocationOwners(() => []).group(updates)).toEqual(new Map([[undefined, updates]]));
  });
});
