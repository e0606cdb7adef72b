/** Wakes the person on call: an incident and a phone call, when nobody has acknowledged, under duress, or when contacts cannot be reached. */
import type { Log } from '../../lib/context.ts';
import type { SosProviders } from '../../lib/providers/sos-providers.ts';
import type { AlertRecord } from './alert-record.ts';
import { isOver } from './alert-state.ts';
import type { Follow, WakeJob, WakeReason } from './follow-jobs.ts';
import { mapUrl } from './map-url.ts';
import type { SosRecords } from './records.ts';

export interface WakerParts {
  records: SosRecords;
  providers: Pick<SosProviders, 'voice' | 'pager'>;
  onCallPhone: string;
  /** Where incidents come from: this host. */
  source: string;
  logger: Log;
  metrics: { increment(name: string, labels?: Record<string, string>, value?: number): void };
  follow: Follow;
  now: () => number;
}

const timeoutMs = 5000;
/** PagerDuty takes some 120 events a minute; beyond this many, one incident stands for all. */
const maxPagesPerMinute = 60;
/** One call at a time is enough, ms: whoever is on call sees the others in the incidents. */
const callForMs = 60_000;

const reasons: Record<WakeReason, string> = {
  unacknowledged: 'nobody has acknowledged it',
  duress: 'it was called off with the duress PIN',
  unreached: 'an emergency contact could not be reached',
};

/** Does the alert still need somebody woken? A drill never does. */
export function needsWaking(record: AlertRecord, reason: WakeReason): boolean {
  if (record.press.drill || isOver(record.status)) return false;
  return reason === 'unacknowledged' ? record.status === 'active' : true;
}

export class Waker {
  readonly #parts: WakerParts;

  constructor(parts: WakerParts) {
    this.#parts = parts;
  }

  /** Rejects when a provider or Redis does: the job runs again, later each time. */
  async wake(job: WakeJob): Promise<void> {
    if (job.part === 'check') return this.#check(job.ids, job.reason);
    const record = await this.#parts.records.read(job.id);
    if (!record) return;
    if (job.part === 'incident') return this.#open(record, job.reason);
    if (job.part === 'call') return this.#call(record, job.reason);
    const { pager } = this.#parts.providers;
    await pager[job.part](record.alertId, { timeoutMs });
    await this.#parts.records.note(record.alertId, {
      at: this.#parts.now(),
      what: job.part === 'resolve' ? 'incident-resolved' : 'incident-acknowledged',
    });
  }

  /** After the last run: the feed and the log are all that is left. */
  async giveUp(job: WakeJob, error: Error): Promise<void> {
    const { records, logger, metrics, now } = this.#parts;
    logger.error('The person on call could not be told of an SOS', { part: job.part, error });
    metrics.increment('sos.exhausted.total', { what: job.part });
    for (const alertId of 'ids' in job ? job.ids : [job.id]) {
      const what = `${job.part}-failed`;
      await records.note(alertId, { at: now(), what }, { what, sound: true });
      await records.bury({ alertId, contact: 'on-call', purpose: job.part, at: now() });
    }
  }

  async #check(ids: readonly string[], reason: WakeReason): Promise<void> {
    const found = (await this.#parts.records.readMany(ids)).filter((record) => record !== null);
    const jobs = found.flatMap((record) => {
      if (!needsWaking(record, reason)) return [];
      const { alertId: id } = record;
      return (['incident', 'call'] as const).map((part) => ({
        data: { kind: 'wake' as const, part, id, reason },
        options: { jobId: `${part}:${reason}:${id}` },
      }));
    });
    if (jobs.length > 0) await this.#parts.follow(jobs);
  }

  async #open(record: AlertRecord, reason: WakeReason): Promise<void> {
    const { records, providers, source, now } = this.#parts;
    const { alertId, tripId, location, acceptedAt } = record;
    if (!needsWaking(record, reason)) return;
    const isStorm = (await records.countPage(now())) > maxPagesPerMinute;
    const hour = new Date(now()).toISOString().slice(0, 13);
    await providers.pager.trigger(
      isStorm
        ? {
            dedupKey: `sos-storm-${hour}`,
            summary: 'Many SOS alerts at once need somebody: see the admin page',
            source,
            at: now(),
          }
        : {
            dedupKey: alertId,
            summary: `SOS of ${record.name || 'a user'}: ${reasons[reason]}`,
            source,
            at: acceptedAt,
            details: { alertId, reason, ...(tripId === null ? {} : { tripId }) },
            ...(location === null ? {} : { links: [{ href: mapUrl(location), text: 'Map' }] }),
          },
      { timeoutMs },
    );
    const entry = { at: now(), what: isStorm ? 'incident-of-many' : 'incident-opened', note: reason };
    if (isStorm) return records.note(alertId, entry);
    await records.paged(alertId, entry);
    // Acknowledged while it was being opened: the incident has to follow
    const after = await records.read(alertId);
    if (!after || after.status === 'active') return;
    const part = isOver(after.status) ? ('resolve' as const) : ('acknowledge' as const);
    await this.#parts.follow([
      { data: { kind: 'wake', part, id: alertId }, options: { jobId: `${part}:late:${alertId}` } },
    ]);
  }

  async #call(record: AlertRecord, reason: WakeReason): Promise<void> {
    const { records, providers, onCallPhone, now } = this.#parts;
    if (!needsWaking(record, reason)) return;
    if (!(await records.claimCall(record.alertId, callForMs)))
      return records.note(record.alertId, { at: now(), what: 'on-call-being-called' });
    try {
      const say = `This is the ride safety system. There is an S O S of ${record.name || 'a user'}: ${reasons[reason]}. Look at the admin page now.`;
      await providers.voice.call({ to: onCallPhone, say }, { timeoutMs });
    } catch (error) {
      await records.releaseCall();
      throw error;
    }
    await records.note(record.alertId, { at: now(), what: 'on-call-called', note: reason });
  }
}
