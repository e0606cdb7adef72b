/** The jobs that follow from an alert. Ids are made of what the job does, so that a job that is added twice is one. */
import type { Jobs } from '../../mixins/queue.ts';
import type { Purpose } from './alert-record.ts';

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
