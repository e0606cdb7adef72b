import type { Doors } from '../clients.ts';
import { newPhone, request, signIn, type User } from '../clients.ts';
import { eventually } from '../eventually.ts';
import type { World } from './world.ts';

/** Somebody who may press, and the numbers of their contacts. */
export interface Person extends User {
  contacts: string[];
}

/** An acknowledged press. */
export interface Alert {
  alertId: string;
  person: Person;
  /** Stands in every message of this alert and of no other. */
  mark: string;
  /** From the press to its acknowledgement, and when that came, ms. */
  ackMs: number;
  ackedAt: number;
}

async function signUpOne(doors: Doors, contactsEach: number): Promise<Person> {
  // The first moments after a start: not every route is known yet
  const user = await eventually(() => signIn(doors), 20_000);
  const contacts = Array.from({ length: contactsEach }, newPhone);
  const listed = contacts.map((phone, n) => ({ name: `Friend ${n}`, phone, relation: 'friend' }));
  const { status } = await request(doors, 'PUT', '/api/v1/me/emergency-contacts', {
    token: user.token,
    body: { contacts: listed },
  });
  if (status !== 200) throw new Error(`Contacts were answered ${status}`);
  return { ...user, contacts };
}

/** Signs up so many people, each with contacts. */
export const signUp = (doors: Doors, howMany: number, contactsEach = 2): Promise<Person[]> =>
  Promise.all(Array.from({ length: howMany }, () => signUpOne(doors, contactsEach)));

let counter = 0;

/** What a press says: a trip and a place that no other has, so that it is an alert of its own. */
function newPress(): { body: { tripId: string; location: object }; mark: string } {
  const n = ++counter;
  const lat = 10 + n / 1000;
  const location = { lat, lng: 77.59, accuracy: 9, timestamp: Date.now() };
  return { body: { tripId: `trp_chaos${n}`, location }, mark: `${lat.toFixed(5)},` };
}

const accepted = (person: Person, mark: string, alertId: string, pressedAt: number): Alert => ({
  alertId,
  person,
  mark,
  ackMs: performance.now() - pressedAt,
  ackedAt: Date.now(),
});

/** By REST. Rejects when it is not acknowledged; `onAck` runs in the very turn in which the answer is seen. */
export async function pressByRest(doors: Doors, person: Person, onAck = () => {}): Promise<Alert> {
  const { body, mark } = newPress();
  const pressedAt = performance.now();
  const response = await fetch(`${doors.apiUrl}/api/v1/sos`, {
    method: 'POST',
    headers: { authorization: `Bearer ${person.token}`, 'content-type': 'application/json' },
    body: JSON.stringify(body),
    signal: AbortSignal.timeout(5000),
  });
  const answer = (await response.json()) as { alertId: string };
  onAck();
  if (response.status !== 202)
    throw new Error(`A press was answered ${response.status} ${JSON.stringify(answer)}`);
  return accepted(person, mark, answer.alertId, pressedAt);
}

/** By an open socket. */
export async function pressBySocket(
  socket: { timeout(ms: number): { emitWithAck(event: 'sos:trigger', body: object): Promise<unknown> } },
  person: Person,
  onAck = () => {},
): Promise<Alert> {
  const { body, mark } = newPress();
  const pressedAt = performance.now();
  const answer = (await socket.timeout(5000).emitWithAck('sos:trigger', body)) as {
    ok: boolean;
    alertId: string;
  };
  onAck();
  if (!answer.ok) throw new Error(`A press was answered ${JSON.stringify(answer)}`);
  return accepted(person, mark, answer.alertId, pressedAt);
}

/** What a contact got for an alert: when, ms. */
export const messagesTo = ({ simulator }: World, contact: string, mark: string): number[] =>
  simulator
    .outbox({ to: contact, channel: 'sms' })
    .filter(({ text }) => text.includes(mark))
    .map(({ at }) => Date.parse(at));
