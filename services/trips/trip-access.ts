import { type Caller, isAdmin } from '../../lib/permissions.ts';
import type { TripStep } from './trip-state.ts';

interface Parties {
  riderId: string;
  driverId: string | null;
}

const canSteer = ({ role }: Caller) => role === 'operations' || role === 'super-admin';

/** Its rider, its driver and admins see a trip; only its driver drives it. */
export function mayAccess(trip: Parties, caller: Caller, as: 'watch' | 'drive'): boolean {
  if (as === 'drive') return caller.id === trip.driverId;
  return caller.id === trip.riderId || caller.id === trip.driverId || isAdmin(caller);
}

/** Who sees the trip; and while nobody has taken the booking, drivers, who are to choose. */
export function mayReadBooking(trip: Parties, caller: Caller): boolean {
  return mayAccess(trip, caller, 'watch') || (trip.driverId === null && caller.role === 'driver');
}

/** Links are the rider's: who drives could give them to anybody, and take them from the rider's contacts. */
export function mayShare(trip: Parties, caller: Caller): boolean {
  return caller.id === trip.riderId;
}

/** The driver starts and ends; rider and driver cancel; operations may end or cancel what got stuck. */
export function mayStep(trip: Parties, caller: Caller, step: Exclude<TripStep, 'accept'>): boolean {
  const isDriver = caller.id === trip.driverId;
  if (step === 'start') return isDriver;
  if (step === 'end') return isDriver || canSteer(caller);
  return isDriver || caller.id === trip.riderId || canSteer(caller);
}
