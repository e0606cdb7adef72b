import Sequencer from '@jest/test-sequencer';

/**
 * Jest starts with the files that took longest the last time. Where there was no last time (a fresh clone) it goes by
 * size, and the files that take longest here are the smallest: those that start whole systems go first instead.
 */
export default class LongFirstSequencer extends Sequencer {
  sort(tests) {
    const startsSystems = ({ path, duration }) => typeof duration !== 'number' && path.includes('/test/e2e/');
    // A stable sort: the rest keeps Jest's order
    return super.sort(tests).sort((a, b) => Number(startsSystems(b)) - Number(startsSystems(a)));
  }
}
