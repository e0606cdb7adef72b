import { afterEach, expect, jest, test } from '@jest/globals';
import * as fc from 'fast-check';
import { HeardRoundRobin } from '../../lib/heard-nodes.ts';

type List = Parameters<HeardRoundRobin['select']>[0];

afterEach(() => {
  jest.restoreAllMocks();
});

test('+ nodes that were heard of lately are asked by turns, and no other; all, when none was', () => {
  const node = fc.record({ local: fc.boolean(), silentS: fc.constantFrom(0, 1, 2, 3, 4, 60) });
  fc.assert(
    fc.property(fc.array(node, { minLength: 1, maxLength: 6 }), (nodes) => {
      jest.spyOn(process, 'uptime').mockReturnValue(1000);
      const list = nodes.map(({ local, silentS }, id) => ({
        id,
        node: { local, lastHeartbeatTime: 1000 - silentS },
      }));
      const heard = list.filter((_, id) => nodes[id]?.local || (nodes[id]?.silentS ?? 0) < 3);
      const asked = heard.length > 0 ? heard : list;
      const strategy = new HeardRoundRobin({} as never, {} as never);
      const turns = asked.length * 3;
      const chosen = Array.from({ length: turns }, () => strategy.select(list as unknown as List));
      expect(chosen.map(({ id }) => id)).toEqual(
        Array.from({ length: turns }, (_, n) => asked[n % asked.length]?.id),
      );
    }),
  );
});
