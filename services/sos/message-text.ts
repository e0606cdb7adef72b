/** What emergency contacts read. At most two SMS segments, whatever the name. */
import type { AlertLocation, AlertStatus } from '../../contracts/sos.ts';
import { countSegments } from '../../lib/providers/segments.ts';

const maxSegments = 2;

/** A map that opens in any browser or map app. */
export const mapUrl = ({ lat, lng }: Pick<AlertLocation, 'lat' | 'lng'>): string =>
  `https://maps.google.com/?q=${lat.toFixed(5)},${lng.toFixed(5)}`;

/** No name of more characters fits, whatever they are. */
const longest = 320;

/** A name on one line, without what only takes room. */
export const plainName = (name: string): string =>
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

/** As much of a name as says who it is. */
const tellingLength = 24;

/**
 * An alert was raised: who, where, and a link that follows them. In a script that takes more room the same is said in fewer
 * words; if it still does not fit, the link goes, since the place is there as well: who it is must be read.
 */
export function raisedText(alert: {
  name: string;
  location: AlertLocation | null;
  link: string | null;
}): string {
  const { location, link } = alert;
  const map = location === null ? 'Location not known.' : mapUrl(location);
  const where =
    location === null
      ? map
      : `${location.source === 'gps' ? 'At' : 'Last seen'} ${map} (${location.lat.toFixed(5)},${location.lng.toFixed(5)}${ageText(location.ageMs)}).`;
  const full = (name: string) =>
    `SOS: ${name} needs help. ${where}${link === null ? '' : ` Follow: ${link}`}`;
  const short = (name: string) => `SOS: ${name}. ${map}${link === null ? '' : ` ${link}`}`;
  const withoutLink = (name: string) => `SOS: ${name}. ${map}`;
  const who = Array.from(plainName(alert.name)).slice(0, tellingLength).join('').trimEnd();
  const build = [full, short, withoutLink].find(
    (candidate) => countSegments(candidate(who)).segments <= maxSegments,
  );
  return fit(alert.name, build ?? withoutLink);
}

/** It is over. Never sent when the duress PIN was used. */
export function overText(alert: { name: string; status: AlertStatus }): string {
  const how = alert.status === 'resolved' ? 'Our team has closed the alert.' : 'It was called off.';
  return fit(alert.name, (name) => `The SOS of ${name} is over. ${how}`);
}
