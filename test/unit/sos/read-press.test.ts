import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { alertLocation, alertId as idOf } from '../../../contracts/sos.ts';
import { alertIdOf, readLocation, readPress } from '../../../services/sos/read-press.ts';

const now = 1_760_000_000_000;
const caller = { id: 'usr_1', standing: 'live' } as const;

/** Objects that throw when they are looked at, never end, or are no data at all. */
const hostile = fc.constantFrom<() => unknown>(
  () => {
    const loop: Record<string, unknown> = {};
    return Object.assign(loop, { loop });
  },
  () => ({
    toJSON() {
      throw new Error('no');
    },
  }),
  () => 10n ** 400n,
  () => Symbol('press'),
  () => () => 1,
  () => JSON.parse('{"__proto__":{"drill":true},"constructor":1}') as unknown,
  () => 'x'.repeat(1_000_000),
  () => Number.NaN,
  () => new Date(Number.NaN),
);
const anything = fc.oneof(
  fc.anything({ withBigInt: true, withNullPrototype: true, withDate: true }),
  hostile.map((make) => make()),
);
const fields = ['key', 'tripId', 'location', 'device', 'drill', 'timestamp', 'raw', 'via'];
const params: fc.Arbitrary<Record<string, unknown>> = fc.oneof(
  fc.dictionary(fc.constantFrom(...fields), anything),
  fc.record({
    location: fc.record({ lat: anything, lng: anything, accuracy: anything, timestamp: anything }),
  }),
);

describe('reading a press', () => {
  test('R3.4 there is no input that it refuses; what it keeps is bounded and can be stored', () => {
    fc.assert(
      fc.property(params, (input) => {
        const press = readPress(input, caller, now);
        expect(idOf.safeParse(press.alertId).success).toBe(true);
        expect(press.drill).toBe(input.drill === true);
        if (press.location !== null) alertLocation.parse(press.location);
        expect(press.tripId === null || /^[\w-]{1,64}$/.test(press.tripId)).toBe(true);
        for (const raw of Object.values(press.raw)) expect(raw.length).toBeLessThanOrEqual(2000);
        const json = JSON.stringify(press);
        expect(json.length).toBeLessThan(50_000);
        expect((JSON.parse(json) as typeof press).alertId).toBe(press.alertId);
        expect(press).toMatchObject({ userId: 'usr_1', acceptedAt: now, standing: 'live' });
      }),
      { numRuns: 1000 },
    );
  });

  test('R3.4 what is there and cannot be used is kept as it came', () => {
    const { raw, location, tripId, device } = readPress(
      { tripId: { $gt: '' }, location: { lat: 91, lng: 0 }, device: 'Pixel', drill: 'yes', raw: 'SOS!' },
      caller,
      now,
    );
    expect([location, tripId, device]).toEqual([null, null, null]);
    expect(raw).toEqual({
      tripId: '{"$gt":""}',
      location: '{"lat":91,"lng":0}',
      device: '"Pixel"',
      drill: '"yes"',
      body: '"SOS!"',
    });
  });

  test('+ user and key make the id, on every node; without a key each press has its own', () => {
    fc.assert(
      fc.property(fc.string(), fc.string({ minLength: 1 }), fc.string(), (user, key, other) => {
        expect(alertIdOf(user, key)).toBe(alertIdOf(user, key));
        expect(alertIdOf(user, key) === alertIdOf(`${user}x`, key)).toBe(false);
        expect(alertIdOf(user, key) === alertIdOf(user, other)).toBe(key === other);
      }),
    );
    expect(readPress({ key: 7 }, caller, now)).toMatchObject({
      keyed: true,
      alertId: alertIdOf('usr_1', '7'),
    });
    const keyless = [{}, { key: '' }, { key: null }, { key: {} }].map((input) =>
      readPress(input, caller, now),
    );
    expect(new Set(keyless.map(({ alertId }) => alertId)).size).toBe(4);
    expect(keyless.map(({ keyed }) => keyed)).toEqual([false, false, false, false]);
  });

  test('R3.4 a position is taken when it is one, with the age of its fix', () => {
    fc.assert(
      fc.property(
        fc.double({ min: -90, max: 90, noNaN: true }),
        fc.double({ min: -180, max: 180, noNaN: true }),
        fc.integer({ min: -120_000, max: 86_400_000 }),
        (lat, lng, age) => {
          const read = readLocation({ lat, lng, accuracy: 5, timestamp: now - age }, now);
          if (lat === 0 && lng === 0) return expect(read).toBeNull();
          expect(read?.location).toEqual({ lat, lng, accuracy: 5, source: 'gps', ageMs: Math.max(0, age) });
        },
      ),
    );
    for (const bad of [
      null,
      [],
      'x',
      { lat: 91, lng: 0 },
      { lat: '1', lng: 1 },
      { lat: Number.NaN, lng: 1 },
      { lat: 0, lng: 0 },
    ])
      expect(readLocation(bad, now)).toBeNull();
    expect(readLocation({ lat: 1, lng: 1, accuracy: -1 }, now)?.location.accuracy).toBeNull();
  });
});
