/** When somebody does not want to be disturbed. Pure. */

export interface QuietHours {
  /** HH:MM in the person's time zone; past midnight when `from` is the later one. The same twice is never. */
  from: string;
  to: string;
}

const formats = new Map<string, Intl.DateTimeFormat>();
const mostFormats = 500;
const dayMinutes = 1440;

/** Minutes since midnight there. A time zone that nobody knows is UTC. */
function minuteOfDay(now: number, timeZone: string): number {
  let format = formats.get(timeZone);
  if (!format) {
    const options = { hour: '2-digit', minute: '2-digit', hourCycle: 'h23' } as const;
    try {
      format = new Intl.DateTimeFormat('en-GB', { ...options, timeZone });
    } catch {
      format = new Intl.DateTimeFormat('en-GB', { ...options, timeZone: 'UTC' });
    }
    if (formats.size >= mostFormats) formats.clear();
    formats.set(timeZone, format);
  }
  return minutesOf(format.format(now));
}

function minutesOf(time: string): number {
  const [hours = 0, minutes = 0] = time.split(':').map(Number);
  return (hours * 60 + minutes) % dayMinutes;
}

/** When the quiet hours that it is in end, ms; null when it is in none. Where a clock is put forward or back meanwhile it is looked at again then. */
export function quietUntil(now: number, timeZone: string, hours: QuietHours | null): number | null {
  if (!hours) return null;
  const [from, to, minute] = [minutesOf(hours.from), minutesOf(hours.to), minuteOfDay(now, timeZone)];
  const length = (to - from + dayMinutes) % dayMinutes;
  const since = (minute - from + dayMinutes) % dayMinutes;
  if (since >= length) return null;
  const minuteBegan = Math.floor(now / 60_000) * 60_000;
  return minuteBegan + (length - since) * 60_000;
}

/** HH:MM there. */
export function timeOfDay(at: number, timeZone: string): string {
  const minutes = minuteOfDay(at, timeZone);
  return `${String(Math.floor(minutes / 60)).padStart(2, '0')}:${String(minutes % 60).padStart(2, '0')}`;
}
