import type { TripStatus } from '../../contracts/trips.ts';

export type TripStep = 'accept' | 'start' | 'end' | 'cancel';

/** What each step leads to, and from where. requested → scheduled → active → ended; cancelled until it has ended. */
const steps: Record<TripStep, { from: readonly TripStatus[]; to: TripStatus }> = {
  accept: { from: ['requested'], to: 'scheduled' },
  start: { from: ['scheduled'], to: 'active' },
  end: { from: ['active'], to: 'ended' },
  cancel: { from: ['requested', 'scheduled', 'active'], to: 'cancelled' },
};

/** The states that a step may start from. */
export const allowedFrom = (step: TripStep): readonly TripStatus[] => steps[step].from;

/** The state after a step, or null when the step is not allowed now. */
export function nextStatus(status: TripStatus, step: TripStep): TripStatus | null {
  const { from, to } = steps[step];
  return from.includes(status) ? to : null;
}
