/** What emergency contacts read. At most two SMS segments, whatever the name. */
import type { AlertLocation, AlertStatus } from '../../contracts/sos.ts';
import { countSegments } from '../../lib/providers/segments.ts';

const maxSegments = 2;

/** A map that opens in any browser or map app. */
export const mapUrl = ({ lat, lng }: Pick<AlertLocation, 'lat' | 'lng'>): string =>
  `https://maps.google.com/?q=${lat.toFixed(5)},${lng.toFixed(5)}`;

/** No name of more characters fits, whatever they are. */
const longest = 320;

const plainName = (name: string): string =>
  name
    .slice(0, 2 * longest)
    .replace(/\s+/g, ' ')
    .trim() || 'Somebody who named you';

/** `build` with as much of the name as fits; a name that no alphabet can shorten enough is left out. */
function fit(name: string, build: (name: string) => string): string {
  const letters = Array.from(plainName(name)).slice(0, longest);
  for (let length = letters.length; length > 0; length--) {
    const text = build(letters.slice(0, length).join('').trimEnd());
    if (countSegments(text).segments <= maxSegments) return text;
  }
  return build('A person who named you');
}

const ageText = (ageMs: number): string => {
  const minutes = Math.round(ageMs / 60_000);
  return minutes < 1 ? '' : minutes < 60 ? `, ${minutes} min old` : `, ${Math.round(minutes / 60)} h old`;
};

/** An alert was raised: who, where, and a link that follows them. */
export function raisedText(alert: {
  name: string;
  location: AlertLocation | null;
  link: string | null;
}): string {
  const { location, link } = alert;
  const where = location
    ? `${location.source === 'gps' ? 'At' : 'Last seen'} ${mapUrl(location)} (${location.lat.toFixed(5)},${location.lng.toFixed(5)}${ageText(location.ageMs)}).`
    : 'Location not known.';
  const follow = link === null ? '' : ` Follow: ${link}`;
  return fit(alert.name, (name) => `SOS: ${name} needs help. ${where}${follow}`);
}

/** It is over. Never sent when the duress PIN was used. */
export function overText(alert: { name: string; status: AlertStatus }): string {
  const how = alert.status === 'resolved' ? 'Our team has closed the alert.' : 'It was called off.';
  return fit(alert.name, (name) => `The SOS of ${name} is over. ${how}`);
}
