import { describe, expect, test } from '@jest/globals';
import * as fc from 'fast-check';
import type { OutboxMessage } from '../../../lib/standins/outbox.ts';
import { Outbox } from '../../../lib/standins/outbox.ts';

function message(index: number, to: string): OutboxMessage {
  const at = new Date(index).toISOString();
  const sent = {
    channel: 'sms',
    provider: 'twilio',
    template: null,
    text: 'hello',
    state: 'accepted',
  } as const;
  return { ...sent, id: String(index), to, at };
}

describe('Outbox', () => {
  test('lists the newest of what matches, within its bound', () => {
    const recipients = fc.array(fc.constantFrom('+14155550100', '+14155550101'), { maxLength: 60 });
    fc.assert(
      fc.property(
        recipients,
        fc.integer({ min: 1, max: 20 }),
        fc.integer({ min: 1, max: 20 }),
        (tos, max, limit) => {
          const outbox = new Outbox(max);
          const all = tos.map((to, index) => message(index, to));
          for (const each of all) outbox.add(each);

          const kept = all.slice(-max).toReversed();
          const to = '+14155550100';
          expect(outbox.list()).toEqual(kept);
          expect(outbox.list({ to, limit })).toEqual(kept.filter((each) => each.to === to).slice(0, limit));
          expect(outbox.list({ channel: 'email' })).toEqual([]);
          const [newest] = kept;
          expect(outbox.list({ id: newest?.id ?? 'none' })).toEqual(newest ? [newest] : []);
        },
      ),
    );
  });
});
