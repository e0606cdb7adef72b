/** To whom notifications go, and on which channels: looked up for a group at once. */
import type { Recipient as Person } from '../../contracts/accounts.ts';
import { keyedHash } from '../../lib/pins.ts';
import type { Channel } from '../../lib/providers/provider.ts';
import { type Contents, passesAll, type Request } from './notification.ts';
import { quietUntil } from './quiet-hours.ts';

/** Where somebody can be reached, and when. */
export interface Recipient {
  language: 'en' | 'hi';
  /** In the order in which they are tried; those that are closed to this notification left out. */
  channels: Channel[];
  /** ms; null when no quiet hours are now. */
  quietUntil: number | null;
  phone: string | null;
  email: string | null;
  pushToken: string | null;
}

/** Under which an address is found that must not be written to: not the address, and the same for it everywhere. */
export const suppressionId = (hashSecret: string, channel: Channel, address: string): string =>
  `${channel}:${keyedHash(hashSecret, address.toLowerCase())}`;

const everyChannel: Channel[] = ['push', 'whatsapp', 'sms', 'email'];

type Addresses = Pick<Recipient, 'phone' | 'email' | 'pushToken'>;

const addressOn = (channel: Channel, { phone, email, pushToken }: Addresses): string | null =>
  channel === 'push' ? pushToken : channel === 'email' ? email : phone;

/** `isClosed`: an address that must not be written to on a channel. Pure. */
export function recipientOf(
  request: Request,
  contents: Pick<Contents, 'phone' | 'email'>,
  person: Person | null,
  isClosed: (channel: Channel, address: string) => boolean,
  now: number,
): Recipient {
  const addresses: Addresses = {
    phone: person?.phone ?? contents.phone ?? null,
    email: person?.email ?? contents.email ?? null,
    pushToken: person?.pushToken ?? null,
  };
  const passes = passesAll(request);
  const { preferences } = person ?? {};
  const wanted = preferences
    ? passes && preferences.channels.length === 0
      ? everyChannel
      : preferences.channels
    : (request.channels ?? (contents.email ? ['email' as const] : ['sms' as const]));
  const named = request.channels;
  const inOrder = named
    ? named.filter((channel) => passes || !preferences || wanted.includes(channel))
    : wanted;
  const channels = inOrder.filter((channel) => {
    const address = addressOn(channel, addresses);
    return address !== null && (passes || channel === 'push' || !isClosed(channel, address));
  });
  return {
    ...addresses,
    channels: [...new Set(channels)],
    language: preferences?.language ?? 'en',
    quietUntil: preferences ? quietUntil(now, preferences.timeZone, preferences.quietHours) : null,
  };
}

/** What is asked for in one go. */
export interface Asked {
  id: string;
  request: Request;
  contents: Contents;
}

export interface RecipientParts {
  /** Those of these users that there are. */
  peopleOf: (userIds: string[]) => Promise<Person[]>;
  /** Those of these ids that are closed (`suppressionId`). */
  closed: (ids: string[]) => Promise<Set<string>>;
  hashSecret: string;
  now: () => number;
}

/**
 * The recipients of a group, by the notification's id; null for a user that there is not, an error for whoever cannot be looked up now.
 * What is urgent goes on when nobody can say who has opted out.
 */
export async function recipientsOf(
  asked: readonly Asked[],
  { peopleOf, closed, hashSecret, now }: RecipientParts,
): Promise<Map<string, Recipient | null | Error>> {
  const userIds = new Set(asked.flatMap(({ request }) => request.userId ?? []));
  const people = new Map<string, Person>();
  let nobodyKnown: Error | undefined;
  if (userIds.size > 0) {
    const found = await peopleOf([...userIds]).catch(asError);
    if (found instanceof Error) nobodyKnown = found;
    else for (const person of found) people.set(person.userId, person);
  }
  const found = asked.map(({ id, request, contents }) => {
    const person = request.userId === null ? null : (people.get(request.userId) ?? null);
    return { id, request, contents, person, isMissing: request.userId !== null && person === null };
  });
  const idsOf = ({ contents, person }: (typeof found)[number]) => {
    const phone = person?.phone ?? contents.phone;
    const email = person?.email ?? contents.email;
    return [
      ...(phone
        ? (['sms', 'whatsapp'] as const).map((channel) => suppressionId(hashSecret, channel, phone))
        : []),
      ...(email ? [suppressionId(hashSecret, 'email', email)] : []),
    ];
  };
  const ids = found.filter(({ request }) => !passesAll(request)).flatMap(idsOf);
  const shut = ids.length === 0 ? new Set<string>() : await closed([...new Set(ids)]).catch(asError);
  const isClosed = (channel: Channel, address: string) =>
    !(shut instanceof Error) && shut.has(suppressionId(hashSecret, channel, address));
  const recipient = ({ request, contents, person, isMissing }: (typeof found)[number]) => {
    if (nobodyKnown && request.userId !== null) return nobodyKnown;
    if (isMissing) return null;
    if (shut instanceof Error && !passesAll(request) && request.lane !== 'high') return shut;
    return recipientOf(request, contents, person, isClosed, now());
  };
  return new Map(found.map((one) => [one.id, recipient(one)]));
}

const asError = (error: unknown): Error => (error instanceof Error ? error : new Error(String(error)));
