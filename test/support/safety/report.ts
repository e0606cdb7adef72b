/** What the checks do on recorded drives: what they ask on clean ones, and what they notice of injected faults. */
import type { SafetyKind } from '../../../contracts/safety.ts';
import { loadConfig } from '../../../lib/config.ts';
import { type SafetyRules, safetyRules } from '../../../services/safety/rules.ts';
import { loadTracks } from '../simulate/traces.ts';
import {
  detour,
  type Fault,
  longStop,
  neverArrives,
  plannedRoute,
  type Ride,
  rideOf,
  signalCut,
} from './faults.ts';
import { kinds, type Outcome, replay } from './replay.ts';

/** The rules as a process with this environment has them. */
const rulesWith = (env: Record<string, string> = {}): SafetyRules =>
  safetyRules(loadConfig({ NODE_ENV: 'test', ...env }));

/** Of one kind on clean rides. */
export interface Clean {
  kind: SafetyKind;
  questions: number;
  /** Rides on which it was asked. */
  rides: number;
  /** When the rider never answers, and when they answer each. */
  alarmsIfSilent: number;
  alarmsIfAnswered: number;
  /** With the recorded way as the planned one. */
  questionsWithRoute: number;
}

/** What was noticed of one fault, injected in each ride. */
export interface Noticed {
  kind: SafetyKind;
  fault: string;
  noticed: number;
  /** Minutes from the fault's beginning to the question; null when none was noticed. */
  medianMin: number | null;
  p90Min: number | null;
  longestMin: number | null;
}

export interface Setting {
  kind: SafetyKind;
  setting: string;
  questions: number;
  noticed: number;
  medianMin: number | null;
}

export interface SafetyReport {
  tracks: number;
  rides: number;
  hours: number;
  clean: Clean[];
  faults: Noticed[];
}

interface Injection {
  kind: SafetyKind;
  fault: string;
  inject: (ride: Ride) => Fault;
  planned?: true;
}

const injections: Injection[] = [
  { kind: 'long-stop', fault: 'stands still for 15 min', inject: longStop },
  {
    kind: 'route-deviation',
    fault: 'turns off at a right angle, 40 km/h for 15 min; straight line',
    inject: detour,
  },
  { kind: 'route-deviation', fault: 'the same; planned line', inject: detour, planned: true },
  { kind: 'signal-lost', fault: 'nothing comes for 15 min', inject: signalCut },
  { kind: 'overdue', fault: 'drives to and fro instead of arriving', inject: neverArrives },
];

/** Tried one at a time, each in place of its default. */
const tried: { kind: SafetyKind; env: Record<string, string> }[] = [
  ...['180000', '300000', '480000', '600000'].map((value) => ({
    kind: 'long-stop' as const,
    env: { SAFETY_STOP_AFTER_MS: value },
  })),
  ...['30', '60', '100'].map((value) => ({
    kind: 'long-stop' as const,
    env: { SAFETY_STOP_RADIUS_M: value },
  })),
  ...['1.1', '1.2', '1.4', '1.6'].map((value) => ({
    kind: 'route-deviation' as const,
    env: { SAFETY_DETOUR_FACTOR: value },
  })),
  ...['60000', '120000', '240000'].map((value) => ({
    kind: 'route-deviation' as const,
    env: { SAFETY_DEVIATION_AFTER_MS: value },
  })),
  ...['90000', '180000', '300000'].map((value) => ({
    kind: 'signal-lost' as const,
    env: { SAFETY_SIGNAL_LOST_AFTER_MS: value },
  })),
  ...['300000', '900000', '1800000'].map((value) => ({
    kind: 'overdue' as const,
    env: { SAFETY_OVERDUE_SLACK_MS: value },
  })),
  ...['15', '20', '25'].map((value) => ({ kind: 'overdue' as const, env: { SAFETY_SPEED_KMH: value } })),
];

const ofKind = ({ questions }: Outcome, kind: SafetyKind) =>
  questions.filter((question) => question.kind === kind);

function cleanRides(rides: readonly Ride[], rules: SafetyRules): Clean[] {
  const silent = rides.map((ride) => replay(ride, rules, { rider: 'silent' }));
  const answering = rides.map((ride) => replay(ride, rules, { rider: 'answers' }));
  const routed = rides.map((ride) => replay(ride, rules, { rider: 'silent', route: plannedRoute(ride) }));
  const questions = (outcomes: Outcome[], kind: SafetyKind) =>
    outcomes.flatMap((outcome) => ofKind(outcome, kind)).length;
  const alarms = (outcomes: Outcome[], kind: SafetyKind) =>
    outcomes.flatMap((outcome) => outcome.alarms.filter((alarm) => alarm === kind)).length;
  return kinds.map((kind) => ({
    kind,
    questions: questions(silent, kind),
    rides: silent.filter((outcome) => ofKind(outcome, kind).length > 0).length,
    alarmsIfSilent: alarms(silent, kind),
    alarmsIfAnswered: alarms(answering, kind),
    questionsWithRoute: questions(routed, kind),
  }));
}

function noticed(
  rides: readonly Ride[],
  rules: SafetyRules,
  { kind, fault, inject, planned }: Injection,
): Noticed {
  const minutes = rides
    .flatMap((clean) => {
      const { ride, from, until } = inject(clean);
      const route = planned ? { route: plannedRoute(clean) } : {};
      const asked = ofKind(replay(ride, rules, { rider: 'silent', ...route }), kind);
      const first = asked.find(({ at }) => at >= from && at <= until);
      return first ? [(first.at - from) / 60_000] : [];
    })
    .toSorted((a, b) => a - b);
  const quantile = (share: number) =>
    minutes[Math.min(minutes.length - 1, Math.floor(share * minutes.length))] ?? null;
  return {
    kind,
    fault,
    noticed: minutes.length,
    medianMin: quantile(0.5),
    p90Min: quantile(0.9),
    longestMin: quantile(1),
  };
}

/** Some drives are in the recordings twice, under two names. */
const onceEach = (rides: readonly Ride[]): Ride[] => [
  ...new Map(rides.map((ride) => [JSON.stringify(ride.fixes), ride])).values(),
];

async function loadRides(): Promise<{ tracks: number; rides: Ride[] }> {
  const tracks = await loadTracks();
  return { tracks: tracks.length, rides: onceEach(tracks.flatMap((track) => rideOf(track) ?? [])) };
}

/** Replays all rides with the default settings. The same each time. */
export async function safetyReport(): Promise<SafetyReport> {
  const { tracks, rides } = await loadRides();
  const rules = rulesWith();
  return {
    tracks,
    rides: rides.length,
    hours: rides.reduce((sum, { startedAt, endsAt }) => sum + (endsAt - startedAt) / 3_600_000, 0),
    clean: cleanRides(rides, rules),
    faults: injections.map((injection) => noticed(rides, rules, injection)),
  };
}

/** The same for other settings; some seconds. */
export async function settingsReport(): Promise<Setting[]> {
  const { rides } = await loadRides();
  return tried.flatMap(({ kind, env }) => {
    const injection = injections.find((one) => one.kind === kind);
    if (!injection) return [];
    const rules = rulesWith(env);
    const outcomes = rides.map((ride) => replay(ride, rules, { rider: 'silent' }));
    const found = noticed(rides, rules, injection);
    return Object.entries(env).map(([key, value]) => ({
      kind,
      setting: `${key}=${value}`,
      questions: outcomes.flatMap((outcome) => ofKind(outcome, kind)).length,
      noticed: found.noticed,
      medianMin: found.medianMin,
    }));
  });
}
