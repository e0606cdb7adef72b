/** Spherical geometry on the mean earth; exact to 0.5 %, which is far inside what a jump leaves open. */

interface Place {
  /** WGS84 degrees. */
  lat: number;
  lng: number;
}

/** IUGG mean radius, m. */
const EARTH_RADIUS_M = 6_371_008.8;
const RADIANS = Math.PI / 180;

/** Metres along the great circle (haversine). */
export function distanceM(from: Place, to: Place): number {
  const halfLat = Math.sin(((to.lat - from.lat) * RADIANS) / 2);
  const halfLng = Math.sin(((to.lng - from.lng) * RADIANS) / 2);
  const h = halfLat ** 2 + Math.cos(from.lat * RADIANS) * Math.cos(to.lat * RADIANS) * halfLng ** 2;
  return 2 * EARTH_RADIUS_M * Math.asin(Math.min(1, Math.sqrt(h)));
}

/** Initial bearing from one place to another: degrees from north, 0 ≤ bearing < 360. */
export function bearingDeg(from: Place, to: Place): number {
  const lngs = (to.lng - from.lng) * RADIANS;
  const y = Math.sin(lngs) * Math.cos(to.lat * RADIANS);
  const x =
    Math.cos(from.lat * RADIANS) * Math.sin(to.lat * RADIANS) -
    Math.sin(from.lat * RADIANS) * Math.cos(to.lat * RADIANS) * Math.cos(lngs);
  return (Math.atan2(y, x) / RADIANS + 360) % 360;
}
