import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { GroupCommit } from '../../lib/group-commit.ts';
import { Semaphore } from '../../services/sos/semaphore.ts';

const turn = () => new Promise<void>((resolve) => setImmediate(resolve));

describe('committing in groups', () => {
  test('each gets its own answer, in order, in groups that are not too large or too many at once', async () => {
    const items = fc.array(
      fc.record({ how: fc.constantFrom('good', 'good', 'bad', 'missing', 'turn'), turns: fc.nat(3) }),
      { maxLength: 60 },
    );
    await fc.assert(
      fc.asyncProperty(
        items,
        fc.integer({ min: 1, max: 7 }),
        fc.integer({ min: 1, max: 3 }),
        async (list, maxSize, maxUnderWay) => {
          const seen: number[] = [];
          let underWay = 0;
          const groups = new GroupCommit<{ n: number; how: string; turns: number }, number>({
            maxSize,
            maxUnderWay,
            async commit(group) {
              expect(group.length).toBeLessThanOrEqual(maxSize);
              expect(++underWay).toBeLessThanOrEqual(maxUnderWay);
              seen.push(...group.map(({ n }) => n));
              for (let wait = group[0]?.turns ?? 0; wait > 0; wait--) await turn();
              underWay--;
              // A group in which one is missing has too few answers
              const answers = group.map(({ n, how }) => (how === 'bad' ? new Error(`bad ${n}`) : n));
              return group.at(-1)?.how === 'missing' ? answers.slice(0, -1) : answers;
            },
          });
          const asked: Promise<PromiseSettledResult<number>[]>[] = [];
          for (const [n, item] of list.entries()) {
            asked.push(Promise.allSettled([groups.add({ n, ...item })]));
            if (item.how === 'turn') await turn();
          }
          const answers = (await Promise.all(asked)).flat();
          for (const [n, answer] of answers.entries()) {
            const { how } = list[n]!;
            if (answer.status === 'fulfilled') expect([how === 'bad', answer.value]).toEqual([false, n]);
            else expect(String(answer.reason)).toMatch(how === 'bad' ? `bad ${n}` : 'No answer');
            if (how === 'good' || how === 'turn') expect(answer.status).toBe('fulfilled');
          }
          expect(seen).toEqual(list.map((_, n) => n));
        },
      ),
      { numRuns: 100 },
    );
  });

  test('a group that fails fails alone, and what waits can be refused', async () => {
    let failing = true;
    const groups = new GroupCommit<number, number>({
      maxSize: 2,
      maxUnderWay: 1,
      async commit(group) {
        await turn();
        if (failing) throw new Error('down');
        return group;
      },
    });
    const first = [groups.add(1), groups.add(2), groups.add(3)].map((answer) => answer.catch(String));
    await turn();
    groups.refuse(new Error('refused'));
    expect(await Promise.all(first)).toEqual(['Error: down', 'Error: down', 'Error: refused']);
    failing = false;
    expect(await groups.add(4)).toBe(4);
  });
});

test('a semaphore lets so many in, in order, and gives its places back', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 1, max: 4 }),
      fc.array(fc.record({ turns: fc.nat(3), fails: fc.boolean() }), { maxLength: 20 }),
      async (most, works) => {
        const semaphore = new Semaphore(most);
        const began: number[] = [];
        let inside = 0;
        const results = await Promise.allSettled(
          works.map(({ turns, fails }, n) =>
            semaphore.run(async () => {
              began.push(n);
              expect(++inside).toBeLessThanOrEqual(most);
              for (let wait = turns; wait > 0; wait--) await turn();
              inside--;
              if (fails) throw new Error('failed');
              return n;
            }),
          ),
        );
        expect(began).toEqual(works.map((_, n) => n));
        expect(results.map(({ status }) => status === 'rejected')).toEqual(works.map(({ fails }) => fails));
        expect(await semaphore.run(async () => 'free')).toBe('free');
      },
    ),
    { numRuns: 50 },
  );
});
