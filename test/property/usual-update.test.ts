import { describe, expect, test } from '@jest/globals';
import * as fc from 'fast-check';
import { clientEvents } from '../../contracts/socket.ts';
import { usualUpdate } from '../../services/gateway/usual-update.ts';

const good = {
  tripId: fc.stringMatching(/^[\w-]{1,64}$/),
  lat: fc.double({ min: -90, max: 90, noNaN: true }),
  lng: fc.double({ min: -180, max: 180, noNaN: true }),
  accuracy: fc.double({ min: 0, max: 100_000, noNaN: true }),
  timestamp: fc.integer({ min: 0, max: 2_000_000_000_000 }),
};
const maybe = {
  speed: fc.oneof(fc.constant(null), fc.double({ min: 0, max: 150, noNaN: true })),
  heading: fc.oneof(fc.constant(null), fc.double({ min: 0, max: 360, noNaN: true })),
};
const usual = fc.record(
  { ...good, ...maybe },
  { requiredKeys: ['tripId', 'lat', 'lng', 'accuracy', 'timestamp'] },
);

/** At the limits, beyond them, and of another kind. */
const odd = fc.oneof(
  fc.constantFrom<unknown>(
    0,
    -0,
    90,
    -90,
    90.0000001,
    180,
    -180,
    -180.5,
    150,
    151,
    360,
    361,
    100_000,
    100_001,
    8_640_000_000_000_000,
    8_640_000_000_000_001,
    2 ** 53,
    1.5,
    -1,
    Number.POSITIVE_INFINITY,
    Number.NaN,
    undefined,
    null,
    true,
    '',
    '12',
    'trp_a',
    'a b',
    'trp_a\n',
    'x'.repeat(65),
    [],
    [12],
    {},
  ),
  fc.double(),
  fc.string(),
);
const spoilt = fc
  .tuple(
    usual,
    fc.constantFrom(...Object.keys({ ...good, ...maybe }), 'more', '__proto__'),
    odd,
    fc.boolean(),
  )
  .map(([update, key, value, isGone]) => {
    const entries = Object.entries(update).filter(([name]) => name !== key);
    // As JSON.parse does it: also `__proto__` is a key like any other
    const made: object = {};
    for (const [name, each] of [...entries, ...(isGone ? [] : [[key, value] as const])])
      Object.defineProperty(made, name, {
        value: each,
        enumerable: true,
        writable: true,
        configurable: true,
      });
    return made;
  });

const contract = clientEvents['location:update'];

describe('usualUpdate', () => {
  test('R2 makes of a position what the contract makes of it, and takes nothing that the contract refuses', () => {
    fc.assert(
      fc.property(fc.oneof(usual, spoilt, fc.anything()), (payload) => {
        const made = usualUpdate(payload);
        const parsed = contract.safeParse(payload);
        if (made) expect({ made, success: true }).toEqual({ made: parsed.data, success: parsed.success });
      }),
      { numRuns: 3000 },
    );
  });

  test('R2 takes all that is usual: it would not be worth its lines otherwise', () => {
    fc.assert(
      fc.property(usual, (payload) => {
        expect(usualUpdate(payload)).toEqual(contract.parse(payload));
      }),
    );
  });

  test('R2 as whoever drives sends it', () => {
    const sent = { tripId: 'trp_a', lat: 1, lng: 2, accuracy: 5, timestamp: 3, extra: 'left out' };
    expect(usualUpdate(sent)).toEqual({
      tripId: 'trp_a',
      lat: 1,
      lng: 2,
      accuracy: 5,
      speed: null,
      heading: null,
      timestamp: 3,
    });
    for (const bad of [{ lat: 91 }, { lat: '1' }, { tripId: 'a b' }, { timestamp: 1.5 }, { speed: -1 }])
      expect(usualUpdate({ ...sent, ...bad })).toBeNull();
  });
});
