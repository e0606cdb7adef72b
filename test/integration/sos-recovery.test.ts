import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import type { Redis } from 'ioredis';
import { loadConfig } from '../../lib/config.ts';
import { sealerOf } from '../../lib/sealed.ts';
import { type MessageState, queued } from '../../services/sos/alert-record.ts';
import type { FollowJob, JobToAdd } from '../../services/sos/follow-jobs.ts';
import { Planner } from '../../services/sos/planner.ts';
import { readPress } from '../../services/sos/read-press.ts';
import { SosRecords } from '../../services/sos/records.ts';
import { startTestRedis, type TestRedis } from '../support/redis.ts';

let server: TestRedis;
let redis: Redis;
let records: SosRecords;
let counter = 0;

const config = loadConfig({ NODE_ENV: 'test' });
const sealer = sealerOf(config);
const silent = { debug() {}, info() {}, warn() {}, error() {} };
const sent: MessageState = {
  name: 'Friend',
  status: 'sent',
  channel: 'sms',
  provider: 'twilio',
  tries: [],
  at: 1,
};

const newPress = () =>
  readPress({ key: `k${++counter}` }, { id: `usr_${counter}`, standing: 'live' }, Date.now());
/** A new alert as it is read. */
async function newAlert() {
  const { alertId } = await records.take(newPress());
  const record = await records.read(alertId);
  if (!record) throw new Error('There is no alert');
  return record;
}

beforeAll(async () => {
  server = await startTestRedis();
  redis = server.connect();
  records = new SosRecords(redis, { replicas: 0, replicaWithinMs: 0 });
});
afterAll(() => server.stop());

describe('a press that came late to the SOS Redis', () => {
  test('+ is not taken once the journal has it; from the journal it is', async () => {
    const press = newPress();
    await expect(records.take(press, [], Date.now() - 2000)).rejects.toThrow('too old');
    expect(await records.read(press.alertId)).toBeNull();
    expect(await records.take(press)).toMatchObject({ how: 'new', alertId: press.alertId });
    // It is there: no matter how late the same one is
    expect(await records.take(press, [], 1)).toMatchObject({ how: 'same' });
  });

  test('+ was taken in time all the same: what the door has sent is not sent again, what a worker has, stays', async () => {
    const press = newPress();
    const { alertId } = await records.take(press);
    const record = await records.read(alertId);
    const claimed = { ...sent, status: 'sending' as const };
    const fields = {
      'm:raised:waits': JSON.stringify(queued('Friend', 1, false)),
      'm:raised:claimed': JSON.stringify(claimed),
    };
    await records.plan([{ record: record!, entry: null, fields }], Date.now());
    const states = ['waits', 'claimed', 'unknown'].map((contact) => ({ contact, state: sent }));
    expect(await records.take(press, states)).toMatchObject({ how: 'same' });
    const after = await records.read(alertId);
    expect(after?.messages.map(({ contact, state }) => [contact, state.status])).toEqual([
      ['claimed', 'sending'],
      ['unknown', 'sent'],
      ['waits', 'sent'],
    ]);
  });
});

describe('planning that is cut off', () => {
  const jobs: JobToAdd<FollowJob>[] = [];
  let isCut = false;
  const planner = () =>
    new Planner({
      records,
      sealer,
      hashSecret: config.hashSecret,
      escalateAfterMs: 1000,
      logger: silent,
      metrics: { observe() {} },
      async cardOf() {
        if (isCut) throw new Error('Nobody can say');
        const contacts = sealer.seal(
          JSON.stringify([{ name: 'Friend', phone: '+919812345678', relation: 'friend' }]),
        );
        return { name: 'Asha', contacts, pin: null, duressPin: null };
      },
      linkOf: async () => 'https://example.org/share/x',
      async follow(list) {
        if (isCut) throw new Error('The SOS Redis is away');
        jobs.push(...list);
      },
      now: Date.now,
    });
  const planAgain = async (alertId: string) => {
    jobs.length = 0;
    const record = await records.read(alertId);
    await planner().process([record!], async () => {});
    return jobs.map(({ data }) => ('purpose' in data ? data.purpose : data.part));
  };

  test('+ between writing down and queueing: the messages are queued the next time', async () => {
    const { alertId } = await newAlert();
    const card = sealer.seal(
      JSON.stringify([{ name: 'Friend', phone: '+919812345678', relation: 'friend' }]),
    );
    await redis.hset(`sos:alert:${alertId}`, 'contacts', card);
    isCut = true;
    await expect(planAgain(alertId)).rejects.toThrow('away');
    isCut = false;
    expect(await records.unprocessed(Date.now(), 1000)).toContain(alertId);
    expect(await planAgain(alertId)).toEqual(['raised', 'check']);
    expect(await records.unprocessed(Date.now(), 1000)).not.toContain(alertId);
    const log = await records.log(alertId);
    expect(log.map(({ what }) => what)).toEqual(['raised', 'contacts-queued']);
    // Once is enough
    expect(await planAgain(alertId)).toEqual([]);
  });

  test('+ without anybody who knows the contacts: the sweep finds it at once', async () => {
    const { alertId } = await newAlert();
    await records.queued([alertId], Date.now() + 60_000);
    expect(await records.unprocessed(Date.now(), 1000)).not.toContain(alertId);
    isCut = true;
    await planAgain(alertId).catch(() => undefined);
    isCut = false;
    expect(await records.unprocessed(Date.now(), 1000)).toContain(alertId);
  });

  test('+ a job that is lost is found by the sweep in the end', async () => {
    const { alertId } = await newAlert();
    const until = Date.now() + 15_000;
    await records.queued([alertId], until);
    expect(await records.unprocessed(until, 1000)).toContain(alertId);
  });
});
