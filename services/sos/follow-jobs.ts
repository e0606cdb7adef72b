/** The jobs that follow from an alert. Ids are made of what the job does, so that a job that is added twice is one. */
import { createHash } from 'node:crypto';
import type { Jobs } from '../../mixins/queue.ts';
import type { Purpose } from './alert-record.ts';

/** Alerts to copy to the database and, unless they are `fresh` from their door, to queue for what they need. */
export interface ProcessJob {
  ids: string[];
  fresh?: boolean;
}

/** Messages to contacts: of these alerts all that are due, or one message's next attempt. */
export interface SendJob {
  kind: 'send';
  ids: string[];
  purpose: Purpose;
  /** Of one alert, this contact alone. */
  contact?: string;
}

/** Why somebody has to be woken: nobody has acknowledged, the duress PIN was used, or a contact could not be reached. */
export type WakeReason = 'unacknowledged' | 'duress' | 'unreached';

/** Somebody on our side has to know. `check`: of these alerts those that still need it, each by a job of its own. */
export type WakeJob = { kind: 'wake' } & (
  | { part: 'check'; ids: string[]; reason: WakeReason }
  | { part: 'incident' | 'call'; id: string; reason: WakeReason }
  | { part: 'acknowledge' | 'resolve'; id: string }
);

export type FollowJob = SendJob | WakeJob;

export interface JobToAdd<D> {
  data: D;
  options: { jobId: string; delay?: number };
}

/** Alerts whose messages go in one job: enough to keep a worker busy, few enough that a killed one loses little time. */
const alertsPerSend = 25;
/** Alerts that are looked at in one job, after the time in which somebody should have acknowledged them. */
const alertsPerCheck = 200;

/** Of these alerts and no others: a job under the id of another group would be taken for that one's. */
const groupId = (ids: readonly string[]): string =>
  createHash('sha256').update(ids.join()).digest('hex').slice(0, 24);

/** What new alerts need: their contacts told, and somebody woken if nobody has acknowledged `escalateAfterMs` after the last. */
export function jobsOfNew(
  alerts: readonly { alertId: string; acceptedAt: number }[],
  { escalateAfterMs, now }: { escalateAfterMs: number; now: number },
): JobToAdd<FollowJob>[] {
  const ids = alerts.map(({ alertId }) => alertId);
  const jobs: JobToAdd<FollowJob>[] = [];
  for (let start = 0; start < ids.length; start += alertsPerSend) {
    const some = ids.slice(start, start + alertsPerSend);
    jobs.push({
      data: { kind: 'send', ids: some, purpose: 'raised' },
      options: { jobId: `raised:${groupId(some)}` },
    });
  }
  for (let start = 0; start < alerts.length; start += alertsPerCheck) {
    const some = alerts.slice(start, start + alertsPerCheck);
    const checked = some.map(({ alertId }) => alertId);
    const newest = Math.max(...some.map(({ acceptedAt }) => acceptedAt));
    jobs.push({
      data: { kind: 'wake', part: 'check', ids: checked, reason: 'unacknowledged' },
      options: { jobId: `wake:${groupId(checked)}`, delay: Math.max(0, newest + escalateAfterMs - now) },
    });
  }
  return jobs;
}

/** How long each step of processing takes, by step. */
export const stepTime = {
  type: 'histogram' as const,
  name: 'sos.step.time',
  labelNames: ['step'],
  unit: 'ms',
  quantiles: true,
  description: 'Time of each step in processing a group of alerts',
};

/** Adds jobs in one round trip; resolves when Redis has them. */
export type Follow = (jobs: JobToAdd<FollowJob>[]) => Promise<void>;

/**
 * A killed worker's jobs go on elsewhere within 5 s, ms: its lock ends, then the next check finds them. Workers take turns in
 * checking, so two checks may lie twice as far apart.
 */
export const sosLock = { lockMs: 3000, stalledMs: 500 } as const;

export const followQueue = { name: 'sos-send', as: 'following', redis: 'sos', ...sosLock } as const;

/** Runs of a job before it is given up: 1, 2, 4 … s apart, some two minutes in all. */
const attempts = 8;

export const toFollow =
  (jobs: Jobs<FollowJob>): Follow =>
  (list) =>
    jobs.addBulk(
      list.map(({ data, options }) => ({
        data,
        options: { attempts, backoff: { type: 'jittered' }, ...options },
      })),
    );
