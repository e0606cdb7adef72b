import fc from 'fast-check';
import { alertStatus } from '../../../contracts/sos.ts';
import type { AlertRecord, MessageState } from '../../../services/sos/alert-record.ts';
import { readPress } from '../../../services/sos/read-press.ts';

/** An alert that was just raised. */
export function record(over: Partial<AlertRecord> = {}): AlertRecord {
  const press = readPress({ key: 'k' }, { id: 'usr_1', standing: 'live' }, 1_760_000_000_000);
  return {
    alertId: press.alertId,
    press,
    userId: press.userId,
    tripId: null,
    acceptedAt: press.acceptedAt,
    name: 'Asha',
    contacts: 'sealed',
    pin: 'hash-of-pin',
    duressPin: 'hash-of-duress-pin',
    language: 'en',
    status: 'active',
    duressAt: null,
    endedAt: null,
    location: null,
    fixAt: null,
    presses: 1,
    version: 1,
    duty: '1',
    wrongPins: 0,
    planned: true,
    looked: true,
    link: 'sealed',
    paged: false,
    messages: [],
    seen: null,
    ...over,
  };
}

export const state = (over: Partial<MessageState> = {}): MessageState => ({
  name: 'Friend',
  status: 'queued',
  channel: null,
  provider: null,
  tries: [],
  at: 1_760_000_000_001,
  ...over,
});

const aState = fc
  .record({
    name: fc.constantFrom('Ravi', 'Meera'),
    status: fc.constantFrom<MessageState['status'][]>('queued', 'sending', 'sent', 'failed'),
    at: fc.integer({ min: 1_760_000_000_000, max: 1_760_000_100_000 }),
  })
  .map((over) => state({ ...over, channel: over.status === 'queued' ? null : 'sms', provider: 'twilio' }));

/** Messages of an alert, to so many contacts. */
export const someMessages = fc.uniqueArray(
  fc.record({
    purpose: fc.constantFrom('raised' as const, 'over' as const),
    contact: fc.constantFrom('c1', 'c2', 'c3'),
    state: aState,
  }),
  { maxLength: 4, selector: ({ purpose, contact }) => `${purpose} ${contact}` },
);
export const someStatus = fc.constantFrom(...alertStatus.options);
export const someLog = fc.array(
  fc.record({
    at: fc.integer({ min: 1_760_000_000_000, max: 1_760_000_100_000 }),
    what: fc.constantFrom(
      'raised',
      'pressed-again',
      'acknowledged',
      'responding',
      'contacts-queued',
      'contact-told',
      'contact-try-failed',
      'contact-not-reached',
      'incident-opened',
      'on-call-called',
      'wrong-pin',
    ),
    who: fc.constant('usr_admin'),
    note: fc.string(),
  }),
  { maxLength: 6 },
);
export const someLocation = fc.option(
  fc.record({
    lat: fc.double({ min: -90, max: 90, noNaN: true }),
    lng: fc.double({ min: -180, max: 180, noNaN: true }),
    accuracy: fc.constant(5),
    source: fc.constant('gps' as const),
    ageMs: fc.constant(0),
  }),
);
