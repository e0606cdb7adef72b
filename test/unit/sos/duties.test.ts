import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import type { AlertRecord } from '../../../services/sos/alert-record.ts';
import { isOver } from '../../../services/sos/alert-state.ts';
import { dutiesOf } from '../../../services/sos/duties.ts';
import { needsWaking } from '../../../services/sos/waker.ts';
import { record, someMessages, someStatus, state } from './records.ts';

const anyRecord = fc
  .record({
    status: someStatus,
    messages: someMessages,
    planned: fc.boolean(),
    paged: fc.boolean(),
    duressAt: fc.option(fc.constant(1)),
    drill: fc.boolean(),
  })
  .map(({ drill, messages, ...over }): AlertRecord => {
    const alert = record(over);
    // In a drill no message ever leaves the state that it begins in
    const kept = drill
      ? messages.map((message) => ({ ...message, state: state({ status: 'drill' }) }))
      : messages;
    return { ...alert, messages: kept, press: { ...alert.press, drill } };
  });

describe('what an alert needs done', () => {
  test('a drill reaches nobody outside', () => {
    fc.assert(
      fc.property(anyRecord, (alert) => {
        const { tellOver, wake } = dutiesOf(alert);
        if (alert.press.drill) {
          expect({ tellOver, wake }).toEqual({ tellOver: [], wake: false });
          expect(needsWaking(alert, 'duress')).toBe(false);
        }
      }),
    );
  });

  test('who heard of it hears of the end, once; nobody does after the duress PIN', () => {
    fc.assert(
      fc.property(anyRecord, (alert) => {
        const { tellOver } = dutiesOf(alert);
        if (!isOver(alert.status) || alert.duressAt !== null) return expect(tellOver).toEqual([]);
        const known = (purpose: string, ...statuses: string[]) =>
          alert.messages
            .filter(
              (message) =>
                message.purpose === purpose &&
                (statuses.length === 0 || statuses.includes(message.state.status)),
            )
            .map(({ contact }) => contact);
        const heard = new Set(known('raised', 'sent', 'sending'));
        const told = new Set(known('over'));
        expect(new Set(tellOver)).toEqual(new Set([...heard].filter((contact) => !told.has(contact))));
        // Done, there is nothing left to do
        const over = tellOver.map((contact) => ({ purpose: 'over' as const, contact, state: state() }));
        expect(dutiesOf({ ...alert, messages: [...alert.messages, ...over] }).tellOver).toEqual([]);
      }),
    );
  });

  test('what was written down and not queued is planned again', () => {
    const messages = [{ purpose: 'raised' as const, contact: 'c1', state: state() }];
    expect(dutiesOf(record({ messages, planned: false })).plan).toBe(true);
    expect(dutiesOf(record({ messages, planned: true })).plan).toBe(false);
  });

  test('the duress PIN wakes somebody, until there is an incident; the incident follows the alert', () => {
    expect(dutiesOf(record({ duressAt: 1 })).wake).toBe(true);
    expect(dutiesOf(record({ duressAt: 1, paged: true })).wake).toBe(false);
    const pagers = (['active', 'acknowledged', 'responding', 'resolved', 'cancelled'] as const).map(
      (status) => dutiesOf(record({ status, paged: true })).pager,
    );
    expect(pagers).toEqual([null, 'acknowledge', 'acknowledge', 'resolve', 'resolve']);
    expect(dutiesOf(record({ status: 'resolved' })).pager).toBeNull();
  });
});
