import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { regionOf } from '../../../services/trips/region.ts';

test.each([
  [{ lat: 12.97, lng: 77.59 }, 'n12e076'],
  [{ lat: -10.94, lng: -37.06 }, 's12w038'],
  [{ lat: 0, lng: 0 }, 'n00e000'],
  [{ lat: 90, lng: 180 }, 'n88e178'],
  [{ lat: -90, lng: -180 }, 's90w180'],
])('R9.5 %j is in region %s', (point, region) => {
  expect(regionOf(point)).toBe(region);
});

test('R9.5 every place is in one region of two by two degrees', () => {
  fc.assert(
    fc.property(
      fc.double({ min: -90, max: 90, noNaN: true }),
      fc.double({ min: -180, max: 180, noNaN: true }),
      (lat, lng) => {
        const region = regionOf({ lat, lng });
        const [, ns, south = '', ew, west = ''] = /^([ns])(\d\d)([ew])(\d{3})$/.exec(region) ?? [];
        const corner = {
          lat: Number(south) * (ns === 's' ? -1 : 1),
          lng: Number(west) * (ew === 'w' ? -1 : 1),
        };
        for (const [value, from] of [
          [lat, corner.lat],
          [lng, corner.lng],
        ] as const) {
          expect(value).toBeGreaterThanOrEqual(from);
          expect(value).toBeLessThanOrEqual(from + 2);
        }
      },
    ),
  );
});
