import type { Update } from '../../contracts/location.ts';
import type { SafetyKind } from '../../contracts/safety.ts';
import type { TripPlan } from '../../contracts/trips.ts';
import { notStopped, type StopState, seeStop } from './long-stop.ts';
import { overdueFrom } from './overdue.ts';
import { type Corridor, corridorOf, type DeviationState, onTheWay, seeDeviation } from './route-deviation.ts';
import type { SafetyRules } from './rules.ts';
import { heardFirst, judgeSignal, type SignalState, seeSignal } from './signal-lost.ts';

/** All that is known of a trip, as far as its safety goes. */
export interface TripWatch {
  readonly plan: TripPlan;
  readonly corridor: Corridor;
  readonly overdueFrom: number;
  readonly stop: StopState;
  readonly deviation: DeviationState;
  readonly signal: SignalState;
  readonly last: Update | null;
}

/** A trip of which nothing has been heard since its start. */
export const watchTrip = (plan: TripPlan, rules: SafetyRules): TripWatch => ({
  plan,
  corridor: corridorOf(plan, rules.deviation),
  overdueFrom: overdueFrom(plan, rules),
  stop: notStopped,
  deviation: onTheWay,
  signal: heardFirst(plan.startedAt),
  last: null,
});

/** The trip's next update. One that is not newer than the last, or says too little of the place, changes nothing. */
export function see(watch: TripWatch, update: Update, rules: SafetyRules): TripWatch {
  const { plan, corridor, stop, deviation, signal, last } = watch;
  if (last && update.timestamp <= last.timestamp) return watch;
  if (update.accuracy > rules.signal.usableM) return watch;
  return {
    ...watch,
    stop: seeStop(stop, update, plan.to, rules.stop),
    deviation: seeDeviation(deviation, update, corridor, rules.deviation),
    signal: seeSignal(signal, Math.max(update.at, signal.heardAt), rules.signal),
    last: update,
  };
}

/** Time passes: how the trip stands at `now`, the server's time. `hearingSince`: see judgeSignal. */
export function judge(
  watch: TripWatch,
  now: number,
  rules: SafetyRules,
  hearingSince = 0,
): { watch: TripWatch; suspected: SafetyKind[] } {
  const judged = { ...watch, signal: judgeSignal(watch.signal, now, rules.signal, hearingSince) };
  const suspected: SafetyKind[] = [];
  if (judged.stop.suspected) suspected.push('long-stop');
  if (judged.deviation.suspected) suspected.push('route-deviation');
  if (judged.signal.suspected) suspected.push('signal-lost');
  if (now > judged.overdueFrom) suspected.push('overdue');
  return { watch: judged, suspected };
}
