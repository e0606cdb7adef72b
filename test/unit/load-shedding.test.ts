import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { calm, nextShed, type ShedState, watchLoop } from '../../lib/load-shedding.ts';
import { eventually } from '../support/eventually.ts';

const limits = { lateMs: 60 };

/** The states after looks that found the loop so late, each as long after the last as it was late, and 20 ms. */
function after(lates: readonly number[], from: ShedState = calm) {
  let [state, now] = [from, 0];
  return lates.map((late) => {
    now += 20 + late;
    state = nextShed(state, late, now, limits);
    return { now, late, shedding: state.shedding };
  });
}

describe('when a door sheds', () => {
  test('a pause, however long, is no load; a loop that stays late is', () => {
    expect(after([0, 1500, 0, 0]).some(({ shedding }) => shedding)).toBe(false);
    expect(after([100, 100, 100]).map(({ shedding }) => shedding)).toEqual([false, true, true]);
    expect(after([59, 59, 59, 59, 59, 59, 59, 59]).some(({ shedding }) => shedding)).toBe(false);
  });

  test('it takes everything again after it has been calm for half a second, and not before', () => {
    const shedding: ShedState = { shedding: true, since: null };
    const looks = after(Array<number>(40).fill(0), shedding);
    expect(looks.find((look) => !look.shedding)?.now).toBe(520);
    expect(
      after([...Array<number>(20).fill(0), 31, ...Array<number>(20).fill(0)], shedding).at(-1)?.shedding,
    ).toBe(true);
  });

  test('it changes only after looks that all spoke for it, and always after enough of them', () => {
    fc.assert(
      fc.property(fc.array(fc.constantFrom(0, 10, 29, 30, 59, 60, 100, 400), { maxLength: 80 }), (lates) => {
        let before = false;
        const looks = after(lates);
        for (const [n, { shedding, now }] of looks.entries()) {
          if (shedding !== before) {
            const within = before ? 500 : 200;
            const recent = looks.slice(0, n + 1).filter((look) => look.now > now - within);
            for (const { late } of recent) expect(before ? late < 30 : late >= 60).toBe(true);
          }
          before = shedding;
        }
        expect(after([...lates, ...Array<number>(30).fill(0)]).at(-1)?.shedding).toBe(false);
        expect(after([...lates, ...Array<number>(10).fill(100)]).at(-1)?.shedding).toBe(true);
      }),
    );
  });

  test('a real loop that is kept busy sheds, and recovers', async () => {
    const changes: boolean[] = [];
    const loop = watchLoop({ lateMs: 30 }, (shedding) => changes.push(shedding));
    try {
      const busy = () => {
        const until = performance.now() + 60;
        while (performance.now() < until);
        if (!loop.shedding) setTimeout(busy, 1);
      };
      busy();
      await eventually(() => expect(loop.shedding).toBe(true));
      await eventually(() => expect(changes).toEqual([true, false]));
    } finally {
      loop.stop();
    }
  });
});
