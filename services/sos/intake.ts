/**
 * Takes presses on SOS. An answer means that the press is safe: in the SOS Redis (and on a replica where there is one), or
 * fsynced on this machine when that is silent. Needs nothing else.
 */

import type { AlertLocation, AlertStatus } from '../../contracts/sos.ts';
import { backoffMs } from '../../lib/backoff.ts';
import type { Log } from '../../lib/context.ts';
import type { MessageState } from './alert-record.ts';
import type { Journal, Waiting } from './journal.ts';
import type { Press } from './read-press.ts';
import { firstDuty, RefusedError, type SosRecords } from './records.ts';

/** The answer to a press. */
export interface Accepted {
  alertId: string;
  status: AlertStatus;
  /** ms */
  acceptedAt: number;
}

export interface IntakeParts {
  records: SosRecords;
  /** Undefined when its directory cannot be written: then the SOS Redis is all there is. */
  journal: Journal | undefined;
  /** The last known position on a trip, if that can be had quickly. */
  lastKnown: (tripId: string) => Promise<AlertLocation | null>;
  /** Queues what new alerts need, their messages first of all; resolves when that is safe. The sweep finds what it misses. */
  queue: (alerts: readonly Accepted[]) => Promise<void>;
  /** Has the database's copy made soon; the sweep does what this misses. */
  copy: (alertIds: string[]) => Promise<void>;
  /** An alert is done as far as waiting for it goes: safe, seen by admins, its messages safely queued. ms since it was accepted. */
  onQueued: (tookMs: number) => void;
  /**
   * Texts the contacts of a press from this very process, noting each message, until `signal` says that others will. False
   * when somebody could not be reached yet; never rejects.
   */
  tellContacts: (
    waiting: Waiting,
    note: (contact: string, state: MessageState) => Promise<void>,
    signal: AbortSignal,
  ) => Promise<boolean>;
  /** The SOS Redis has a press that was in the journal. */
  onDrained: (accepted: Accepted, userId: string) => void;
  count: (event: 'accepted' | 'journaled' | 'drained' | 'refused', how: string) => void;
  logger: Log;
  now: () => number;
}

/** Alerts that arrive within this time are queued together, ms. */
const groupMs = 5;
const maxPerGroup = 1000;
const lastKnownWithinMs = 50;
/** How often a silent Redis is asked whether it is back, ms. */
const probeMs = 250;
/** After so long in the journal alone, contacts are texted from here, ms. */
const tellAfterMs = 10_000;
/** A Redis that comes to a press so much later leaves it to the journal, ms: long before contacts are texted from here. */
const lateAfterMs = 5000;
/** Seen in the SOS Redis for so long, an alert has been processed, ms: if that falls silent then, contacts have been told. */
const processedAfterMs = 5000;
/** From one try with a press that the SOS Redis refused to the next, ms. */
const retryRefused = { firstMs: 1000, maxMs: 60_000 };
/** From one try to text contacts to the next, ms. */
const retryTell = { firstMs: 1000, maxMs: 30_000 };

/** Contacts being texted from here. */
interface Telling {
  stop: AbortController;
  done: Promise<void>;
  attempt: number;
  /** When it is tried again, ms; never while it is under way, or when all are told. */
  againAt: number;
}

/** Presses that the SOS Redis makes one alert of. */
const sameAlert = ({ userId, tripId, drill }: Press): string =>
  `${userId} ${tripId ?? ''} ${drill ? 'drill' : ''}`;

const before = async <T>(ms: number, answer: Promise<T>, otherwise: T): Promise<T> => {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<T>((resolve) => {
    // When this process itself was busy, the answer may have come meanwhile: it is read first
    timer = setTimeout(() => setImmediate(resolve, otherwise), ms);
  });
  try {
    return await Promise.race([answer.catch(() => otherwise), late]);
  } finally {
    clearTimeout(timer);
  }
};

export class Intake {
  readonly #parts: IntakeParts;
  #silent = false;
  /** Alerts to queue, by id. */
  #group = new Map<string, Accepted>();
  #groupTimer: NodeJS.Timeout | undefined;
  readonly #queueing = new Set<Promise<void>>();
  #probe: NodeJS.Timeout | undefined;
  #trying: Promise<void> | undefined;
  /** Presses in the journal that the SOS Redis had too, though no replica has confirmed it, by when it last said so, ms. */
  readonly #unconfirmed = new Map<string, number>();
  /** Presses that the SOS Redis refused, how often, and when they are tried again, ms. */
  readonly #refusals = new Map<string, { tries: number; againAt: number }>();
  /** By `sameAlert`: contacts hear of several presses once. */
  readonly #telling = new Map<string, Telling>();
  /** Presses under way: a thumb that hammers the button costs one round trip. */
  readonly #pressing = new Map<string, Promise<Accepted>>();
  #stopped = false;

  constructor(parts: IntakeParts) {
    this.#parts = parts;
  }

  /** Begins to drain what the process before has left; what comes meanwhile waits behind it. */
  start(): void {
    if (!this.#parts.journal || this.#parts.journal.waiting.size === 0) return;
    this.#silent = true;
    this.#tryLater();
  }

  /** True while presses go to the journal alone. */
  get silent(): boolean {
    return this.#silent;
  }

  /** Resolves once the press is safe; rejects only when neither the SOS Redis nor the disk took it. */
  take(press: Press): Promise<Accepted> {
    const same = press.keyed ? press.alertId : sameAlert(press);
    const underWay = this.#pressing.get(same);
    if (underWay) return underWay;
    const taken = this.#takeOne(press).finally(() => this.#pressing.delete(same));
    this.#pressing.set(same, taken);
    return taken;
  }

  async #takeOne(press: Press): Promise<Accepted> {
    const located = await this.#withLocation(press);
    if (!this.#silent) {
      try {
        return await this.#takeByRedis(located);
      } catch (error) {
        // One that it refuses says nothing of the others
        if (error instanceof RefusedError) this.#refused(located, error);
        else this.#beSilent(error);
      }
    }
    await this.#keep(located);
    this.#parts.count('journaled', 'silent');
    return { alertId: located.alertId, status: 'active', acceptedAt: located.acceptedAt };
  }

  /** A press that only this process knows of, because the SOS Redis has not got it. */
  waiting(alertId: string): Waiting | undefined {
    return this.#parts.journal?.waiting.get(alertId);
  }

  /** Hands on what waits to be queued; what is in the journal stays there for the next process. */
  async stop(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#probe);
    this.#queueGroup();
    const tellings = [...this.#telling.values()];
    for (const { stop } of tellings) stop.abort();
    await this.#trying;
    await Promise.all(this.#queueing);
    await Promise.all(tellings.map(({ done }) => done));
  }

  async #takeByRedis(press: Press): Promise<Accepted> {
    const taken = await this.#parts.records.take(press, [], this.#parts.now() + lateAfterMs);
    this.#parts.count('accepted', taken.how);
    if (!taken.planned) this.#enqueue(taken);
    if (!taken.replicated) {
      // It is there, but only once: the disk holds it too until a replica has it
      this.#unconfirmed.set(press.alertId, this.#parts.now());
      await this.#keep(press);
      this.#parts.count('journaled', 'unreplicated');
      this.#tryLater();
    }
    return taken;
  }

  async #withLocation(press: Press): Promise<Press> {
    if (press.location !== null || press.tripId === null) return press;
    const location = await before(lastKnownWithinMs, this.#parts.lastKnown(press.tripId), null);
    return location === null ? press : { ...press, location };
  }

  async #keep(press: Press): Promise<void> {
    const { journal, count, logger } = this.#parts;
    try {
      if (!journal) throw new Error('There is no journal');
      await journal.add(press);
    } catch (error) {
      count('refused', 'no-store');
      logger.error('An SOS could not be stored anywhere', { alertId: press.alertId, error });
      throw error;
    }
  }

  #enqueue(accepted: Accepted): void {
    this.#group.set(accepted.alertId, accepted);
    if (this.#group.size >= maxPerGroup) this.#queueGroup();
    else this.#groupTimer ??= setTimeout(() => this.#queueGroup(), groupMs);
  }

  #queueGroup(): void {
    clearTimeout(this.#groupTimer);
    this.#groupTimer = undefined;
    const group = [...this.#group.values()];
    this.#group.clear();
    if (group.length === 0) return;
    const queued: Promise<void> = this.#queueNow(group)
      .catch((error: unknown) =>
        this.#parts.logger.warn('Alerts wait for the sweep', { alerts: group.length, error }),
      )
      .finally(() => this.#queueing.delete(queued));
    this.#queueing.add(queued);
  }

  async #queueNow(group: readonly Accepted[]): Promise<void> {
    const { queue, copy, records, onQueued, now } = this.#parts;
    await queue(group);
    const at = now();
    for (const { acceptedAt } of group) onQueued(at - acceptedAt);
    await records.clear(group.map(({ alertId }) => ({ alertId, duty: firstDuty })));
    // Last, so that its worker finds nothing else to do
    await copy(group.map(({ alertId }) => alertId));
  }

  /** From here on presses go to the journal, until a probe is answered and the journal has been drained. */
  #beSilent(error: unknown): void {
    if (this.#silent) return;
    this.#silent = true;
    this.#parts.logger.warn('The SOS Redis does not take alerts; the journal does', { error });
    this.#parts.records.refuseWaiting(new Error('The SOS Redis is silent'));
    this.#tryLater();
  }

  #refused({ alertId }: Press, error: RefusedError): void {
    this.#parts.logger.error('The SOS Redis does not take an alert; the journal does', { alertId, error });
    this.#tryLater();
  }

  #tryLater(): void {
    if (this.#stopped || this.#trying) return;
    this.#probe ??= setTimeout(() => {
      this.#probe = undefined;
      this.#trying = this.#tryAgain().finally(() => {
        this.#trying = undefined;
        if (this.#silent || this.#parts.journal?.waiting.size) this.#tryLater();
      });
    }, probeMs);
  }

  /** Never rejects. */
  async #tryAgain(): Promise<void> {
    const { records, logger } = this.#parts;
    const isBack = await before(
      probeMs,
      records.ping().then(() => true),
      false,
    );
    if (isBack && (await this.#drain())) {
      if (this.#silent) logger.info('The SOS Redis takes alerts again');
      this.#silent = false;
      if (this.#parts.journal?.waiting.size === 0) this.#telling.clear();
    }
    this.#tellOverdue();
  }

  /** Hands the journal to the SOS Redis. False when it fell silent over it. */
  async #drain(): Promise<boolean> {
    const { journal } = this.#parts;
    if (!journal) return true;
    const seen = new Set<string>();
    // New ones join at the end while this runs
    for (;;) {
      const batch = [...journal.waiting.values()].filter(
        ({ press: { alertId } }) =>
          !seen.has(alertId) && (this.#refusals.get(alertId)?.againAt ?? 0) <= this.#parts.now(),
      );
      if (batch.length === 0) return true;
      const group = batch.slice(0, maxPerGroup);
      for (const { press } of group) seen.add(press.alertId);
      const answered = await Promise.all(group.map((waiting) => this.#drainOne(journal, waiting)));
      if (answered.includes(false)) return false;
    }
  }

  /** False when the SOS Redis did not answer. One that it refuses stays, and must not hold up the others. */
  async #drainOne(journal: Journal, { press, sent }: Waiting): Promise<boolean> {
    const { records, count, logger, now } = this.#parts;
    // Who is being texted must not be texted again; who has not been yet is left to the workers
    const telling = this.#telling.get(sameAlert(press));
    telling?.stop.abort();
    await telling?.done;
    try {
      const states = [...sent]
        .filter(([, { status }]) => status !== 'failed')
        .map(([contact, state]) => ({ contact, state }));
      const taken = await records.take(press, states);
      if (!taken.planned) this.#enqueue(taken);
      if (taken.how === 'new') this.#parts.onDrained(taken, press.userId);
      if (!taken.replicated) {
        this.#unconfirmed.set(press.alertId, now());
        return true;
      }
      await journal.done(press.alertId);
      this.#refusals.delete(press.alertId);
      this.#unconfirmed.delete(press.alertId);
      count('drained', taken.how);
      return true;
    } catch (error) {
      logger.warn('An alert stays in the journal', { alertId: press.alertId, error });
      if (!(error instanceof RefusedError)) return false;
      const tries = this.#refusals.get(press.alertId)?.tries ?? 0;
      this.#refusals.set(press.alertId, {
        tries: tries + 1,
        againAt: now() + backoffMs(tries, retryRefused),
      });
      return true;
    }
  }

  /** Contacts must not wait for a Redis that stays away. */
  #tellOverdue(): void {
    const { journal, now, tellContacts } = this.#parts;
    if (!journal) return;
    for (const waiting of journal.waiting.values()) {
      const { alertId, acceptedAt, drill } = waiting.press;
      if (drill || now() - acceptedAt < tellAfterMs) continue;
      if ((this.#unconfirmed.get(alertId) ?? 0) - acceptedAt >= processedAfterMs) continue;
      const same = sameAlert(waiting.press);
      const earlier = this.#telling.get(same);
      if (earlier && earlier.againAt > now()) continue;
      const stop = new AbortController();
      const attempt = earlier ? earlier.attempt + 1 : 0;
      const telling = { stop, attempt, againAt: Number.POSITIVE_INFINITY, done: Promise.resolve() };
      const note = (contact: string, state: MessageState) => journal.noteMessage(alertId, contact, state);
      telling.done = tellContacts(waiting, note, stop.signal).then((isDone) => {
        if (!isDone) telling.againAt = now() + backoffMs(attempt, retryTell);
      });
      this.#telling.set(same, telling);
    }
  }
}
