import { describe, expect, test } from '@jest/globals';
import * as fc from 'fast-check';
import { type SafetyKind, safetyKind } from '../../contracts/safety.ts';
import {
  answer,
  ask,
  nextDue,
  openChecks,
  overtake,
  type SafetyEvent,
  type TripQuestions,
} from '../../services/safety/questions.ts';

const rules = { answerWithinMs: 60_000, remindEveryMs: 15_000, askAgainAfterMs: 900_000 };
const kinds = safetyKind.options;
const none: TripQuestions = { tripId: 'trp_1', riderId: 'usr_r', driverId: 'usr_d', byKind: {} };

const act = fc.oneof(
  { weight: 3, arbitrary: fc.record({ act: fc.constant('ask' as const), kind: fc.constantFrom(...kinds) }) },
  { weight: 1, arbitrary: fc.record({ act: fc.constant('answer' as const), safe: fc.boolean() }) },
  { weight: 3, arbitrary: fc.constant({ act: 'look' as const }) },
);
const script = fc.array(fc.tuple(act, fc.integer({ min: 0, max: 400_000 })), { maxLength: 60 });

type Told = { at: number; event: SafetyEvent };
type Asked = { at: number; kind: string };

type Act = { act: 'ask'; kind: SafetyKind } | { act: 'answer'; safe: boolean } | { act: 'look' };

/** Plays a script; answers all that happened. */
function play(all: [Act, number][]) {
  let [record, now] = [none, 1_000_000];
  const told: Told[] = [];
  const asked: Asked[] = [];
  const answers: { at: number; safe: boolean; open: string[] }[] = [];
  for (const [one, ms] of all) {
    now += ms;
    if (one.act === 'ask') {
      const made = ask(record, one.kind, now, rules);
      if (made.asked) asked.push({ at: now, kind: one.kind });
      record = made.next;
      told.push(...made.events.map((event) => ({ at: now, event })));
    } else if (one.act === 'answer') {
      const { safe } = one;
      answers.push({ at: now, safe, open: openChecks(record).map(({ kind }) => kind) });
      const made = answer(record, safe);
      record = made.next;
      told.push(...made.events.map((event) => ({ at: now, event })));
    } else {
      const made = overtake(record, now, rules);
      record = made.next;
      told.push(...made.events.map((event) => ({ at: now, event })));
    }
  }
  return { record, now, told, asked, answers };
}

describe('+ questions', () => {
  test('each is alarmed for once at most; unanswered, exactly once', () => {
    fc.assert(
      fc.property(script, (all) => {
        const played = play(all);
        const end = overtake(played.record, played.now + rules.answerWithinMs, rules);
        const told = [...played.told, ...end.events.map((event) => ({ at: played.now, event }))];
        expect(openChecks(end.next)).toEqual([]);
        expect(nextDue(end.next)).toBeNull();
        for (const { at, kind } of played.asked) {
          const alarms = told.filter(
            ({ event: { kind: what, data } }) =>
              what === 'safety.alarm' && data.kind === kind && 'askedAt' in data && data.askedAt === at,
          );
          const wasAnswered = played.answers.some((given) => given.at >= at && given.open.includes(kind));
          expect(alarms.length).toBeLessThanOrEqual(1);
          if (!wasAnswered) expect(alarms).toHaveLength(1);
        }
      }),
    );
  });

  test('none about the same matter within its time; none while one is open', () => {
    fc.assert(
      fc.property(script, (all) => {
        const { asked } = play(all);
        for (const kind of kinds) {
          const times = asked.filter((one) => one.kind === kind).map(({ at }) => at);
          for (const [index, at] of times.slice(1).entries())
            expect(at - (times[index] ?? 0)).toBeGreaterThanOrEqual(rules.askAgainAfterMs);
        }
      }),
    );
  });

  test('"safe" raises no alarm; "not safe" raises one for all that is open, at once', () => {
    fc.assert(
      fc.property(script, fc.boolean(), (all, safe) => {
        const { record } = play(all);
        const open = openChecks(record).map(({ kind }) => kind);
        const { next, events } = answer(record, safe);
        const alarms = events.filter(({ kind }) => kind === 'safety.alarm');
        expect(openChecks(next)).toEqual([]);
        if (safe) expect(alarms).toEqual([]);
        else {
          expect(alarms.map(({ data }) => data.kind)).toEqual(expect.arrayContaining(open));
          // Admins hear of it in any case, unless they know
          if (Object.keys(record.byKind).length > 0 && events.length === 0)
            expect(Object.values(record.byKind).some(({ answeredLate }) => answeredLate === false)).toBe(
              true,
            );
        }
        // The same again says nothing more
        expect(answer(next, safe)).toEqual({ next, events: [] });
      }),
    );
  });

  test('one that was answered "safe" is never alarmed for by silence', () => {
    fc.assert(
      fc.property(script, fc.nat(10_000_000), (all, later) => {
        const { record, now } = play(all);
        const answered = answer(record, true).next;
        expect(overtake(answered, now + later, rules).events).toEqual([]);
      }),
    );
  });

  test('an open one is told again each quarter of its time, and always due before it is over', () => {
    let { next: record } = ask(none, 'overdue', 0, rules);
    const reminded: number[] = [];
    for (let due = nextDue(record); due !== null; due = nextDue(record)) {
      const made = overtake(record, due, rules);
      if (made.remind.length > 0) reminded.push(due);
      record = made.next;
    }
    expect(reminded).toEqual([15_000, 30_000, 45_000]);
    expect(record.byKind.overdue).toMatchObject({ outcome: 'alarmed' });
  });

  test('a rider who changes their mind is heard: not safe after safe, safe after the alarm', () => {
    const asked = ask(none, 'long-stop', 0, rules).next;
    const safe = answer(asked, true).next;
    const alarmed = answer(safe, false);
    expect(alarmed.events).toMatchObject([{ kind: 'safety.alarm', data: { why: 'not-safe' } }]);
    const again = answer(alarmed.next, true);
    expect(again.events).toMatchObject([{ kind: 'safety.answered', data: { safe: true } }]);
    expect(answer(none, false)).toEqual({ next: none, events: [] });
  });
});
