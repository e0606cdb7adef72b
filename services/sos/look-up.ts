/** Who hears of an alert: its contacts, written down with their messages before anything is sent, and the link that they get. */
import type { Log } from '../../lib/context.ts';
import type { Sealer } from '../../lib/sealed.ts';
import type { Card } from '../../mixins/cards.ts';
import { type AlertRecord, messageField, queued } from './alert-record.ts';
import { type KeyedContact, openContacts } from './contact-messages.ts';
import type { Plan, SosRecords } from './records.ts';
import { pushKeyOf } from './ways.ts';

export interface LookUpParts {
  records: SosRecords;
  sealer: Sealer;
  hashSecret: string;
  /** Rejects when nobody can say whom to tell. */
  cardOf(userId: string): Promise<Pick<Card, 'name' | 'contacts' | 'pin' | 'duressPin' | 'language'>>;
  /** Tokens of the app's installations, sealed, of those contacts (by key) who have it. */
  devicesOf(contacts: readonly string[]): Promise<Map<string, string>>;
  /** A link that follows the raiser without a login. */
  linkOf(record: AlertRecord): Promise<string>;
  logger: Log;
  now: () => number;
}

/** Of an alert that has been taken: its contacts as the card at that moment had them, or has them now. */
async function planOf(parts: LookUpParts, record: AlertRecord): Promise<Plan & { contacts: KeyedContact[] }> {
  const { sealer, hashSecret, logger, now } = parts;
  const { drill } = record.press;
  const fields: Record<string, string> = {};
  let sealed = record.contacts;
  if (sealed === null) {
    const card = await parts.cardOf(record.userId);
    sealed = card.contacts;
    const { name, pin, duressPin, language } = card;
    Object.assign(fields, {
      name,
      contacts: sealed,
      pin: pin ?? '',
      duressPin: duressPin ?? '',
      language,
    });
  }
  const contacts = openContacts(sealer, hashSecret, sealed);
  for (const { key, name } of contacts)
    fields[messageField('raised', key)] = JSON.stringify(queued(name, now(), drill));
  if (contacts.length > 0 && !drill && record.link === null) {
    const link = await parts.linkOf(record).catch((error: unknown) => {
      logger.warn('An SOS goes out without its link', { alertId: record.alertId, error });
      return null;
    });
    if (link !== null) fields.link = sealer.seal(link);
  }
  // Also without any contact it is said once
  fields.looked = '1';
  const entry = { at: now(), what: contacts.length > 0 ? 'contacts-queued' : 'no-contacts' };
  return { record, entry, fields, contacts };
}

/** Contacts who have the app get a push message beside the text. Texts go out without it when nobody can say who has. */
async function addPush(
  parts: LookUpParts,
  plans: readonly (Plan & { contacts: KeyedContact[] })[],
): Promise<void> {
  const { sealer, logger, now } = parts;
  const keys = new Set(plans.flatMap(({ contacts }) => contacts.map(({ key }) => key)));
  const devices = await parts.devicesOf([...keys]).catch((error: unknown) => {
    logger.warn('An SOS goes out without push messages', { alerts: plans.length, error });
    return new Map<string, string>();
  });
  for (const { record, fields, contacts } of plans)
    for (const { key, name } of contacts) {
      if (tokensOf(sealer, devices.get(key)).length === 0) continue;
      const state = queued(name, now(), record.press.drill, 'push');
      fields[messageField('raised', pushKeyOf(key))] = JSON.stringify(state);
    }
}

/** The tokens of a contact who has the app; none of one who has not. */
export const tokensOf = (sealer: Sealer, sealed: string | undefined): string[] =>
  sealed === undefined ? [] : (JSON.parse(sealer.open(sealed)) as string[]);

/**
 * These alerts with their contacts written down: what is there already stays as it is. `unknown`: why it could not be found out
 * for some; they are answered as they were.
 */
export async function lookUp(
  parts: LookUpParts,
  found: readonly AlertRecord[],
): Promise<{ records: AlertRecord[]; unknown: unknown[] }> {
  const { records, logger, now } = parts;
  const fresh = found.filter(({ looked }) => !looked);
  if (fresh.length === 0) return { records: [...found], unknown: [] };
  const plans: Awaited<ReturnType<typeof planOf>>[] = [];
  const unknown: unknown[] = [];
  await Promise.all(
    fresh.map(async (record) => {
      try {
        plans.push(await planOf(parts, record));
      } catch (error) {
        unknown.push(error);
        const { alertId } = record;
        logger.error('Whom to tell of an SOS could not be found out', { alertId, error });
      }
    }),
  );
  await addPush(parts, plans);
  await records.plan(plans, now());
  for (const { record, entry } of plans) {
    if (entry?.what === 'no-contacts' && !record.press.drill)
      await records.tell(record.alertId, { what: 'no-contacts' });
  }
  const after = await records.readMany(found.map(({ alertId }) => alertId));
  return { records: after.filter((record) => record !== null), unknown };
}
