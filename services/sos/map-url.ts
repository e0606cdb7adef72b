import type { AlertLocation } from '../../contracts/sos.ts';

type Point = Pick<AlertLocation, 'lat' | 'lng'>;

/** Degrees with five decimals, a metre: `12.97161,77.59461`. */
export const coordinatesOf = ({ lat, lng }: Point): string => `${lat.toFixed(5)},${lng.toFixed(5)}`;

/** A map that opens in any browser or map app. */
export const mapUrl = (point: Point): string => `https://maps.google.com/?q=${coordinatesOf(point)}`;
