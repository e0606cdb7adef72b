/**
 * From an alert to the jobs that it needs. The database's copy is written beside, each step timed; admins have the alert since it
 * was taken.
 */
import { createHash } from 'node:crypto';
import type { Log } from '../../lib/context.ts';
import type { Sealer } from '../../lib/sealed.ts';
import type { Card } from '../../mixins/cards.ts';
import { type AlertRecord, messageField, queued } from './alert-record.ts';
import { openContacts } from './contact-messages.ts';
import { dutiesOf } from './duties.ts';
import type { Follow, FollowJob, JobToAdd } from './follow-jobs.ts';
import type { Plan, SosRecords } from './records.ts';

export interface PlannerParts {
  records: SosRecords;
  sealer: Sealer;
  hashSecret: string;
  escalateAfterMs: number;
  logger: Log;
  metrics: { observe(name: string, value: number, labels?: Record<string, string>): void };
  /** Rejects when nobody can say whom to tell. */
  cardOf(userId: string): Promise<Pick<Card, 'name' | 'contacts' | 'pin' | 'duressPin'>>;
  /** A link that follows the raiser without a login. */
  linkOf(record: AlertRecord): Promise<string>;
  follow: Follow;
  now: () => number;
}

/** Alerts whose messages go in one job: enough to keep a worker busy, few enough that a killed one loses little time. */
const alertsPerSend = 25;
/** The database's step is left behind after so long, and begins so long after the one before; the sweep does the rest, ms. */
const dbDeadlineMs = 5000;
const dbPauseMs = 200;

/** Of these alerts and no others: a job under the id of another group would be taken for that one's. */
const groupId = (ids: readonly string[]): string =>
  createHash('sha256').update(ids.join()).digest('hex').slice(0, 24);

/** What planning an alert came to: `null` when whom to tell could not be found out yet. */
interface Planned extends Plan {
  hasContacts: boolean;
}

export class Planner {
  readonly #parts: PlannerParts;
  #beside: Promise<void> | undefined;
  #notBefore = 0;

  constructor(parts: PlannerParts) {
    this.#parts = parts;
  }

  /**
   * Rejects only when what the alerts need is not safely queued, and resolves as soon as it is. `project` writes the alerts to
   * the database, beside it.
   */
  async process(records: AlertRecord[], project: () => Promise<void>): Promise<void> {
    this.#aside('db', project);
    await this.#timed('messages', () => this.#queue(records));
  }

  /** Resolves when the step that runs beside is done, or late. */
  async settled(): Promise<void> {
    await this.#beside;
  }

  async #timed(step: string, work: () => Promise<void>): Promise<void> {
    const began = performance.now();
    try {
      await work();
    } finally {
      this.#parts.metrics.observe('sos.step.time', performance.now() - began, { step });
    }
  }

  /** The database's step must not hold up or fail the messages. In a burst most of it is left to the sweep. */
  #aside(step: string, work: () => Promise<void>): void {
    if (this.#beside || performance.now() < this.#notBefore) return;
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_resolve, reject) => {
      timer = setTimeout(() => reject(new Error(`Not done in ${dbDeadlineMs} ms`)), dbDeadlineMs);
    });
    this.#beside = Promise.race([this.#timed(step, work), late])
      .catch((error: unknown) => this.#parts.logger.warn('A step of an SOS is late', { step, error }))
      .finally(() => {
        clearTimeout(timer);
        this.#beside = undefined;
        this.#notBefore = performance.now() + dbPauseMs;
      });
  }

  async #queue(records: readonly AlertRecord[]): Promise<void> {
    const { records: kept, follow, now } = this.#parts;
    const plans = await Promise.all(records.map((record) => this.#plan(record)));
    const planned = plans.filter((plan) => plan !== null);
    const unknown = records.filter((_, index) => plans[index] === null).map(({ alertId }) => alertId);
    await kept.unqueued(unknown, now());
    // Written down, then queued, then planned and off the index: a crash in between does it again
    await kept.plan(planned, now());
    await follow(this.#jobsOf(planned));
    await kept.clear(planned.map(({ record }) => record));
    await Promise.all(planned.map((plan) => this.#sayNoContacts(plan)));
  }

  async #plan(record: AlertRecord): Promise<Planned | null> {
    const { sealer, hashSecret, logger, now } = this.#parts;
    const { plan, tellOver } = dutiesOf(record);
    const fields: Record<string, string> = {};
    const { drill } = record.press;
    for (const contact of tellOver) {
      const raised = record.messages.find((message) => message.contact === contact);
      fields[messageField('over', contact)] = JSON.stringify(queued(raised?.state.name ?? '', now(), false));
    }
    if (!plan) return { record, entry: null, fields, hasContacts: true };
    try {
      let sealed = record.contacts;
      if (sealed === null) {
        const card = await this.#parts.cardOf(record.userId);
        sealed = card.contacts;
        const { name, pin, duressPin } = card;
        Object.assign(fields, { name, contacts: sealed, pin: pin ?? '', duressPin: duressPin ?? '' });
      }
      const contacts = openContacts(sealer, hashSecret, sealed);
      for (const { key, name } of contacts)
        fields[messageField('raised', key)] = JSON.stringify(queued(name, now(), drill));
      if (contacts.length > 0 && !drill && record.link === null) {
        const link = await this.#parts.linkOf(record).catch((error: unknown) => {
          logger.warn('An SOS goes out without its link', { alertId: record.alertId, error });
          return null;
        });
        if (link !== null) fields.link = sealer.seal(link);
      }
      // Also without any contact it is said once
      fields.looked = '1';
      const entry = { at: now(), what: contacts.length > 0 ? 'contacts-queued' : 'no-contacts' };
      return { record, entry, fields, hasContacts: contacts.length > 0 };
    } catch (error) {
      // It stays in the index: the sweep tries again
      logger.error('Whom to tell of an SOS could not be found out', { alertId: record.alertId, error });
      return null;
    }
  }

  #jobsOf(planned: readonly Planned[]): JobToAdd<FollowJob>[] {
    const { now, escalateAfterMs } = this.#parts;
    const jobs: JobToAdd<FollowJob>[] = [];
    const fresh = planned.filter(({ record }) => dutiesOf(record).plan && !record.press.drill);
    const told = fresh.flatMap(({ record, hasContacts }) => (hasContacts ? [record.alertId] : []));
    for (let start = 0; start < told.length; start += alertsPerSend) {
      const ids = told.slice(start, start + alertsPerSend);
      jobs.push({
        data: { kind: 'send', ids, purpose: 'raised' },
        options: { jobId: `raised:${groupId(ids)}` },
      });
    }
    if (fresh.length > 0) {
      const ids = fresh.map(({ record }) => record.alertId);
      const newest = Math.max(...fresh.map(({ record }) => record.acceptedAt));
      const delay = Math.max(0, newest + escalateAfterMs - now());
      jobs.push({
        data: { kind: 'wake', part: 'check', ids, reason: 'unacknowledged' },
        options: { jobId: `wake:${groupId(ids)}`, delay },
      });
    }
    for (const { record } of planned) {
      const { tellOver, wake, pager } = dutiesOf(record);
      const { alertId: id } = record;
      // Written down before: their job may have been lost on the way to the queue
      const isWritten = record.messages.some(
        ({ purpose, state }) => purpose === 'over' && state.status === 'queued',
      );
      if (tellOver.length > 0 || isWritten)
        jobs.push({ data: { kind: 'send', ids: [id], purpose: 'over' }, options: { jobId: `over:${id}` } });
      if (wake)
        jobs.push({
          data: { kind: 'wake', part: 'check', ids: [id], reason: 'duress' },
          options: { jobId: `duress:${id}` },
        });
      if (pager) jobs.push({ data: { kind: 'wake', part: pager, id }, options: { jobId: `${pager}:${id}` } });
    }
    return jobs;
  }

  async #sayNoContacts({ record, entry }: Planned): Promise<void> {
    if (entry?.what !== 'no-contacts' || record.press.drill) return;
    const { alertId, status } = record;
    await this.#parts.records.tell({ alertId, status, what: 'no-contacts' });
  }
}
