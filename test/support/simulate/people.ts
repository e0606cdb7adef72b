/** Who rides and drives in a run: made up from the run and the trip's number, new in every run. */
import type { Login } from './api.ts';

/** Phone numbers leave room for so many trips a run. */
export const MAX_TRIPS = 5000;

/**
 * A run's number, 1 to 9999, from the time it began (ms since the epoch): runs that begin in different
 * seconds share no phone number for 2.7 hours, so that none meets the other's 30 s resend limit. Never 0, whose numbers look like those that people make up.
 */
export function runNumber(beganAt: number): number {
  return 1 + (Math.floor(beganAt / 1000) % 9999);
}

/** The two of a trip; `trip` is 0 to MAX_TRIPS − 1. Phones are Indian mobile numbers in E.164. */
export function people(run: number, trip: number): { driver: Login; rider: Login; plate: string } {
  return {
    driver: person(run, 2 * trip, `Driver ${trip + 1}`),
    rider: person(run, 2 * trip + 1, `Rider ${trip + 1}`),
    plate: `KA01SM${digits(trip)}`,
  };
}

function person(run: number, index: number, name: string): Login {
  return {
    phone: `+9198${digits(run)}${digits(index)}`,
    deviceId: `simulate-${digits(run)}-${digits(index)}`,
    name,
  };
}

const digits = (value: number) => String(value).padStart(4, '0');
