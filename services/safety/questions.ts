/**
 * The life of a question: open until the rider answers or time is up, then over. Nothing else ends it: neither the end of the trip,
 * which who drives may bring about, nor that the vehicle moves on.
 */
import type { FeedData } from '../../contracts/feed.ts';
import type { SafetyCheck, SafetyKind } from '../../contracts/safety.ts';
import type { QuestionRules } from './rules.ts';

type Place = FeedData<'safety.alarm'>['location'];

interface Question {
  askedAt: number;
  answerBy: number;
  /** When it is told again. */
  remindAt: number;
  outcome: 'open' | 'safe' | 'alarmed';
  /** After an alarm: what the rider has answered since. */
  answeredLate?: boolean;
  location?: Place;
}

/** The people of a trip and the last question of each kind. */
export interface TripQuestions {
  readonly tripId: string;
  readonly riderId: string;
  readonly driverId: string;
  readonly byKind: Readonly<Partial<Record<SafetyKind, Question>>>;
}

/** What admins are told; goes with the change, in one step. */
export type SafetyEvent =
  | { kind: 'safety.alarm'; data: FeedData<'safety.alarm'> }
  | { kind: 'safety.answered'; data: FeedData<'safety.answered'> };

export interface Change {
  next: TripQuestions;
  events: SafetyEvent[];
}

const entriesOf = ({ byKind }: TripQuestions) => Object.entries(byKind) as [SafetyKind, Question][];

/**
 * Asks, unless the same was asked less than `askAgainAfterMs` ago: then nothing changes. `quietUntil`: asking before that
 * changes nothing.
 */
export function ask(
  record: TripQuestions,
  kind: SafetyKind,
  now: number,
  rules: QuestionRules,
  location?: Place,
): Change & { asked: boolean; quietUntil: number } {
  const known = record.byKind[kind];
  const quietUntil = (askedAt: number) => askedAt + rules.askAgainAfterMs;
  if (known && (known.outcome === 'open' || now < quietUntil(known.askedAt))) {
    const until = Math.max(quietUntil(known.askedAt), known.outcome === 'open' ? known.answerBy : 0);
    return { next: record, events: [], asked: false, quietUntil: until };
  }
  const question: Question = {
    askedAt: now,
    answerBy: now + rules.answerWithinMs,
    remindAt: now + rules.remindEveryMs,
    outcome: 'open',
    ...(location ? { location } : {}),
  };
  return {
    next: { ...record, byKind: { ...record.byKind, [kind]: question } },
    events: [],
    asked: true,
    quietUntil: quietUntil(now),
  };
}

const matter = ({ tripId, riderId, driverId }: TripQuestions, kind: SafetyKind) => ({
  tripId,
  riderId,
  driverId,
  kind,
});

const alarm = (
  record: TripQuestions,
  kind: SafetyKind,
  { askedAt, location }: Question,
  why: 'silence' | 'not-safe',
): SafetyEvent => ({
  kind: 'safety.alarm',
  data: { ...matter(record, kind), why, askedAt, ...(location ? { location } : {}) },
});

/**
 * The rider's answer, to all that is open. "Not safe" alarms for each open question; with none open, for the newest, whatever was
 * answered before. After an alarm admins are told what the rider says, each new word once.
 */
export function answer(record: TripQuestions, safe: boolean): Change {
  const newest = entriesOf(record).toSorted(([, a], [, b]) => b.askedAt - a.askedAt)[0]?.[0];
  const isAnyOpen = entriesOf(record).some(([, { outcome }]) => outcome === 'open');
  const byKind = { ...record.byKind };
  const events: SafetyEvent[] = [];
  for (const [kind, question] of entriesOf(record)) {
    if (question.outcome === 'alarmed') {
      if (question.answeredLate === safe) continue;
      byKind[kind] = { ...question, answeredLate: safe };
      events.push({ kind: 'safety.answered', data: { ...matter(record, kind), safe } });
    } else if (safe) byKind[kind] = { ...question, outcome: 'safe' };
    else if (question.outcome === 'open' || (!isAnyOpen && kind === newest)) {
      byKind[kind] = { ...question, outcome: 'alarmed', answeredLate: false };
      events.push(alarm(record, kind, question, 'not-safe'));
    }
  }
  return { next: { ...record, byKind }, events };
}

/** Time passes: who has not answered in time is alarmed for, who is still to answer is told again. */
export function overtake(
  record: TripQuestions,
  now: number,
  rules: QuestionRules,
): Change & { remind: SafetyCheck[] } {
  const byKind = { ...record.byKind };
  const events: SafetyEvent[] = [];
  const remind: SafetyCheck[] = [];
  for (const [kind, question] of entriesOf(record)) {
    if (question.outcome !== 'open') continue;
    if (now >= question.answerBy) {
      byKind[kind] = { ...question, outcome: 'alarmed' };
      events.push(alarm(record, kind, question, 'silence'));
    } else if (now >= question.remindAt) {
      byKind[kind] = { ...question, remindAt: now + rules.remindEveryMs };
      remind.push({ tripId: record.tripId, kind, answerBy: question.answerBy });
    }
  }
  return { next: { ...record, byKind }, events, remind };
}

/** When the record has to be looked at again, ms; null when nothing is open. */
export function nextDue(record: TripQuestions): number | null {
  const due = entriesOf(record)
    .filter(([, { outcome }]) => outcome === 'open')
    .map(([, { remindAt, answerBy }]) => Math.min(remindAt, answerBy));
  return due.length === 0 ? null : Math.min(...due);
}

/** What the rider has still to answer. */
export const openChecks = (record: TripQuestions): SafetyCheck[] =>
  entriesOf(record)
    .filter(([, { outcome }]) => outcome === 'open')
    .map(([kind, { answerBy }]) => ({ tripId: record.tripId, kind, answerBy }));
