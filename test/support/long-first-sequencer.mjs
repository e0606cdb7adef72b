import Sequencer from '@jest/test-sequencer';

/**
 * Jest starts with the files that took longest the last time. Where there was no last time (a fresh clone) it goes by
 * size, and the files that take longest here are the smallest: those that start whole systems go first instead.
 */
export default class LongFirstSequencer extends Sequencer {
  sort(tests) {
    // Notes on each test how long it took
    // oxlint-disable-next-line unicorn/no-array-sort -- Jest's own method, not an array's
    const inItsOrder = super.sort(tests);
    const isLong = ({ path, duration }) => typeof duration !== 'number' && path.includes('/test/e2e/');
    return [...inItsOrder.filter(isLong), ...inItsOrder.filter((test) => !isLong(test))];
  }
}
