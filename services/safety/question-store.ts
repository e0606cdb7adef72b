/**
 * Questions as they are kept: on the SOS Redis, beside the admin feed, so that a question's end and its alarm are one step, and any
 * process raises it. What a change is, questions.ts says; here it is written, or tried again when another was faster.
 */
import type { Redis, Result } from 'ioredis';
import type { SafetyCheck } from '../../contracts/safety.ts';
import { AppError } from '../../lib/errors.ts';
import { feedKeys, feedMaxLength } from '../../lib/feed-stream.ts';
import { replicated } from '../../lib/replicated.ts';
import { type Change, nextDue, openChecks, overtake, type TripQuestions } from './questions.ts';
import type { QuestionRules } from './rules.ts';

/** Sorted set: trip → when its questions have to be looked at again, ms. */
const dueKey = 'safety:due';
const recordKey = (tripId: string) => `safety:trip:${tripId}`;
/** A rider may answer for so long after the last change, ms; what is open is kept until it is over. */
const keptMs = 86_400_000;
/** Two that change a trip's questions at once are rare, and each change is quick. */
const mostTries = 10;
/** Looked at together. */
const dueAtOnce = 50;

/**
 * KEYS: record, due, feed. ARGV: the record as it was read (empty: none), the new one, trip, when it is due (empty:
 * never), then kind, at and data of each event. 0 when the record is another by now: then nothing is done.
 */
const swapScript = `
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
if ARGV[4] == '' then
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ${keptMs})
  redis.call('ZREM', KEYS[2], ARGV[3])
else
  redis.call('SET', KEYS[1], ARGV[2])
  redis.call('ZADD', KEYS[2], ARGV[4], ARGV[3])
end
for i = 5, #ARGV, 3 do
  redis.call('XADD', KEYS[3], 'MAXLEN', '~', ${feedMaxLength}, '*', 'kind', ARGV[i], 'at', ARGV[i + 1], 'data', ARGV[i + 2])
end
return 1`;

declare module 'ioredis' {
  interface RedisCommander<Context> {
    swapSafetyQuestions(...args: (string | number)[]): Result<number, Context>;
  }
}

const defined = new WeakSet<Redis>();

/** Gives a connection the script as a command. */
function withScript(redis: Redis): Redis {
  if (!defined.has(redis)) {
    defined.add(redis);
    redis.defineCommand('swapSafetyQuestions', { numberOfKeys: 3, lua: swapScript });
  }
  return redis;
}

/** What came of looking at the questions that were due. */
export interface Overtaken {
  alarms: Change['events'];
  remind: (SafetyCheck & { userId: string })[];
  /** Trips whose questions could not be looked at; they stay due. */
  failed: { tripId: string; error: unknown }[];
}

export class QuestionStore {
  readonly #redis: Redis;
  readonly #rules: QuestionRules;

  constructor(redis: Redis, rules: QuestionRules) {
    this.#redis = redis;
    this.#rules = rules;
  }

  /**
   * Changes a trip's questions by `decide`, which gets null where there are none and answers null to leave all as it is. What is
   * answered is on a replica too where there is one; UNAVAILABLE otherwise, and the same change may be tried again.
   */
  async change<C extends Change>(
    tripId: string,
    now: number,
    decide: (record: TripQuestions | null) => C | null,
  ): Promise<C | null> {
    // Also what is unchanged is written: only a write can be waited for, and an earlier one may not have been kept
    return this.#swap(tripId, now, decide, async (write) => {
      const { value, kept } = await replicated(this.#redis, recordKey(tripId), write);
      if (!kept) throw new AppError('UNAVAILABLE', { retryAfterS: 2 });
      return value;
    });
  }

  async open(tripId: string): Promise<{ riderId: string; checks: SafetyCheck[] } | null> {
    const record = parse(await this.#redis.get(recordKey(tripId)));
    return record && { riderId: record.riderId, checks: openChecks(record) };
  }

  /**
   * Looks at the questions that are due: alarms are raised, each once whoever looks, and who is to be reminded is told. A
   * change that only the primary had when it died is made again: the alarm was lost with it.
   */
  async overtakeDue(now: number): Promise<Overtaken> {
    const due = await this.#redis.zrangebyscore(dueKey, 0, now, 'LIMIT', 0, 1000);
    const found: Overtaken = { alarms: [], remind: [], failed: [] };
    for (let start = 0; start < due.length; start += dueAtOnce)
      await Promise.all(
        due.slice(start, start + dueAtOnce).map((tripId) => this.#overtake(tripId, now, found)),
      );
    return found;
  }

  async #overtake(tripId: string, now: number, found: Overtaken): Promise<void> {
    try {
      const made = await this.#swap(
        tripId,
        now,
        (record) => {
          const at = record && nextDue(record);
          // Another has seen to it
          return record && at !== null && at <= now ? overtake(record, now, this.#rules) : null;
        },
        (write) => write(this.#redis),
      );
      if (!made) return;
      found.alarms.push(...made.events);
      found.remind.push(...made.remind.map((check) => ({ ...check, userId: made.next.riderId })));
    } catch (error) {
      found.failed.push({ tripId, error });
    }
  }

  async #swap<C extends Change>(
    tripId: string,
    now: number,
    decide: (record: TripQuestions | null) => C | null,
    send: (write: (redis: Redis) => Promise<number>) => Promise<number>,
  ): Promise<C | null> {
    for (let attempt = 0; attempt < mostTries; attempt++) {
      const text = await this.#redis.get(recordKey(tripId));
      const made = decide(parse(text));
      if (!made) return null;
      const events = made.events.flatMap(({ kind, data }) => [kind, now, JSON.stringify(data)]);
      const swapped = await send((redis) =>
        withScript(redis).swapSafetyQuestions(
          recordKey(tripId),
          dueKey,
          feedKeys.stream,
          text ?? '',
          JSON.stringify(made.next),
          tripId,
          nextDue(made.next) ?? '',
          ...events,
        ),
      );
      if (swapped === 1) return made;
    }
    throw new AppError('UNAVAILABLE', { retryAfterS: 1 });
  }
}

/** Written by this file alone. */
const parse = (text: string | null): TripQuestions | null =>
  text === null ? null : (JSON.parse(text) as TripQuestions);
