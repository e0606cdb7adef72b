import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import type { Channel, MessageProviderName } from '../../lib/providers/provider.ts';
import {
  acknowledged,
  begun,
  claimed,
  furthest,
  isEnded,
  type Lane,
  over,
  type Progress,
  type Receipt,
  type Request,
  receipted,
  refused,
  taken,
  waiting,
} from '../../services/notify/notification.ts';
import { claimLastsMs, laneRules, next, type View } from '../../services/notify/routing.ts';

const providers: View['providers'] = {
  push: ['fcm'],
  whatsapp: ['whatsapp'],
  sms: ['twilio', 'msg91'],
  email: ['sendgrid', 'ses'],
};
const names: MessageProviderName[] = ['fcm', 'whatsapp', 'twilio', 'msg91', 'sendgrid', 'ses'];
const allChannels: Channel[] = ['push', 'whatsapp', 'sms', 'email'];
const minute = 60_000;

const request = (more: Partial<Request> = {}): Request => ({
  template: 'trip-accepted@1',
  lane: 'high',
  userId: 'usr_1',
  channels: null,
  createdAt: 0,
  expiresAt: 60 * minute,
  sendAt: null,
  ...more,
});
const view = (now: number, more: Partial<View> = {}): View => ({
  now,
  channels: allChannels,
  quietUntil: null,
  providers,
  shunnedUntil: () => null,
  canBeAsked: (provider) => provider === 'twilio',
  random: () => 0.5,
  pushAckMs: 10_000,
  receiptAfterMs: 15_000,
  ...more,
});

/** When each provider is down, ms from the start, and how it fails then: at once, or after all of its time. */
type Outages = Record<string, { from: number; to: number; hangs: boolean }[]>;
const outages: fc.Arbitrary<Outages> = fc.record(
  Object.fromEntries(
    names.map((name) => [
      name,
      fc.array(
        fc
          .record({
            from: fc.integer({ min: 0, max: 60_000 }),
            length: fc.integer({ min: 1, max: 90_000 }),
            hangs: fc.boolean(),
          })
          .map(({ from, length, hangs }) => ({ from, to: from + length, hangs })),
        { maxLength: 3 },
      ),
    ]),
  ),
);

interface Run {
  progress: Progress;
  /** When a provider took it, ms; null: none has. */
  takenAt: number | null;
  failures: number;
  /** When it is looked at again, ms; null: never. */
  dueAt: number | null;
}

/** Plays a notification until `until`, or until a provider has taken it whose channel needs nobody's acknowledgement. */
function play(asked: Request, down: Outages, channels: Channel[], random: () => number, until: number): Run {
  let progress = begun;
  let now = 0;
  let failures = 0;
  for (let steps = 0; steps < 1000; steps++) {
    const step = next(asked, progress, view(now, { channels, random }));
    if (step.do !== 'end' && step.do !== 'wait' && step.do !== 'send')
      throw new Error(`${step.do} in a run in which nobody dies`);
    if (step.do === 'end') {
      progress = over(progress, step.status, step.reason, now);
      return { progress, takenAt: null, failures, dueAt: null };
    }
    if (step.do === 'wait') {
      expect(step.until).toBeGreaterThan(now);
      progress = waiting(progress, step.why, step.until);
      if (step.until > until) return { progress, takenAt: null, failures, dueAt: step.until };
      now = step.until;
      continue;
    }
    progress = claimed(progress, step, now);
    const index = progress.attempts.length - 1;
    const outage = down[step.provider]?.find(({ from, to }) => from <= now && now < to);
    if (!outage) {
      progress = taken(progress, index, `m${index}`, now);
      return { progress, takenAt: now, failures, dueAt: null };
    }
    now += outage.hangs ? laneRules[asked.lane].timeoutMs : 5;
    failures++;
    progress = refused(progress, index, { code: 'DOWN', permanent: false, unsure: outage.hangs }, now);
    if (now > until) return { progress, takenAt: null, failures, dueAt: now };
  }
  throw new Error('It does not end');
}

const order = fc.uniqueArray(fc.constantFrom(...allChannels), { minLength: 1 });
const dice = fc.infiniteStream(fc.double({ min: 0, max: 0.999, noNaN: true })).map((stream) => () => {
  const { value } = stream.next();
  return value ?? 0;
});

describe('the way of a notification', () => {
  test('P4 with any outages, a high-priority notification is out within 60 s, or its failures are recorded and a retry is due', () => {
    fc.assert(
      fc.property(
        outages,
        order,
        dice,
        fc.constantFrom<Lane>('high', 'otp'),
        (down, channels, random, lane) => {
          const run = play(request({ lane }), down, channels, random, minute);
          if (run.takenAt !== null) return expect(run.takenAt).toBeLessThanOrEqual(minute);
          expect(run.failures).toBeGreaterThan(0);
          expect(run.progress.attempts.filter(({ state, code }) => state === 'failed' && code)).toHaveLength(
            run.failures,
          );
          // Or it is over, and said so
          if (run.dueAt === null)
            expect(run.progress).toMatchObject({ status: 'failed', reason: 'exhausted' });
        },
      ),
      { numRuns: 500 },
    );
  });

  test('P4 R4.6 while any provider of any of the channels works, a high-priority notification is out within 60 s', () => {
    fc.assert(
      fc.property(outages, order, dice, fc.nat(), (down, channels, random, pick) => {
        const reachable = channels.flatMap((channel) => providers[channel]);
        const works = reachable[pick % reachable.length] ?? 'twilio';
        const run = play(request(), { ...down, [works]: [] }, channels, random, minute);
        expect(run.takenAt).not.toBeNull();
      }),
      { numRuns: 500 },
    );
  });

  test('R4.7 a sign-in code leaves a provider that hangs at once, and is out within 10 s by the other', () => {
    const down = { twilio: [{ from: 0, to: 10 * minute, hangs: true }] };
    const run = play(request({ template: 'otp@1', lane: 'otp' }), down, ['sms'], () => 0.999, minute);
    expect(run.takenAt).toBeLessThan(10_000);
  });

  test('R4.2 R4.4 R4.6 the providers of a channel go first, then the next channel of the person', () => {
    const tried: string[] = [];
    let progress = begun;
    let now = 0;
    const channels: Channel[] = ['email', 'sms', 'push'];
    for (;;) {
      const step = next(request({ lane: 'normal' }), progress, view(now, { channels }));
      if (step.do === 'end') break;
      if (step.do === 'wait') {
        progress = waiting(progress, step.why, step.until);
        now = step.until;
      } else if (step.do === 'send') {
        tried.push(step.provider);
        progress = refused(
          claimed(progress, step, now),
          progress.attempts.length,
          { code: 'NO', permanent: true, unsure: false },
          now,
        );
      }
    }
    expect(tried).toEqual(['sendgrid', 'ses', 'twilio', 'msg91', 'fcm']);
  });

  test('it ends, in finitely many attempts, whatever fails how', () => {
    fc.assert(
      fc.property(
        fc.constantFrom<Lane>('otp', 'high', 'normal', 'low'),
        fc.infiniteStream(fc.boolean()),
        dice,
        (lane, permanents, random) => {
          let progress = begun;
          let now = 0;
          for (let steps = 0; steps < 2000; steps++) {
            const step = next(
              request({ lane, expiresAt: Number.MAX_SAFE_INTEGER }),
              progress,
              view(now, { random }),
            );
            if (step.do === 'end') return expect(['exhausted', 'refused']).toContain(step.reason);
            if (step.do === 'wait') {
              progress = waiting(progress, step.why, step.until);
              now = step.until;
            }
            if (step.do !== 'send') continue;
            const failure = { code: 'NO', permanent: permanents.next().value === true, unsure: false };
            progress = refused(claimed(progress, step, now), progress.attempts.length, failure, now);
          }
          throw new Error('It does not end');
        },
      ),
    );
  });

  test('a provider that is left alone is passed over; when all are, it waits for the first', () => {
    const shun = (some: MessageProviderName[], until: number) => (provider: MessageProviderName) =>
      some.includes(provider) ? until : null;
    const sms: Channel[] = ['sms'];
    expect(
      next(request(), begun, view(0, { channels: sms, shunnedUntil: shun(['twilio'], 9) })),
    ).toMatchObject({
      do: 'send',
      provider: 'msg91',
    });
    expect(
      next(request(), begun, view(0, { channels: sms, shunnedUntil: shun(['twilio', 'msg91'], 9) })),
    ).toEqual({ do: 'wait', why: 'providers-down', until: 9 });
  });

  test('quiet hours and the time that was asked for are waited for, never beyond the end; codes, SOS and safety checks do not wait', () => {
    const quiet = view(0, { quietUntil: 5 * minute });
    expect(next(request(), begun, quiet)).toEqual({ do: 'wait', why: 'quiet-hours', until: 5 * minute });
    expect(next(request({ expiresAt: 4 * minute }), begun, quiet)).toMatchObject({
      do: 'end',
      status: 'expired',
    });
    for (const template of ['otp@1', 'sos-raised@1', 'sos-over@1', 'safety-check@1'])
      expect(next(request({ template }), begun, quiet)).toMatchObject({ do: 'send' });
    expect(next(request({ sendAt: minute }), begun, view(0))).toEqual({
      do: 'wait',
      why: 'scheduled',
      until: minute,
    });
    expect(next(request({ expiresAt: 10 }), begun, view(10))).toMatchObject({ do: 'end', status: 'expired' });
  });

  test('nobody is reachable: it ends, and says so', () => {
    expect(next(request(), begun, view(0, { channels: [] }))).toEqual({
      do: 'end',
      status: 'failed',
      reason: 'no-channel',
    });
  });

  describe('push', () => {
    const pushed = (lane: Lane) => {
      const asked = request({ lane });
      const sent = taken(claimed(begun, { channel: 'push', provider: 'fcm', round: 1 }, 0), 0, 'm', 10);
      return { asked, sent };
    };

    test('R4.6 of high priority waits for the app, then goes by SMS, before all other channels', () => {
      const { asked, sent } = pushed('high');
      expect(next(asked, sent, view(11))).toEqual({ do: 'wait', why: 'acknowledgement', until: 10_010 });
      expect(next(asked, sent, view(10_010))).toMatchObject({
        do: 'send',
        channel: 'sms',
        provider: 'twilio',
      });
      const shown = acknowledged(sent, 5000);
      expect(shown.status).toBe('delivered');
      expect(next(asked, shown, view(10_010))).toEqual({ do: 'nothing' });
    });

    test('of normal priority is done when it is taken', () => {
      const { asked, sent } = pushed('normal');
      expect(next(asked, sent, view(11))).toMatchObject({ do: 'end', status: 'unconfirmed' });
      // An acknowledgement that comes later still counts
      expect(acknowledged(over(sent, 'unconfirmed', 'taken', 11), 50).status).toBe('delivered');
    });
  });

  test('a message that no receipt comes for is asked about three times, further and further apart, where that is possible', () => {
    let progress = taken(claimed(begun, { channel: 'sms', provider: 'twilio', round: 1 }, 0), 0, 'm', 0);
    const askedAt: number[] = [];
    for (let now = 0; now < 10 * minute; now += 1000) {
      const step = next(request(), progress, view(now));
      if (step.do === 'end') break;
      if (step.do !== 'ask') continue;
      askedAt.push(now);
      progress = {
        ...progress,
        attempts: progress.attempts.map((one) => ({ ...one, asked: (one.asked ?? 0) + 1 })),
      };
    }
    expect(askedAt).toEqual([15_000, 45_000, 105_000]);
    const other = taken(claimed(begun, { channel: 'sms', provider: 'msg91', round: 1 }, 0), 0, 'm', 0);
    expect(next(request(), other, view(15_000))).toMatchObject({ do: 'end', status: 'unconfirmed' });
  });

  test('an attempt without an outcome is left to its owner, and taken up when nobody can be at it any more', () => {
    const sending = claimed(begun, { channel: 'sms', provider: 'twilio', round: 1 }, 0);
    const lapses = claimLastsMs('high');
    expect(next(request(), sending, view(lapses - 1))).toEqual({
      do: 'wait',
      why: 'under-way',
      until: lapses,
    });
    expect(next(request(), sending, view(lapses))).toEqual({ do: 'recover', index: 0 });
  });
});

describe('receipts', () => {
  const states = ['accepted', 'sent', 'delivered', 'read', 'failed'] as const;
  const receipts = fc.array(
    fc.record({
      provider: fc.constantFrom<MessageProviderName>('twilio', 'msg91'),
      state: fc.constantFrom(...states),
    }),
    { maxLength: 8 },
  );
  const sent = (provider: MessageProviderName, progress: Progress) => {
    const claim = claimed(progress, { channel: 'sms', provider, round: 1 }, 0);
    return taken(claim, claim.attempts.length - 1, `of-${provider}`, 0);
  };
  const both = sent(
    'msg91',
    refused(
      claimed(sent('twilio', begun), { channel: 'sms', provider: 'whatsapp', round: 1 }, 0),
      1,
      { code: 'x', permanent: true, unsure: false },
      0,
    ),
  );
  const apply = (progress: Progress, list: readonly Pick<Receipt, 'provider' | 'state'>[]) =>
    list.reduce((at, one) => receipted(at, { ...one, providerMessageId: `of-${one.provider}` }, 1), progress);
  const standing = ({ status, attempts }: Progress) => [status, ...attempts.map(({ state }) => state)];

  test('R4.3 in any order, and any of them twice, lead to the same', () => {
    fc.assert(
      fc.property(
        receipts.chain((list) =>
          fc.tuple(
            fc.constant(list),
            fc.shuffledSubarray([...list, ...list], {
              minLength: 2 * list.length,
              maxLength: 2 * list.length,
            }),
          ),
        ),
        ([list, shuffled]) => {
          expect(standing(apply(both, shuffled))).toEqual(standing(apply(both, list)));
        },
      ),
    );
  });

  test('never take a state back', () => {
    fc.assert(
      fc.property(receipts, (list) => {
        let progress = both;
        for (const one of list) {
          const after = apply(progress, [one]);
          for (const [index, { state }] of after.attempts.entries())
            expect(furthest(progress.attempts[index]?.state ?? 'sending', state)).toBe(state);
          progress = after;
        }
        expect(isEnded(progress)).toBe(list.some(({ state }) => state === 'delivered' || state === 'read'));
      }),
    );
  });

  test('one that is faster than the answer of its provider is not lost, nor is the answer', () => {
    const sending = claimed(begun, { channel: 'email', provider: 'sendgrid', round: 1 }, 0);
    const told = receipted(sending, { provider: 'sendgrid', providerMessageId: 'm', state: 'delivered' }, 5);
    expect(told).toMatchObject({ status: 'delivered', attempts: [{ state: 'delivered', messageId: 'm' }] });
    expect(taken(told, 0, 'm', 6)).toBe(told);
    expect(refused(told, 0, { code: 'TIMEOUT', permanent: false, unsure: true }, 6)).toBe(told);
  });
});
