/** The command line of the simulator. */
import { parseArgs } from 'node:util';
import { MAX_TRIPS } from './people.ts';

export const usage = `npm run simulate -- [options]

Drives recorded traces through real sockets, riders watching, and accounts for every update.

  --trips N           trips at once, 1 to ${MAX_TRIPS} (20); above 163 the recorded drives are used again
  --speedup N         how many times faster than recorded, 0.1 to 200 (10)
  --watchers N        sockets that watch each trip, 1 to 20 (1)
  --url URL           the API (http://127.0.0.1:3000)
  --socket-url URL    the socket door (http://127.0.0.1:3001)
  --batch-window MS   the longest that two updates of one server batch can be apart, 1 to 60000 (1200);
                      what did not arrive is excused by a newer position within this time only, and the last
                      position of a trip is waited for as long
  --json              one line with the summary on stdout; the progress goes to stderr
  --help

Needs a server with sandbox providers, as the login codes are read from /dev/outbox.
Exits with 0 when all is accounted for, 1 when not, 2 when the options are wrong.
Ctrl-C ends all trips and prints the summary; a second one exits at once.`;

export interface Options {
  trips: number;
  speedup: number;
  watchers: number;
  /** Without a slash at the end. */
  url: string;
  socketUrl: string;
  batchWindowMs: number;
  json: boolean;
  help: boolean;
}

/** Reads the arguments after the script's name; throws with a message for people when one is wrong. */
export function parseOptions(args: string[]): Options {
  const { values } = parseArgs({
    args,
    options: {
      trips: { type: 'string', default: '20' },
      speedup: { type: 'string', default: '10' },
      watchers: { type: 'string', default: '1' },
      url: { type: 'string', default: 'http://127.0.0.1:3000' },
      'socket-url': { type: 'string', default: 'http://127.0.0.1:3001' },
      'batch-window': { type: 'string', default: '1200' },
      json: { type: 'boolean', default: false },
      help: { type: 'boolean', short: 'h', default: false },
    },
  });
  return {
    trips: integer('--trips', values.trips, 1, MAX_TRIPS),
    // 200 keeps points 5 s apart within the 50 events/s that a socket may send.
    speedup: number('--speedup', values.speedup, 0.1, 200),
    watchers: integer('--watchers', values.watchers, 1, 20),
    url: httpUrl('--url', values.url),
    socketUrl: httpUrl('--socket-url', values['socket-url']),
    batchWindowMs: integer('--batch-window', values['batch-window'], 1, 60_000),
    json: values.json,
    help: values.help,
  };
}

function number(name: string, text: string, min: number, max: number): number {
  const value = Number(text);
  if (text.trim() === '' || !(value >= min && value <= max)) {
    throw new Error(`${name} must be a number from ${min} to ${max}, not "${text}"`);
  }
  return value;
}

function integer(name: string, text: string, min: number, max: number): number {
  const value = number(name, text, min, max);
  if (!Number.isInteger(value)) throw new Error(`${name} must be a whole number, not "${text}"`);
  return value;
}

function httpUrl(name: string, text: string): string {
  if (!URL.canParse(text) || !/^https?:$/.test(new URL(text).protocol)) {
    throw new Error(`${name} must be an http or https URL, not "${text}"`);
  }
  return text.replace(/\/+$/, '');
}
