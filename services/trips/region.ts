import type { Point } from '../../lib/geo.ts';

/**
 * The region of a place: its cell of two by two degrees (some 220 km), by its south-western corner, as `n12e076`. A city
 * and its surroundings are in one or two of them, and they change for nobody.
 */
export function regionOf({ lat, lng }: Point): string {
  const corner = (degrees: number, max: number) => {
    const whole = Math.floor(degrees);
    return Math.min(whole - Math.abs(whole % 2), max - 2);
  };
  const part = (value: number, [positive, negative]: [string, string], digits: number) =>
    `${value < 0 ? negative : positive}${String(Math.abs(value)).padStart(digits, '0')}`;
  return part(corner(lat, 90), ['n', 's'], 2) + part(corner(lng, 180), ['e', 'w'], 3);
}
