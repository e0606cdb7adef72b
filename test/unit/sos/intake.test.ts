import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { Intake } from '../../../services/sos/intake.ts';
import { Journal } from '../../../services/sos/journal.ts';
import { type Press, readPress } from '../../../services/sos/read-press.ts';
import type { SentState, SosRecords, Taken } from '../../../services/sos/records.ts';
import { RefusedError, SilentError } from '../../../services/sos/records.ts';
import { eventually } from '../../support/eventually.ts';
import { state } from './records.ts';

const logger = { debug() {}, info() {}, warn() {}, error() {} };
const reply = new RefusedError('WRONGTYPE');

let directory: string;
let journal: Journal;
let intake: Intake | undefined;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'ride-intake-'));
  journal = await Journal.open(directory, 'a');
});
afterEach(async () => {
  await intake?.stop();
  await journal.close();
  await rm(directory, { recursive: true });
});

const press = (key: string, over: Partial<Press> = {}): Press => ({
  ...readPress({ key }, { id: 'usr_1', standing: 'live' }, 1_000_000),
  ...over,
});

/** An SOS Redis that is silent, refuses a press or has no replica when it is told, and otherwise keeps alerts. */
function setUp(now: () => number = () => 1_000_000) {
  const redis = {
    silent: false,
    replicated: true,
    poison: new Set<string>(),
    refused: 0,
    /** Silent for the caller, though the script runs. */
    late: false,
    kept: new Map<string, { press: Press; sent: readonly SentState[] }>(),
    queued: [] as string[],
    told: [] as string[],
    counted: [] as string[],
    pings: 0,
  };
  const records = {
    async take(one: Press, sent: readonly SentState[] = []): Promise<Taken> {
      if (redis.silent) throw new SilentError(200);
      if (redis.poison.has(one.alertId)) {
        redis.refused++;
        throw reply;
      }
      const how = redis.kept.has(one.alertId) ? 'same' : 'new';
      if (how === 'new') redis.kept.set(one.alertId, { press: one, sent });
      if (redis.late) throw new SilentError(200);
      const { alertId, acceptedAt } = one;
      const planned = redis.queued.includes(alertId);
      return { alertId, status: 'active', acceptedAt, how, planned, replicated: redis.replicated };
    },
    refuseWaiting() {},
    async clear() {},
    async ping() {
      redis.pings++;
      if (redis.silent) throw new Error('silent');
    },
  };
  intake = new Intake({
    records: records as unknown as SosRecords,
    journal,
    lastKnown: async () => null,
    async queue(alerts) {
      redis.queued.push(...alerts.map(({ alertId }) => alertId));
    },
    async copy() {},
    async tellContacts({ press: { alertId } }, note) {
      redis.told.push(alertId);
      await note('c1', state({ status: 'sent' }));
      return true;
    },
    onQueued() {},
    onDrained() {},
    count: (event, how) => redis.counted.push(`${event} ${how}`),
    logger,
    now,
  });
  return { redis, door: intake };
}

/** Resolves when the door has looked at its Redis so often again, and at what is overdue. */
async function looks(redis: { pings: number }, times: number): Promise<void> {
  const since = redis.pings;
  await eventually(() => expect(redis.pings).toBeGreaterThan(since + times));
}

describe('taking presses', () => {
  test('+ the SOS Redis takes it and it is queued; the journal is not touched', async () => {
    const { redis, door } = setUp();
    expect(await door.take(press('a'))).toMatchObject({ alertId: press('a').alertId, status: 'active' });
    await eventually(() => expect(redis.queued).toEqual([press('a').alertId]));
    expect(journal.waiting.size).toBe(0);
  });

  test('+ silent, the journal takes it; late script, journal and retry meet in one alert', async () => {
    const { redis, door } = setUp();
    redis.late = true;
    const first = await door.take(press('a'));
    expect([door.silent, journal.waiting.has(first.alertId)]).toEqual([true, true]);
    redis.silent = true;
    const again = await door.take(press('a'));
    expect(again.alertId).toBe(first.alertId);
    await door.take(press('b'));
    Object.assign(redis, { silent: false, late: false });
    await eventually(() => expect(journal.waiting.size).toBe(0));
    expect([...redis.kept.keys()]).toEqual([press('a').alertId, press('b').alertId]);
    await eventually(() => expect(door.silent).toBe(false));
    // Nobody has queued what the late one needs
    const both = ['a', 'b'].map((key) => press(key).alertId);
    await eventually(() => expect(redis.queued.toSorted()).toEqual(both.toSorted()));
  });

  test('+ one that the SOS Redis refuses stays in the journal, is tried again later, and holds up no other', async () => {
    let clock = 1_000_000;
    const { redis, door } = setUp(() => clock);
    redis.silent = true;
    for (const key of ['a', 'poison', 'b']) await door.take(press(key));
    redis.poison.add(press('poison').alertId);
    redis.silent = false;
    await eventually(() => expect([...journal.waiting.keys()]).toEqual([press('poison').alertId]));
    await eventually(() => expect(door.silent).toBe(false));
    expect((await door.take(press('c'))).status).toBe('active');
    expect(redis.kept.has(press('c').alertId)).toBe(true);
    await looks(redis, 3);
    expect(redis.refused).toBe(1);
    clock += 1000;
    await eventually(() => expect(redis.refused).toBe(2));
    redis.poison.clear();
    clock += 2000;
    await eventually(() => expect(journal.waiting.size).toBe(0));
    expect(redis.kept.has(press('poison').alertId)).toBe(true);
  });

  test('+ without its replica it is in the journal too, until there is one; its contacts are not told twice', async () => {
    let clock = 1_000_000;
    const { redis, door } = setUp(() => clock);
    redis.replicated = false;
    await door.take(press('a'));
    expect([door.silent, journal.waiting.size]).toEqual([false, 1]);
    clock += 20_000;
    await eventually(() => expect(redis.queued).toEqual([press('a').alertId]));
    await looks(redis, 2);
    expect(redis.told).toEqual([]);
    redis.replicated = true;
    await eventually(() => expect(journal.waiting.size).toBe(0));
    expect(redis.queued).toEqual([press('a').alertId]);
  });

  test('+ after 10 s of silence the contacts are told from here, once, never for a drill; Redis learns of it', async () => {
    let clock = 1_000_000;
    const { redis, door } = setUp(() => clock);
    redis.silent = true;
    await door.take(press('a'));
    await door.take(press('drill', { drill: true }));
    clock += 9_999;
    await looks(redis, 2);
    expect(redis.told).toEqual([]);
    clock += 1;
    await eventually(() => expect(redis.told).toEqual([press('a').alertId]));
    redis.silent = false;
    await eventually(() => expect(journal.waiting.size).toBe(0));
    expect(redis.told).toEqual([press('a').alertId]);
    expect(redis.kept.get(press('a').alertId)?.sent).toMatchObject([
      { contact: 'c1', state: { status: 'sent' } },
    ]);
  });

  test('+ with neither Redis nor a disk it says so', async () => {
    const { redis, door } = setUp();
    redis.silent = true;
    await journal.close();
    await expect(door.take(press('a'))).rejects.toThrow();
    expect(redis.counted).toContain('refused no-store');
    journal = await Journal.open(directory, 'a');
  });

  test('a thumb that hammers the button costs one round trip', async () => {
    const { redis, door } = setUp();
    const answers = await Promise.all(Array.from({ length: 100 }, () => door.take(press('a'))));
    expect(new Set(answers.map(({ alertId }) => alertId)).size).toBe(1);
    expect(redis.counted).toEqual(['accepted new']);
  });
});
