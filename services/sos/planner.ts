/**
 * From an alert to the jobs that it needs: what has come up since it was taken, and what its door has not queued. The database's
 * copy is written beside, each step timed; admins have the alert since it was taken.
 */
import type { Log } from '../../lib/context.ts';
import { type AlertRecord, messageField, queued } from './alert-record.ts';
import { dutiesOf } from './duties.ts';
import { type Follow, type FollowJob, type JobToAdd, jobsOfNew } from './follow-jobs.ts';
import { firstDuty, type Plan, type SosRecords } from './records.ts';

export interface PlannerParts {
  records: SosRecords;
  escalateAfterMs: number;
  logger: Log;
  metrics: { observe(name: string, value: number, labels?: Record<string, string>): void };
  follow: Follow;
  now: () => number;
}

/** The database's step is left behind after so long, ms; the next begins after ten times what it took: the sweep does the rest. */
const dbDeadlineMs = 5000;
const dbPause = 10;

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
    this.copy(project);
    await this.#timed('jobs', () => this.#queue(records));
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

  /** The database's step must not hold up or fail anything else. In a burst most of it is left to the sweep. */
  copy(project: () => Promise<void>): void {
    if (this.#beside || performance.now() < this.#notBefore) return;
    const [step, began] = ['db', performance.now()];
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_resolve, reject) => {
      timer = setTimeout(() => reject(new Error(`Not done in ${dbDeadlineMs} ms`)), dbDeadlineMs);
    });
    this.#beside = Promise.race([this.#timed(step, project), late])
      .catch((error: unknown) => this.#parts.logger.warn('A step of an SOS is late', { step, error }))
      .finally(() => {
        clearTimeout(timer);
        this.#beside = undefined;
        const now = performance.now();
        this.#notBefore = now + dbPause * (now - began);
      });
  }

  async #queue(all: readonly AlertRecord[]): Promise<void> {
    const { records, follow, now } = this.#parts;
    // Of most alerts nothing is left to do: their door has seen to it
    const open = all.filter(({ planned, duty }) => !planned || duty !== firstDuty);
    // Written down, then queued, then off the index: a crash in between does it again
    await records.plan(
      open.map((record) => this.#toldOver(record)),
      now(),
    );
    await follow(this.#jobsOf(open));
    await records.clear(open);
  }

  /** Who has to hear of the end. */
  #toldOver(record: AlertRecord): Plan {
    const fields: Record<string, string> = {};
    for (const contact of dutiesOf(record).tellOver) {
      const raised = record.messages.find((message) => message.contact === contact);
      const channel = raised?.state.channel === 'push' ? 'push' : null;
      const state = queued(raised?.state.name ?? '', this.#parts.now(), false, channel);
      fields[messageField('over', contact)] = JSON.stringify(state);
    }
    return { record, entry: null, fields };
  }

  #jobsOf(records: readonly AlertRecord[]): JobToAdd<FollowJob>[] {
    const { now, escalateAfterMs } = this.#parts;
    const unplanned = records.filter((record) => dutiesOf(record).plan);
    const jobs = jobsOfNew(unplanned, { escalateAfterMs, now: now() });
    for (const record of records) {
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
}
