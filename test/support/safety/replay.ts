/** Rides through the checks, as the service runs them: what is asked, and when an alarm is raised. */
import { type SafetyKind, safetyKind } from '../../../contracts/safety.ts';
import type { Point } from '../../../lib/geo.ts';
import { answer, ask, overtake, type TripQuestions } from '../../../services/safety/questions.ts';
import type { SafetyRules } from '../../../services/safety/rules.ts';
import { judge, see, watchTrip } from '../../../services/safety/trip-watch.ts';
import type { Ride } from './faults.ts';

/** How often is looked, ms; the service does each second. */
const tickMs = 5000;
/** How long a rider who answers needs, ms. */
const answersAfterMs = 20_000;

export interface Outcome {
  /** When each question was asked, ms. */
  questions: { kind: SafetyKind; at: number }[];
  alarms: SafetyKind[];
}

/** `rider`: answers "safe" after 20 s, or never. */
export function replay(
  ride: Ride,
  rules: SafetyRules,
  options: { rider: 'answers' | 'silent'; route?: readonly Point[] },
): Outcome {
  const { id: tripId, from, to, startedAt } = ride;
  const [riderId, driverId] = ['usr_rider', 'usr_driver'];
  const route = options.route ? [...options.route] : null;
  let watch = watchTrip({ tripId, riderId, driverId, from, to, startedAt, route, durationS: null }, rules);
  let record: TripQuestions = { tripId, riderId, driverId, byKind: {} };
  const found: Outcome = { questions: [], alarms: [] };
  let next = 0;
  let answerAt = Number.POSITIVE_INFINITY;
  // What is open at the end of the ride is followed to its own
  const until = ride.endsAt + rules.questions.answerWithinMs + tickMs;
  for (let now = startedAt; now <= until; now += tickMs) {
    for (let fix = ride.fixes[next]; fix && fix.timestamp <= now; fix = ride.fixes[++next])
      watch = see(watch, { ...fix, tripId, userId: driverId, speed: null, heading: null, at: now }, rules);
    const judged = judge(watch, now, rules);
    watch = judged.watch;
    for (const kind of now <= ride.endsAt ? judged.suspected : []) {
      const made = ask(record, kind, now, rules.questions);
      record = made.next;
      if (!made.asked) continue;
      found.questions.push({ kind, at: now });
      answerAt = Math.min(answerAt, now + answersAfterMs);
    }
    if (options.rider === 'answers' && now >= answerAt) {
      record = answer(record, true).next;
      answerAt = Number.POSITIVE_INFINITY;
    }
    const passed = overtake(record, now, rules.questions);
    record = passed.next;
    for (const { data } of passed.events) found.alarms.push(data.kind);
  }
  return found;
}

export const kinds: readonly SafetyKind[] = safetyKind.options;
