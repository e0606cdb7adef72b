/**
 * Messages to emergency contacts. Each attempt is claimed in the alert's record before it is made and recorded after it; what
 * fails gets its next attempt as a job of its own. At the end somebody knows.
 */
import { type AlertRecord, type MessageState, messageField, type Purpose } from './alert-record.ts';
import { isOver } from './alert-state.ts';
import {
  attempt,
  claimed,
  claimLastsMs,
  dueNext,
  type KeyedContact,
  lookBack,
  messageTo,
  openContacts,
  placeOf,
} from './contact-messages.ts';
import type { Follow, FollowJob, JobToAdd, SendJob } from './follow-jobs.ts';
import { type LookUpParts, lookUp, tokensOf } from './look-up.ts';
import { Semaphore } from './semaphore.ts';
import { contactKeyOf, isPushKey, type Way } from './ways.ts';

export interface MessengerParts extends LookUpParts {
  /** In the order in which they are tried; push beside the texts. */
  texts: readonly Way[];
  push: readonly Way[];
  metrics: { increment(name: string, labels?: Record<string, string>, value?: number): void };
  follow: Follow;
}

/** Messages under way at once in a process: each waits for a provider, 3.5 s where that hangs. */
const maxUnderWay = 500;

/** Waits for all, then rejects with the first that did. */
async function allThenFail(work: readonly Promise<void>[]): Promise<void> {
  const failed = (await Promise.allSettled(work)).find((result) => result.status === 'rejected');
  if (failed) throw failed.reason;
}

const unreachedJob = (alertId: string): JobToAdd<FollowJob> => ({
  data: { kind: 'wake', part: 'check', ids: [alertId], reason: 'unreached' },
  options: { jobId: `unreached:${alertId}` },
});

interface One {
  record: AlertRecord;
  contact: KeyedContact;
  /** Of the message: the contact's own, or that of their push message. */
  key: string;
  purpose: Purpose;
  state: MessageState;
  /** The job is for this message alone. */
  alone: boolean;
}

export class Messenger {
  readonly #parts: MessengerParts;
  readonly #underWay = new Semaphore(maxUnderWay);

  constructor(parts: MessengerParts) {
    this.#parts = parts;
  }

  /**
   * Looks up whom to tell, where that is still to be done, and makes the attempts that are due. Rejects when somebody cannot be
   * looked up, or when Redis does not record an attempt: the job then runs again.
   */
  async send(job: SendJob): Promise<void> {
    const found = (await this.#parts.records.readMany(job.ids)).filter((record) => record !== null);
    // Who has a card must not wait for who has none
    const groups = [
      found.filter(({ contacts }) => contacts !== null),
      found.filter(({ contacts }) => contacts === null),
    ];
    await allThenFail(groups.map((group) => this.#sendAll(group, job)));
  }

  async #sendAll(found: readonly AlertRecord[], { purpose, contact }: SendJob): Promise<void> {
    const { records, unknown } = await lookUp(this.#parts, found);
    const alone = contact !== undefined;
    const all = records.flatMap((record) => this.#messagesOf(record, purpose, alone));
    const wanted = all.filter((one) => !alone || one.key === contact);
    // One alert's failure never fails its group: all are tried, then the job fails if any has to be done again
    await allThenFail(wanted.map((one) => this.#underWay.run(() => this.#advance(one))));
    if (unknown.length > 0) throw unknown[0];
  }

  /** After the last run of a job: what it has not sent reached nobody, and the person on call has to know. */
  async giveUp({ ids, purpose, contact }: SendJob, error: Error): Promise<void> {
    const { records, logger, metrics, now, follow } = this.#parts;
    logger.error('Messages of an SOS could not be sent', { alerts: ids.length, purpose, error });
    metrics.increment('sos.exhausted.total', { what: 'job' });
    for (const alertId of ids) await records.bury({ alertId, contact: contact ?? 'all', purpose, at: now() });
    // Whether somebody is reached is up to the texts
    if (purpose !== 'raised' || (contact !== undefined && isPushKey(contact))) return;
    for (const record of await records.readMany(ids)) {
      if (!record || record.looked) continue;
      const what = 'contacts-unknown';
      await records.note(record.alertId, { at: now(), what }, { what, sound: true });
    }
    await follow(ids.map(unreachedJob));
  }

  #messagesOf(record: AlertRecord, purpose: Purpose, alone: boolean): One[] {
    const { sealer, hashSecret } = this.#parts;
    if (record.contacts === null) return [];
    // Whoever has not heard of it need not hear of it once it is over
    const isTooLate = purpose === 'raised' && isOver(record.status);
    const contacts = new Map(
      openContacts(sealer, hashSecret, record.contacts).map((contact) => [contact.key, contact]),
    );
    return record.messages.flatMap((message) => {
      const { contact: key, state } = message;
      const contact = contacts.get(contactKeyOf(key));
      const waits = !isTooLate && (state.status === 'queued' || state.status === 'failed');
      const isOpen = waits || state.status === 'sending';
      return contact && message.purpose === purpose && isOpen
        ? [{ record, contact, key, purpose, state, alone }]
        : [];
    });
  }

  /** The next attempt at a message, or the job that will make it. */
  async #advance(one: One): Promise<void> {
    const { now, records } = this.#parts;
    const { record, contact, key, purpose, state } = one;
    const ways = this.#waysOf(key);
    const due = dueNext(ways, state);
    if (!due) return;
    const sinceMs = now() - state.at;
    // A failed one waits for its turn; its job has no delay any more when it comes
    if (state.status === 'failed' && due.delayMs > 0 && sinceMs < due.delayMs / 2)
      return this.#later(one, `${due.channel}:${due.attempt}`, due.delayMs);
    // Somebody is at it, or has died over it
    const unfinished = state.status === 'sending';
    if (unfinished && sinceMs < claimLastsMs(state))
      return this.#later(one, `unfinished:${state.at}`, claimLastsMs(state) - sinceMs);
    const ahead = this.#ahead(one);
    if (ahead) return this.#later(one, `behind:${ahead.at}`, ahead.at + claimLastsMs(ahead) - now());
    // A claim without an outcome is the provider's that had it
    const provider = (unfinished ? state.provider : null) ?? due.channel;
    const way = ways.find((candidate) => candidate.name === provider);
    if (!way) throw new Error(`No provider ${provider}`);
    const devices = isPushKey(key) ? await this.#devicesOf(contact) : [];
    const location = placeOf(state, record.location);
    const claim = claimed(state, way, now(), location);
    const field = messageField(purpose, key);
    const allowed = await records.claim(record.alertId, field, state, claim);
    if (allowed === 'lost') return;
    const link = record.link === null ? null : this.#parts.sealer.open(record.link);
    const { name, language, status } = record;
    const told = { name, language, status, location, link };
    const message = messageTo(contact, purpose, told, devices);
    if (allowed === 'look-back') {
      const known = await lookBack(ways, message, claim, now);
      return this.#record({ ...one, state: known }, true);
    }
    const { state: after, resent } = await attempt(ways, message, claim, now);
    if (resent) this.#parts.metrics.increment('sos.resent.total');
    await this.#record({ ...one, state: after });
  }

  /** The attempt to tell the same contact of the alert, while it is under way: the end of it must not overtake it. */
  #ahead({ record, key, purpose }: One): MessageState | null {
    if (purpose !== 'over') return null;
    const raised = record.messages.find((message) => message.purpose === 'raised' && message.contact === key);
    if (raised?.state.status !== 'sending') return null;
    return this.#parts.now() - raised.state.at < claimLastsMs(raised.state) ? raised.state : null;
  }

  #waysOf(key: string): readonly Way[] {
    return isPushKey(key) ? this.#parts.push : this.#parts.texts;
  }

  async #devicesOf({ key }: KeyedContact): Promise<string[]> {
    const found = await this.#parts.devicesOf([key]);
    return tokensOf(this.#parts.sealer, found.get(key));
  }

  /** `isLast`: whatever came of it, there is no further attempt. */
  async #record(one: One, isLast = false): Promise<void> {
    const { records, metrics } = this.#parts;
    const { record, key, purpose, state } = one;
    const field = messageField(purpose, key);
    const who = `${state.name}, ${state.channel} by ${state.provider}`;
    if (state.status === 'sent') {
      metrics.increment('sos.messages.total', { outcome: 'sent', from: 'worker' });
      const what = purpose === 'raised' ? 'contact-told' : 'contact-told-over';
      await records.outcome(record.alertId, field, state, { at: state.at, what, note: who });
      return;
    }
    const failed = { at: state.at, what: 'contact-try-failed', note: `${who}: ${state.code ?? 'failed'}` };
    if (isLast) {
      metrics.increment('sos.messages.total', { outcome: 'unknown', from: 'worker' });
      await records.outcome(record.alertId, field, state, failed);
      return;
    }
    const due = dueNext(this.#waysOf(key), state);
    if (due) {
      metrics.increment('sos.messages.total', { outcome: 'retried', from: 'worker' });
      await records.outcome(record.alertId, field, state, failed);
      return this.#later({ ...one, alone: false }, `${due.channel}:${due.attempt}`, due.delayMs);
    }
    metrics.increment('sos.messages.total', { outcome: 'failed', from: 'worker' });
    metrics.increment('sos.exhausted.total', { what: isPushKey(key) ? 'push' : 'contact' });
    const { alertId } = record;
    await records.bury({ alertId, contact: key, purpose, at: state.at });
    // Whether somebody is reached is up to their text
    if (isPushKey(key)) {
      await records.outcome(alertId, field, state, failed);
      return;
    }
    const told = { what: 'contact-not-reached', note: state.name };
    await records.outcome(alertId, field, state, { at: state.at, ...told }, told);
    await this.#parts.follow([unreachedJob(alertId)]);
  }

  async #later({ record, key, purpose, alone }: One, what: string, delayMs: number): Promise<void> {
    // By a clock that is behind: a job cannot queue itself again under its own id, but it can fail and run again
    if (alone) throw new Error('It is too early for this attempt');
    const { alertId } = record;
    await this.#parts.follow([
      {
        data: { kind: 'send', ids: [alertId], purpose, contact: key },
        options: {
          jobId: `${purpose}:${alertId}:${key}:${what}`,
          delay: Math.round(delayMs),
        },
      },
    ]);
  }
}
