import { describe, expect, test } from '@jest/globals';
import * as fc from 'fast-check';
import { distanceM, distanceToLineM, lengthM, type Point } from '../../../lib/geo.ts';

const point = fc.record({
  lat: fc.double({ min: -90, max: 90, noNaN: true }),
  lng: fc.double({ min: -180, max: 180, noNaN: true }),
});
const halfAroundM = 6_371_008.8 * Math.PI;

describe('distanceM', () => {
  // Geodesics on WGS84 by Vincenty's formula, m; the sphere may be off by 0.5 %
  test.each<[string, Point, Point, number]>([
    ['Paris to London', { lat: 48.8566, lng: 2.3522 }, { lat: 51.5074, lng: -0.1278 }, 343_923],
    ['New Delhi to Mumbai', { lat: 28.6139, lng: 77.209 }, { lat: 19.076, lng: 72.8777 }, 1_144_526],
    ['across the date line', { lat: 0, lng: 179.5 }, { lat: 0, lng: -179.5 }, 111_319],
    ['over the pole', { lat: 89.5, lng: 0 }, { lat: 89.5, lng: 180 }, 111_694],
  ])('%s', (_, a, b, expected) => {
    expect(Math.abs(distanceM(a, b) / expected - 1)).toBeLessThan(0.005);
  });

  test('a degree of the equator and of a meridian are the same on the sphere', () => {
    const degree = halfAroundM / 180;
    expect(distanceM({ lat: 0, lng: 0 }, { lat: 0, lng: 1 })).toBeCloseTo(degree, 6);
    expect(distanceM({ lat: 45, lng: 7 }, { lat: 46, lng: 7 })).toBeCloseTo(degree, 6);
  });

  test('opposite points are half the way around, never NaN', () => {
    fc.assert(
      fc.property(point, ({ lat, lng }) => {
        const opposite = { lat: -lat, lng: lng > 0 ? lng - 180 : lng + 180 };
        expect(Math.abs(distanceM({ lat, lng }, opposite) - halfAroundM)).toBeLessThan(1);
      }),
    );
  });

  test('is symmetric, zero for equal points, and within half the way around', () => {
    fc.assert(
      fc.property(point, point, (a, b) => {
        expect(distanceM(a, b)).toBeCloseTo(distanceM(b, a), 6);
        expect(distanceM(a, a)).toBe(0);
        expect(distanceM(a, b)).toBeGreaterThanOrEqual(0);
        expect(distanceM(a, b)).toBeLessThanOrEqual(halfAroundM + 1e-6);
      }),
    );
  });

  test('a detour is never shorter', () => {
    fc.assert(
      fc.property(point, point, point, (a, b, c) => {
        expect(distanceM(a, c)).toBeLessThanOrEqual(distanceM(a, b) + distanceM(b, c) + 1);
      }),
    );
  });
});

describe('distanceToLineM', () => {
  const near = fc.record({
    lat: fc.double({ min: 0, max: 0.5, noNaN: true }),
    lng: fc.double({ min: 0, max: 0.5, noNaN: true }),
  });
  const base = fc.record({
    lat: fc.double({ min: -65, max: 65, noNaN: true }),
    lng: fc.double({ min: -180, max: 180, noNaN: true }),
  });
  /** Near a place, also across 180°. */
  const at = (origin: Point, { lat, lng }: Point): Point => ({
    lat: origin.lat + lat,
    lng: ((((origin.lng + lng + 180) % 360) + 360) % 360) - 180,
  });

  test('is that to the nearest of all places of the line, within 2 %, also across the date line', () => {
    const line = fc.array(near, { minLength: 1, maxLength: 6 });
    fc.assert(
      fc.property(base, near, line, (origin, where, offsets) => {
        const from = at(origin, where);
        const places = offsets.flatMap((end, index) => {
          const start = offsets[index - 1] ?? end;
          return Array.from({ length: 201 }, (_, n) =>
            at(origin, {
              lat: start.lat + ((end.lat - start.lat) * n) / 200,
              lng: start.lng + ((end.lng - start.lng) * n) / 200,
            }),
          );
        });
        const nearest = Math.min(...places.map((place) => distanceM(from, place)));
        const found = distanceToLineM(
          from,
          offsets.map((offset) => at(origin, offset)),
        );
        // The places are up to 400 m apart
        expect(Math.abs(found - nearest)).toBeLessThan(0.02 * nearest + 400);
      }),
    );
  });

  test('a line of one point is that point; on the line it is 0', () => {
    const [a, b] = [
      { lat: 12, lng: 77 },
      { lat: 12.1, lng: 77.1 },
    ];
    expect(distanceToLineM(b, [a]) / distanceM(a, b)).toBeCloseTo(1, 2);
    expect(distanceToLineM({ lat: 12.05, lng: 77.05 }, [a, b])).toBeLessThan(1);
    expect(distanceToLineM(a, [a, a])).toBe(0);
    expect(lengthM([a, b, a])).toBeCloseTo(2 * distanceM(a, b), 6);
    expect(lengthM([a])).toBe(0);
  });
});
