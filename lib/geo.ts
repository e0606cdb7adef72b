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

/**
 * Distance in metres from a point to a line of at least one point. Reckoned on a plane around the point (equirectangular): within
 * 1 % as long as the nearest part of the line is within some 100 km. Also across 180°.
 */
export function distanceToLineM(point: Point, line: readonly Point[]): number {
  // Of a degree
  const metresNorth = radians(earthRadiusM);
  const metresEast = metresNorth * Math.cos(radians(point.lat));
  let nearest = Number.POSITIVE_INFINITY;
  let ax = 0;
  let ay = 0;
  for (const [index, { lat, lng }] of line.entries()) {
    const east = lng - point.lng;
    // The short way around
    const bx = (east > 180 ? east - 360 : east < -180 ? east + 360 : east) * metresEast;
    const by = (lat - point.lat) * metresNorth;
    const dx = index === 0 ? 0 : bx - ax;
    const dy = index === 0 ? 0 : by - ay;
    const squared = dx * dx + dy * dy;
    // How far back along the segment its nearest place is, 0 to 1
    const share = squared === 0 ? 0 : Math.min(1, Math.max(0, (bx * dx + by * dy) / squared));
    nearest = Math.min(nearest, Math.hypot(bx - share * dx, by - share * dy));
    ax = bx;
    ay = by;
  }
  return nearest;
}

/** Length of a line in metres. */
export const lengthM = (line: readonly Point[]): number =>
  line.reduce((sum, point, index) => sum + (index === 0 ? 0 : distanceM(line[index - 1] ?? point, point)), 0);

/** Initial bearing from one place to another: degrees from north, 0 ≤ bearing < 360. */
export function bearingDeg(a: Point, b: Point): number {
  const lng = radians(b.lng - a.lng);
  const y = Math.sin(lng) * Math.cos(radians(b.lat));
  const x =
    Math.cos(radians(a.lat)) * Math.sin(radians(b.lat)) -
    Math.sin(radians(a.lat)) * Math.cos(radians(b.lat)) * Math.cos(lng);
  return ((Math.atan2(y, x) * 180) / Math.PI + 360) % 360;
}
