import type { ChainableCommander, Redis } from 'ioredis';
import type { AlertLocation, AlertStatus } from '../../contracts/sos.ts';
import { feedKeys } from '../../lib/feed-stream.ts';
import { GroupCommit } from '../../lib/group-commit.ts';
import { movedChannel } from '../../lib/sos-channel.ts';
import { cardKey } from '../../mixins/cards.ts';
import { type AlertRecord, type LogEntry, type MessageState, parseAlert } from './alert-record.ts';
import { type AlertStep, allowedFrom, isOver, outcomeOf } from './alert-state.ts';
import { mapUrl } from './map-url.ts';
import type { Press } from './read-press.ts';
import { type Claim, defineScripts } from './scripts.ts';
import { sosKeys } from './sos-keys.ts';

/** A message that a journal's owner has sent by itself, by the contact's key. */
export type SentState = { contact: string; state: MessageState };

/** What a press led to. `how`: a new alert, this very press again, or it joined an open one. */
export interface Taken {
  alertId: string;
  /** As the raiser sees it. */
  status: AlertStatus;
  acceptedAt: number;
  how: 'new' | 'same' | 'joined';
  /** What it needs is queued. */
  planned: boolean;
  /** False when a replica is wanted and none has said that it has it. */
  replicated: boolean;
}

/** What admins are told of an alert that is no step; `sound`: they hear it. The alert's state of that moment goes with it. */
export interface Told {
  what: string;
  note?: string;
  sound?: true;
}

/** Without its last brace: the script adds the state. */
const toldData = (alertId: string, told: Told): string => JSON.stringify({ alertId, ...told }).slice(0, -1);

/** The `duty` that a new alert begins with. */
export const firstDuty = '1';

/** What the script says of a press. */
type TakeAnswer = [
  alertId: string,
  status: AlertStatus,
  acceptedAt: string,
  how: Taken['how'] | 'late' | 'refused',
  planned: string,
];

/** How many presses go in a script: some 25 ms of Redis' time. While one is executed the next is on its way. */
const maxGroup = 400;
const maxUnderWay = 2;

/** A pipeline's results, or the first error in it. */
function unwrap<T>(results: Awaited<ReturnType<ChainableCommander['exec']>>): T[] {
  if (!results) throw new Error('The pipeline was not run');
  return results.map(([error, value]) => {
    if (error) throw error;
    return value as T;
  });
}

/** The alerts in the SOS Redis. Each method is one script or one pipeline; errors are Redis'. */
export class SosRecords {
  readonly #redis: Redis;
  /** How often groups of presses were answered. */
  #answers = 0;
  readonly #takes: GroupCommit<{ press: Press; sent: readonly SentState[]; until: number | null }, Taken>;

  /**
   * `replicas` that must have an alert within `replicaWithinMs`; 0 where there are none. `alertsPerUser`: raised in six hours, the
   * next presses join the newest open one.
   */
  constructor(
    redis: Redis,
    options: { replicas: number; replicaWithinMs: number; withinMs?: number; alertsPerUser?: number },
  ) {
    const { replicas, replicaWithinMs, withinMs, alertsPerUser = 20 } = options;
    this.#redis = redis;
    defineScripts(redis);
    this.#takes = new GroupCommit({
      maxSize: maxGroup,
      maxUnderWay,
      commit: async (items) => {
        const pipeline = redis.pipeline();
        const args = items.flatMap(({ press, sent, until }) => takeArguments(press, sent, until));
        pipeline.sosTake(feedKeys.stream, alertsPerUser, ...args);
        if (replicas > 0) pipeline.call('WAIT', replicas, replicaWithinMs);
        const results = (await this.#answerWithin(pipeline.exec(), withinMs)) ?? [];
        const [error, answers] = results[0] ?? [new Error('No answer to a press')];
        if (error) throw error;
        const replicated = replicas === 0 || Number(results[1]?.[1]) >= replicas;
        return (answers as TakeAnswer[]).map(([alertId, status, acceptedAt, how, planned]) => {
          if (how === 'late') return new Error('The SOS Redis finds a press too old; do the clocks differ?');
          if (how === 'refused') return new RefusedError(alertId);
          return {
            alertId,
            status,
            acceptedAt: Number(acceptedAt),
            how,
            planned: planned === '1',
            replicated,
          };
        });
      },
    });
  }

  /**
   * Makes an alert of a press, or joins it to one: alert, feed entry and the index of unprocessed ones in one step. Not after
   * `until` (ms): a Redis that hung must not take what it was told before, when others have long seen to it.
   */
  take(press: Press, sent: readonly SentState[] = [], until: number | null = null): Promise<Taken> {
    return this.#takes.add({ press, sent, until });
  }

  /** Gives up on presses that no pipeline has taken yet: they fail with this error. */
  refuseWaiting(error: Error): void {
    this.#takes.refuse(error);
  }

  async read(alertId: string): Promise<AlertRecord | null> {
    return (await this.readMany([alertId]))[0] ?? null;
  }

  /** In the order of the ids; null for what is not there. Ids that joined another alert lead to that one. */
  async readMany(ids: readonly string[]): Promise<(AlertRecord | null)[]> {
    if (ids.length === 0) return [];
    const pipeline = this.#redis.pipeline();
    for (const id of ids) pipeline.hgetall(sosKeys.alert(id));
    const records = unwrap<Record<string, string>>(await pipeline.exec()).map((hash, index) =>
      parseAlert(ids[index] ?? '', hash),
    );
    return Promise.all(
      records.map(async (record, index) => {
        if (record) return record;
        const alias = await this.#redis.get(sosKeys.alias(ids[index] ?? ''));
        return alias === null ? null : parseAlert(alias, await this.#redis.hgetall(sosKeys.alert(alias)));
      }),
    );
  }

  async log(alertId: string): Promise<LogEntry[]> {
    return (await this.logs([alertId]))[0] ?? [];
  }

  /** The audit trail of each, oldest first. */
  async logs(ids: readonly string[]): Promise<LogEntry[][]> {
    if (ids.length === 0) return [];
    const pipeline = this.#redis.pipeline();
    for (const id of ids) pipeline.lrange(sosKeys.log(id), 0, -1);
    const lists = unwrap<string[]>(await pipeline.exec());
    return lists.map((entries) => entries.map((entry) => JSON.parse(entry) as LogEntry));
  }

  /** Tells admins something of an alert that is no step. */
  async tell(alertId: string, told: Told): Promise<void> {
    await this.#redis.sosTold(sosKeys.alert(alertId), feedKeys.stream, Date.now(), toldData(alertId, told));
  }

  /** Moves an alert by one step. `ok`, `missing`, or the state that forbids it. */
  async step(record: AlertRecord, step: AlertStep, entry: Omit<LogEntry, 'what'>): Promise<string> {
    const to = outcomeOf(step);
    const { alertId } = record;
    const data = {
      alertId,
      status: to,
      ...(entry.who === undefined ? {} : { by: entry.who }),
      ...(entry.note === undefined ? {} : { note: entry.note }),
    };
    return this.#redis.sosStep(
      sosKeys.alert(alertId),
      feedKeys.stream,
      alertId,
      entry.at,
      to,
      JSON.stringify(data),
      JSON.stringify({ ...entry, what: to }),
      sosKeys.openOf(record.userId, record.tripId, record.press.drill),
      isOver(to) ? '1' : '0',
      ...allowedFrom(step),
    );
  }

  async duress(record: AlertRecord, at: number): Promise<void> {
    await this.#redis.sosDuress(
      sosKeys.alert(record.alertId),
      feedKeys.stream,
      record.alertId,
      at,
      JSON.stringify({ at, what: 'duress' }),
      sosKeys.openOf(record.userId, record.tripId, record.press.drill),
    );
  }

  /** Counts a wrong PIN; how many there were. */
  wrongPin(alertId: string, at: number): Promise<number> {
    const entry = JSON.stringify({ at, what: 'wrong-pin' });
    return this.#redis.sosWrongPin(sosKeys.alert(alertId), feedKeys.stream, alertId, at, entry);
  }

  /** Where the raiser is now. */
  async locate(record: AlertRecord, location: AlertLocation, fixAt: number, at: number): Promise<void> {
    const { alertId, userId, tripId } = record;
    const { lat, lng, accuracy } = location;
    const moved = {
      alertId,
      tripId,
      userId,
      lat,
      lng,
      accuracy,
      speed: null,
      heading: null,
      timestamp: fixAt,
      at,
    };
    await this.#redis.sosLocate(
      sosKeys.alert(alertId),
      feedKeys.stream,
      alertId,
      at,
      JSON.stringify(location),
      fixAt,
      movedChannel,
      JSON.stringify(moved),
    );
  }

  /** Alerts that have something to queue since before `until`, ms; the oldest first. */
  unprocessed(until: number, limit: number): Promise<string[]> {
    return this.#redis.zrangebyscore(sosKeys.unprocessed, 0, until, 'LIMIT', 0, limit);
  }

  /** Writes down what several alerts need: what is there already stays as it is. */
  async plan(plans: readonly Plan[], at: number): Promise<void> {
    const pipeline = this.#redis.pipeline();
    for (const { record, entry, fields } of plans) {
      pipeline.sosPlan(
        sosKeys.alert(record.alertId),
        record.alertId,
        at,
        entry === null ? '' : JSON.stringify(entry),
        ...Object.entries(fields).flat(),
      );
    }
    if (plans.length > 0) unwrap(await pipeline.exec());
  }

  /** What these alerts needed, when they were read, is queued. */
  async clear(records: readonly Pick<AlertRecord, 'alertId' | 'duty'>[]): Promise<void> {
    if (records.length === 0) return;
    await this.#redis.sosClear(
      sosKeys.unprocessed,
      ...records.flatMap(({ alertId, duty }) => [alertId, duty]),
    );
  }

  /** Claims one attempt at a message; `lost` when somebody else was faster. */
  claim(alertId: string, field: string, seen: MessageState, claimed: MessageState): Promise<Claim> {
    const [after, before] = [JSON.stringify(claimed), JSON.stringify(seen)];
    return this.#redis.sosClaim(sosKeys.alert(alertId), field, after, before);
  }

  /** Records what an attempt led to, with its log entry, and tells admins if `tell` is given. */
  async outcome(
    alertId: string,
    field: string,
    state: MessageState,
    entry: LogEntry,
    tell: Told | null = null,
  ): Promise<void> {
    await this.#record(alertId, field, JSON.stringify(state), entry, tell);
  }

  /** A fact for the audit trail that changes nothing else; told to admins if `tell` is given. */
  async note(alertId: string, entry: LogEntry, tell: Told | null = null): Promise<void> {
    await this.#record(alertId, '', '', entry, tell);
  }

  async #record(
    alertId: string,
    field: string,
    state: string,
    entry: LogEntry,
    tell: Told | null,
  ): Promise<void> {
    const [json, told] = [JSON.stringify(entry), tell === null ? '' : toldData(alertId, tell)];
    const key = sosKeys.alert(alertId);
    await this.#redis.sosOutcome(key, feedKeys.stream, alertId, entry.at, field, state, json, told);
  }

  /** A message that reached nobody after every attempt: kept for people to look at. */
  async bury(letter: { alertId: string; contact: string; purpose: string; at: number }): Promise<void> {
    await this.#redis
      .multi()
      .lpush(sosKeys.dead, JSON.stringify(letter))
      .ltrim(sosKeys.dead, 0, 99_999)
      .exec();
  }

  /** Alerts that the database has not in their newest form, the oldest first. */
  unprojected(limit: number): Promise<string[]> {
    return this.#redis.zrange(sosKeys.unprojected, 0, limit - 1);
  }

  /** How many alerts the database has not in their newest form. */
  unprojectedCount(): Promise<number> {
    return this.#redis.zcard(sosKeys.unprojected);
  }

  /** The database has these records. */
  async projected(records: readonly AlertRecord[]): Promise<void> {
    if (records.length === 0) return;
    const pipeline = this.#redis.pipeline();
    for (const { alertId, version } of records)
      pipeline.sosProjected(sosKeys.alert(alertId), sosKeys.log(alertId), alertId, version);
    unwrap(await pipeline.exec());
  }

  /** Ids of alerts, newest first, from after `after`: open ones, or all that are still here. */
  async list(which: 'open' | 'all', after: string | undefined, limit: number): Promise<string[]> {
    const key = which === 'open' ? sosKeys.open : sosKeys.all;
    if (after === undefined) return this.#redis.zrange(key, 0, limit - 1, 'REV');
    const rank = await this.#redis.zrevrank(key, after);
    const start = rank === null ? 0 : rank + 1;
    return this.#redis.zrange(key, start, start + limit - 1, 'REV');
  }

  /** How many incidents there are in this minute with this one. */
  async countPage(at: number): Promise<number> {
    const key = sosKeys.pages(Math.floor(at / 60_000));
    const [count] = unwrap<number>(await this.#redis.multi().incr(key).expire(key, 120).exec());
    return count ?? 0;
  }

  /** True for the first who wants to call the person on call; for the others, after `forMs` or once it has failed. */
  async claimCall(alertId: string, forMs: number): Promise<boolean> {
    return (await this.#redis.set(sosKeys.calling, alertId, 'PX', forMs, 'NX')) === 'OK';
  }

  async releaseCall(): Promise<void> {
    await this.#redis.del(sosKeys.calling);
  }

  /** There is an incident for this alert. */
  async paged(alertId: string, entry: LogEntry): Promise<void> {
    await this.#record(alertId, 'paged', '1', entry, null);
  }

  /** Forgets the ids of alerts that ended long ago; the database has them. */
  async forget(before: number): Promise<void> {
    await this.#redis.zremrangebyscore(sosKeys.all, 0, before);
  }

  /** Takes out up to `limit` alerts that ended before `before` (ms) and that the database has, the oldest first; answers how many. */
  async dropEnded(before: number, limit: number): Promise<number> {
    let [dropped, passed] = [0, 0];
    while (dropped < limit) {
      // None can be over before it was accepted
      const page = ['LIMIT', passed, Math.min(1000, limit - dropped)] as const;
      const ids = await this.#redis.zrange(sosKeys.all, 0, before, 'BYSCORE', ...page);
      if (ids.length === 0) break;
      const gone = await this.#redis.sosDrop(sosKeys.all, before, ...ids);
      dropped += gone;
      passed += ids.length - gone;
    }
    return dropped;
  }

  async ping(): Promise<void> {
    await this.#redis.ping();
  }

  /**
   * Rejects when the SOS Redis says nothing at all for `ms`: in a burst it answers one group after the other. The answer may
   * still come, and then nobody waits for it. Time in which this process was busy itself does not count, up to a second: what
   * it asks may be on its way out, an answer may lie there unread.
   */
  async #answerWithin<A>(answer: Promise<A>, ms: number | undefined): Promise<A> {
    if (ms === undefined) return answer;
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_resolve, reject) => {
      const stepMs = ms / silenceSteps;
      let [steps, last, answers] = [0, performance.now(), this.#answers];
      let since = last;
      const tick = () => {
        const now = performance.now();
        if (answers !== this.#answers) [steps, since] = [0, now];
        else if (now - last < 1.2 * stepMs) steps++;
        [last, answers] = [now, this.#answers];
        if (steps === silenceSteps || now - since > silentAtLastMs) reject(new SilentError(ms));
        else timer = setTimeout(tick, stepMs);
      };
      timer = setTimeout(tick, stepMs);
    });
    try {
      const value = await Promise.race([answer, late]);
      this.#answers++;
      return value;
    } finally {
      clearTimeout(timer);
      // A failure after the deadline has been dealt with by then
      answer.catch(() => undefined);
    }
  }
}

/** Fields of an alert that are set if they are not there, and what the audit trail says of it. */
export interface Plan {
  record: AlertRecord;
  entry: LogEntry | null;
  fields: Record<string, string>;
}

function takeArguments(press: Press, sent: readonly SentState[], until: number | null): (string | number)[] {
  const { alertId, userId, tripId, drill, location, acceptedAt } = press;
  const data = {
    alertId,
    userId,
    ...(tripId === null ? {} : { tripId }),
    ...(location === null ? {} : { location }),
    mapUrl: location === null ? null : mapUrl(location),
    sound: true,
    drill,
    verified: press.standing,
  };
  return [
    sent.length,
    alertId,
    userId,
    tripId ?? '',
    acceptedAt,
    JSON.stringify(press),
    location === null ? '' : JSON.stringify(location),
    // The script adds the name, which only the SOS Redis knows
    JSON.stringify(data).slice(0, -1),
    JSON.stringify({ at: acceptedAt, what: 'raised', ...(drill ? { note: 'drill' } : {}) }),
    JSON.stringify({ at: acceptedAt, what: 'pressed-again' }),
    until ?? '',
    sosKeys.openOf(userId, tripId, drill),
    cardKey(userId),
    ...sent.flatMap(({ contact, state }) => [contact, JSON.stringify(state)]),
  ];
}

/** Silence is counted in so many steps, of which those are left out that this process is late for; but after so long it is silence. */
const silenceSteps = 4;
const silentAtLastMs = 1000;

/** The SOS Redis cannot take this press, and would not at another time. */
export class RefusedError extends Error {
  constructor(reason: string) {
    super(`The SOS Redis refuses a press: ${reason}`);
    this.name = 'RefusedError';
  }
}

/** The SOS Redis has said nothing for this long, ms. */
export class SilentError extends Error {
  constructor(ms: number) {
    super(`The SOS Redis has said nothing for ${ms} ms`);
    this.name = 'SilentError';
  }
}
