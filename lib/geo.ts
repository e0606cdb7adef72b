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

/** Metres east and north of `origin`, on the plane that touches the Earth there; also across 180°. */
function offsetM(origin: Point, { lat, lng }: Point): [east: number, north: number] {
  const lngApart = ((((lng - origin.lng + 180) % 360) + 360) % 360) - 180;
  return [
    earthRadiusM * radians(lngApart) * Math.cos(radians(origin.lat)),
    earthRadiusM * radians(lat - origin.lat),
  ];
}

/**
 * Distance in metres from a point to a line of at least one point. Reckoned on a plane around the point (equirectangular): within
 * 1 % as long as the nearest part of the line is within some 100 km.
 */
export function distanceToLineM(point: Point, line: readonly Point[]): number {
  let nearest = Number.POSITIVE_INFINITY;
  let [ax, ay] = offsetM(point, line[0] ?? point);
  for (const end of line) {
    const [bx, by] = offsetM(point, end);
    const [dx, dy] = [bx - ax, by - ay];
    const squared = dx * dx + dy * dy;
    // How far along the segment its nearest place is, 0 to 1
    const share = squared === 0 ? 0 : Math.min(1, Math.max(0, -(ax * dx + ay * dy) / squared));
    nearest = Math.min(nearest, Math.hypot(ax + share * dx, ay + share * dy));
    [ax, ay] = [bx, by];
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
