/** Mean radius of the Earth, m (IUGG). */
const earthRadiusM = 6_371_008.8;
const radians = (degrees: number): number => (degrees * Math.PI) / 180;

/** WGS84 degrees. */
export interface Point {
  lat: number;
  lng: number;
}

/** Great-circle distance in metres, by the haversine formula (sphere; within 0.5 % of the ellipsoid). */
export function distanceM(a: Point, b: Point): number {
  const sinLat = Math.sin(radians(b.lat - a.lat) / 2);
  const sinLng = Math.sin(radians(b.lng - a.lng) / 2);
  const h = sinLat * sinLat + Math.cos(radians(a.lat)) * Math.cos(radians(b.lat)) * sinLng * sinLng;
  return 2 * earthRadiusM * Math.asin(Math.min(1, Math.sqrt(h)));
}
