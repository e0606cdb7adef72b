/**
 * Takes presses on SOS. An answer means that the press is safe: in the SOS Redis (and on a replica where there is one), or
 * fsynced on this machine when that is silent. Needs nothing else.
 */

import type { AlertLocation, AlertStatus } from '../../contracts/sos.ts';
import type { Log } from '../../lib/context.ts';
import type { MessageState } from './alert-record.ts';
import type { Journal, Waiting } from './journal.ts';
import type { Press } from './read-press.ts';
import type { SosRecords } from './records.ts';

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
  queue: (alertIds: string[]) => Promise<void>;
  /** An alert is done as far as waiting for it goes: safe, seen by admins, its messages safely queued. ms since it was accepted. */
  onQueued: (tookMs: number) => void;
  /** Texts the contacts of a press from this very process, noting each message; never rejects. */
  tellContacts: (
    waiting: Waiting,
    note: (contact: string, state: MessageState) => Promise<void>,
  ) => Promise<void>;
  /** The SOS Redis has a press that was in the journal. */
  onDrained: (accepted: Accepted, userId: string) => void;
  count: (event: 'accepted' | 'journaled' | 'drained' | 'refused', how: string) => void;
  logger: Log;
  now: () => number;
}

/** Alerts that arrive within this time are queued as one job, ms. */
const groupMs = 5;
const maxPerJob = 200;
const lastKnownWithinMs = 50;
/** How often a silent Redis is asked whether it is back, ms. */
const probeMs = 250;
/** After so long in the journal alone, contacts are texted from here, ms. */
const tellAfterMs = 10_000;

const before = async <T>(ms: number, answer: Promise<T>, otherwise: T): Promise<T> => {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<T>((resolve) => {
    timer = setTimeout(resolve, ms, otherwise);
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
  #group: Accepted[] = [];
  #groupTimer: NodeJS.Timeout | undefined;
  readonly #queueing = new Set<Promise<void>>();
  #probe: NodeJS.Timeout | undefined;
  #trying: Promise<void> | undefined;
  /** Presses in the journal that the SOS Redis has too, though no replica has confirmed it. */
  readonly #unconfirmed = new Set<string>();
  /** Contacts being texted from here, by alert. */
  readonly #telling = new Map<string, Promise<void>>();
  /** Presses under way: a thumb that hammers the button costs one round trip. */
  readonly #pressing = new Map<string, Promise<Accepted>>();
  #stopped = false;

  constructor(parts: IntakeParts) {
    this.#parts = parts;
  }

  /** Begins to drain what the process before has left. */
  start(): void {
    if (this.#parts.journal && this.#parts.journal.waiting.size > 0) this.#tryLater();
  }

  /** True while presses go to the journal alone. */
  get silent(): boolean {
    return this.#silent;
  }

  /** Resolves once the press is safe; rejects only when neither the SOS Redis nor the disk took it. */
  take(press: Press): Promise<Accepted> {
    const { userId, tripId, drill, keyed, alertId } = press;
    const same = keyed ? alertId : `${userId} ${tripId ?? ''} ${drill ? 'drill' : ''}`;
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
        this.#parts.logger.warn('The SOS Redis does not take an alert; the journal does', { error });
        this.#beSilent();
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
    await this.#trying;
    await Promise.all(this.#queueing);
    await Promise.all(this.#telling.values());
  }

  async #takeByRedis(press: Press): Promise<Accepted> {
    const taken = await this.#parts.records.take(press);
    this.#parts.count('accepted', taken.how);
    if (taken.how === 'new') this.#enqueue(taken);
    if (!taken.replicated) {
      // It is there, but only once: the disk holds it too until a replica has it
      this.#unconfirmed.add(press.alertId);
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
    this.#group.push(accepted);
    if (this.#group.length >= maxPerJob) this.#queueGroup();
    else this.#groupTimer ??= setTimeout(() => this.#queueGroup(), groupMs);
  }

  #queueGroup(): void {
    clearTimeout(this.#groupTimer);
    this.#groupTimer = undefined;
    const group = this.#group;
    this.#group = [];
    if (group.length === 0) return;
    const queued: Promise<void> = this.#queueNow(group)
      .catch((error: unknown) =>
        this.#parts.logger.warn('Alerts wait for the sweep', { alerts: group.length, error }),
      )
      .finally(() => this.#queueing.delete(queued));
    this.#queueing.add(queued);
  }

  async #queueNow(group: readonly Accepted[]): Promise<void> {
    const { queue, records, onQueued, now } = this.#parts;
    const ids = group.map(({ alertId }) => alertId);
    await queue(ids);
    const at = now();
    for (const { acceptedAt } of group) onQueued(at - acceptedAt);
    await records.queued(ids);
  }

  /** From here on presses go to the journal, until a probe is answered and the journal has been drained. */
  #beSilent(): void {
    this.#silent = true;
    this.#parts.records.refuseWaiting(new Error('The SOS Redis is silent'));
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
      const batch = [...journal.waiting.values()].filter(({ press }) => !seen.has(press.alertId));
      if (batch.length === 0) return true;
      const group = batch.slice(0, maxPerJob);
      for (const { press } of group) seen.add(press.alertId);
      const answered = await Promise.all(group.map((waiting) => this.#drainOne(journal, waiting)));
      if (answered.includes(false)) return false;
    }
  }

  /** False when the SOS Redis did not answer. One that it refuses stays, and must not hold up the others. */
  async #drainOne(journal: Journal, { press, sent }: Waiting): Promise<boolean> {
    const { records, count, logger } = this.#parts;
    // Who is being texted must not be texted again
    await this.#telling.get(press.alertId);
    try {
      const states = [...sent].map(([contact, state]) => ({ contact, state }));
      const taken = await records.take(press, states);
      if (taken.how === 'new') {
        this.#enqueue(taken);
        this.#parts.onDrained(taken, press.userId);
      }
      if (!taken.replicated) {
        this.#unconfirmed.add(press.alertId);
        return true;
      }
      await journal.done(press.alertId);
      this.#unconfirmed.delete(press.alertId);
      this.#telling.delete(press.alertId);
      count('drained', taken.how);
      return true;
    } catch (error) {
      logger.warn('An alert stays in the journal', { alertId: press.alertId, error });
      return error instanceof Error && error.name === 'ReplyError';
    }
  }

  /** Contacts must not wait for a Redis that stays away. */
  #tellOverdue(): void {
    const { journal, now, tellContacts } = this.#parts;
    if (!journal) return;
    for (const waiting of journal.waiting.values()) {
      const { alertId, acceptedAt, drill } = waiting.press;
      if (drill || this.#telling.has(alertId) || this.#unconfirmed.has(alertId)) continue;
      if (now() - acceptedAt < tellAfterMs) continue;
      const told = tellContacts(waiting, (contact, state) => journal.noteMessage(alertId, contact, state));
      this.#telling.set(alertId, told);
    }
  }
}
