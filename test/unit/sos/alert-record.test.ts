import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import {
  type AlertRecord,
  adminsView,
  endIsTold,
  type LogEntry,
  parseAlert,
  raisersView,
} from '../../../services/sos/alert-record.ts';
import { record, someLocation, someLog, someMessages, someStatus, state } from './records.ts';

const at = 1_760_000_050_000;

/** An alert with some history, and what that has left when the duress PIN, or the true one, is used. */
const history = fc
  .record({
    status: fc.constantFrom('active' as const, 'acknowledged' as const, 'responding' as const),
    messages: someMessages,
    log: someLog,
    location: someLocation,
  })
  .map(({ log, ...over }) => ({ before: record(over), log: log as LogEntry[] }));

const raised = ({ messages }: AlertRecord) => messages.filter(({ purpose }) => purpose === 'raised');

/** As the script does it. */
const underDuress = (before: AlertRecord): AlertRecord => ({
  ...before,
  duressAt: at,
  seen: {
    contacts: new Map(raised(before).map(({ contact, state: seen }) => [contact, seen])),
    location: before.location,
  },
});

describe('what the raiser sees under duress', () => {
  const later = fc.record({
    status: someStatus,
    messages: someMessages,
    log: someLog,
    location: someLocation,
    paged: fc.boolean(),
  });

  test('+ is what it was when the PIN was used: nothing that comes later shows, whatever the clocks say', () => {
    fc.assert(
      fc.property(history, later, ({ before, log }, { log: laterLog, messages, ...over }) => {
        const frozen = underDuress(before);
        const entries = [...log, { at, what: 'duress' }];
        const then = raisersView(frozen, entries);
        // Contacts stay the same; how it went with them does not
        const states = before.messages.map((message, n) => ({
          ...message,
          state: messages[n]?.state ?? message.state,
        }));
        const now = { ...frozen, ...over, messages: states };
        expect(raisersView(now, [...entries, ...laterLog])).toEqual(then);
        expect(then.status).toBe('cancelled');
      }),
    );
  });

  test('+ is what a true cancel would have left', () => {
    fc.assert(
      fc.property(history, ({ before, log }) => {
        const forced = raisersView(underDuress(before), [...log, { at, what: 'duress' }]);
        const honest = raisersView({ ...before, status: 'cancelled', endedAt: at }, [
          ...log,
          { at, what: 'cancelled', who: before.userId },
        ]);
        expect(forced).toEqual(honest);
      }),
    );
  });

  test('+ contacts that are looked up only after it wait, as they would after a true cancel', () => {
    const messages = [
      { purpose: 'raised' as const, contact: 'c1', state: state({ status: 'sent', channel: 'sms' }) },
    ];
    const frozen = { ...underDuress(record({ planned: false })), messages };
    const cancelled = record({ status: 'cancelled', messages: [{ ...messages[0]!, state: state() }] });
    expect(raisersView(frozen, []).contacts).toEqual(raisersView(cancelled, []).contacts);
  });
});

describe('views of an alert', () => {
  test("admins see everything but numbers and secrets; the raiser sees no admin's name", () => {
    fc.assert(
      fc.property(history, ({ before, log }) => {
        const secret = {
          ...before,
          contacts: 'v1.+919812345678',
          pin: 'PIN',
          duressPin: 'DURESS',
          link: 'LINK',
        };
        const admins = JSON.stringify(
          adminsView(
            secret,
            log.map((entry) => ({ ...entry, note: '' })),
          ),
        );
        expect(admins).not.toMatch(/\+\d{8}|PIN|DURESS|LINK/);
        expect(JSON.stringify(raisersView(secret, log))).not.toContain('usr_admin"');
      }),
    );
    const view = adminsView(underDuress(record({ status: 'responding' })), [{ at, what: 'duress' }]);
    expect(view).toMatchObject({ duress: true, status: 'responding', userId: 'usr_1', mapUrl: null });
    expect(view.log).toEqual([{ at: new Date(at).toISOString(), what: 'duress' }]);
  });

  test('the end is told after a true one alone', () => {
    const ended = record({ status: 'cancelled', endedAt: at });
    expect(endIsTold(ended)).toBe(true);
    expect(endIsTold(underDuress(ended))).toBe(false);
    expect(endIsTold(record())).toBe(false);
    expect(endIsTold({ ...ended, press: { ...ended.press, drill: true } })).toBe(false);
  });

  test('a hash that is no alert is none', () => {
    expect(parseAlert('sos_1', {})).toBeNull();
    expect(parseAlert('sos_1', { status: 'active', userId: 'usr_1' })).toBeNull();
  });
});
