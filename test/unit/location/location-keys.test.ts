import { describe, expect, test } from '@jest/globals';
import * as fc from 'fast-check';
import { newId } from '../../../lib/ids.ts';
import { closedKey, shardChannel, shardCount, shardKeys, shardOf } from '../../../lib/location-keys.ts';

describe('shardOf', () => {
  test('FNV-1a as published: the keys of running systems depend on it', () => {
    // 32-bit FNV-1a of '', 'a', 'foobar' (http://www.isthe.com/chongo/tech/comp/fnv/): 811c9dc5, e40c292c, bf9cf968
    expect(['', 'a', 'foobar'].map(shardOf)).toEqual([0xc5, 0x2c, 0x68].map((byte) => byte % shardCount));
    expect(shardOf('trp_0123456789abcdefghijklmn')).toBe(shardOf('trp_0123456789abcdefghijklmn'));
  });

  test('is a shard for every id', () => {
    fc.assert(
      fc.property(fc.string(), (id) => {
        expect(Number.isInteger(shardOf(id))).toBe(true);
        expect(shardOf(id)).toBeGreaterThanOrEqual(0);
        expect(shardOf(id)).toBeLessThan(shardCount);
      }),
    );
  });

  test('spreads trips evenly', () => {
    const perShard = 200;
    const counts = Array.from({ length: shardCount }, () => 0);
    for (let i = 0; i < shardCount * perShard; i++) counts[shardOf(newId('trp'))]! += 1;
    // A binomial with a standard deviation of 14: six of them are a chance of one in millions for all shards
    expect(Math.min(...counts)).toBeGreaterThan(perShard - 85);
    expect(Math.max(...counts)).toBeLessThan(perShard + 85);
  });
});

test("all keys of a shard share one hash tag, and no other shard's", () => {
  const tags = (shard: number) =>
    [...Object.values(shardKeys(shard)), closedKey(shard, 'trp_{1}'), shardChannel(shard)].map(
      (key) => /\{(.*?)\}/.exec(key)?.[1],
    );
  const all = Array.from({ length: shardCount }, (_, shard) => new Set(tags(shard)));
  expect(all.every((shardTags) => shardTags.size === 1)).toBe(true);
  expect(new Set(all.map(([...shardTags]) => shardTags[0])).size).toBe(shardCount);
});
