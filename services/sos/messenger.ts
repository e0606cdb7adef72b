/**
 * Messages to emergency contacts. Each attempt is claimed in the alert's record before it is made and recorded after it; what
 * fails gets its next attempt as a job of its own. At the end somebody knows.
 */
import type { Log } from '../../lib/context.ts';
import type { SmsProvider } from '../../lib/providers/sms.ts';
import type { Sealer } from '../../lib/sealed.ts';
import { type AlertRecord, type MessageState, messageField, type Purpose } from './alert-record.ts';
import { isOver } from './alert-state.ts';
import { attempt, claimed, dueNext, type KeyedContact, messageTo, openContacts } from './contact-messages.ts';
import type { Follow, SendJob } from './follow-jobs.ts';
import type { SosRecords } from './records.ts';
import { Semaphore } from './semaphore.ts';

export interface MessengerParts {
  records: SosRecords;
  sealer: Sealer;
  hashSecret: string;
  sms: readonly SmsProvider[];
  logger: Log;
  metrics: { increment(name: string, labels?: Record<string, string>, value?: number): void };
  follow: Follow;
  now: () => number;
}

/** Messages under way at once in a process. */
const maxUnderWay = 200;

interface One {
  record: AlertRecord;
  contact: KeyedContact;
  purpose: Purpose;
  state: MessageState;
}

export class Messenger {
  readonly #parts: MessengerParts;
  readonly #underWay = new Semaphore(maxUnderWay);

  constructor(parts: MessengerParts) {
    this.#parts = parts;
  }

  /** Makes the attempts that are due. Rejects when Redis does not record them: the job then runs again. */
  async send({ ids, purpose, contact }: SendJob): Promise<void> {
    const records = await this.#parts.records.readMany(ids);
    const all = records.flatMap((record) => (record ? this.#messagesOf(record, purpose) : []));
    const wanted = all.filter((one) => contact === undefined || one.contact.key === contact);
    // One alert's failure never fails its group: all are tried, then the job fails if any has to be done again
    const results = await Promise.allSettled(
      wanted.map((one) => this.#underWay.run(() => this.#advance(one))),
    );
    const failed = results.find((result) => result.status === 'rejected');
    if (failed) throw failed.reason;
  }

  /** After the last run of a job: what it has not sent reached nobody. */
  async giveUp({ ids, purpose, contact }: SendJob, error: Error): Promise<void> {
    const { records, logger, metrics, now } = this.#parts;
    logger.error('Messages of an SOS could not be sent', { alerts: ids.length, purpose, error });
    metrics.increment('sos.exhausted.total', { what: 'job' });
    for (const alertId of ids) await records.bury({ alertId, contact: contact ?? 'all', purpose, at: now() });
  }

  #messagesOf(record: AlertRecord, purpose: Purpose): One[] {
    const { sealer, hashSecret } = this.#parts;
    // Whoever has not heard of it need not hear of it once it is over
    if (record.contacts === null || (purpose === 'raised' && isOver(record.status))) return [];
    const contacts = new Map(
      openContacts(sealer, hashSecret, record.contacts).map((contact) => [contact.key, contact]),
    );
    return record.messages.flatMap((message) => {
      const contact = contacts.get(message.contact);
      const { state } = message;
      const isOpen = state.status === 'queued' || state.status === 'sending' || state.status === 'failed';
      return contact && message.purpose === purpose && isOpen ? [{ record, contact, purpose, state }] : [];
    });
  }

  /** The next attempt at a message, or the job that will make it. */
  async #advance(one: One): Promise<void> {
    const { sms, now, records } = this.#parts;
    const { record, contact, purpose, state } = one;
    const due = dueNext(sms, state);
    if (!due) return;
    // A failed one waits for its turn; its job has no delay any more when it comes
    if (state.status === 'failed' && due.delayMs > 0 && now() - state.at < due.delayMs / 2)
      return this.#later(one, due);
    // A claim without an outcome is the provider's that had it
    const unfinished = state.status === 'sending';
    const provider = sms.find(({ name }) => name === (unfinished ? state.provider : due.channel));
    if (!provider) throw new Error(`No provider ${due.channel}`);
    const claim = claimed(state, provider.name, now());
    const field = messageField(purpose, contact.key);
    if (!(await records.claim(record.alertId, field, state, claim))) return;
    const message = messageTo(contact, purpose, {
      name: record.name,
      status: record.status,
      location: record.location,
      link: record.link === null ? null : this.#parts.sealer.open(record.link),
    });
    const since = unfinished ? state.at : null;
    const { state: after, resent } = await attempt(provider, message, claim, now, since);
    if (resent) this.#parts.metrics.increment('sos.resent.total');
    await this.#record({ ...one, state: after });
  }

  async #record(one: One): Promise<void> {
    const { records, metrics, sms } = this.#parts;
    const { record, contact, purpose, state } = one;
    const field = messageField(purpose, contact.key);
    const who = `${state.name}, sms by ${state.provider}`;
    if (state.status === 'sent') {
      metrics.increment('sos.messages.total', { outcome: 'sent', from: 'worker' });
      const what = purpose === 'raised' ? 'contact-told' : 'contact-told-over';
      await records.outcome(record.alertId, field, state, { at: state.at, what, note: who });
      return;
    }
    const due = dueNext(sms, state);
    const note = `${who}: ${state.code ?? 'failed'}`;
    if (due) {
      metrics.increment('sos.messages.total', { outcome: 'retried', from: 'worker' });
      await records.outcome(record.alertId, field, state, { at: state.at, what: 'contact-try-failed', note });
      return this.#later(one, due);
    }
    metrics.increment('sos.messages.total', { outcome: 'failed', from: 'worker' });
    metrics.increment('sos.exhausted.total', { what: 'contact' });
    const { alertId, status } = record;
    const told = { alertId, status, what: 'contact-not-reached', note: state.name };
    await records.outcome(
      alertId,
      field,
      state,
      { at: state.at, what: 'contact-not-reached', note: state.name },
      told,
    );
    await records.bury({ alertId, contact: contact.key, purpose, at: state.at });
    await this.#parts.follow([
      {
        data: { kind: 'wake', part: 'check', ids: [alertId], reason: 'unreached' },
        options: { jobId: `unreached:${alertId}` },
      },
    ]);
  }

  async #later(
    { record, contact, purpose }: One,
    due: { channel: string; attempt: number; delayMs: number },
  ) {
    const { alertId } = record;
    await this.#parts.follow([
      {
        data: { kind: 'send', ids: [alertId], purpose, contact: contact.key },
        options: {
          jobId: `${purpose}:${alertId}:${contact.key}:${due.channel}:${due.attempt}`,
          delay: Math.round(due.delayMs),
        },
      },
    ]);
  }
}
