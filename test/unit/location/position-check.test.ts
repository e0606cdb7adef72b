import { describe, expect, test } from '@jest/globals';
import { noHistory } from '../../../lib/jump-rule.ts';
import { checkPosition } from '../../../lib/position-check.ts';

const now = 1_700_000_000_000;
const at = (timestamp: number, lat = 0) => ({ lat, lng: 0, accuracy: 0, timestamp });

describe('checkPosition', () => {
  test('R2 a timestamp may run 60 s ahead and not a millisecond more', () => {
    expect(checkPosition(noHistory, at(now + 60_000), now).refused).toBeNull();
    expect(checkPosition(noHistory, at(now + 60_001), now).refused).toBe('LOCATION_AHEAD');
  });

  test('R2 an old timestamp is no reason to refuse', () => {
    expect(checkPosition(noHistory, at(0), now).refused).toBeNull();
  });

  test('R2 a fix from the future does not become what others are judged by', () => {
    const state = { last: at(now), suspects: [] };
    expect(checkPosition(state, at(now + 60_001, 50), now)).toEqual({ refused: 'LOCATION_AHEAD', state });
  });

  test('R2 a jump is refused and remembered as a suspect', () => {
    const state = { last: at(now), suspects: [] };
    const far = at(now + 1000, 50);
    expect(checkPosition(state, far, now)).toEqual({
      refused: 'LOCATION_JUMP',
      state: { last: at(now), suspects: [far] },
    });
  });
});
