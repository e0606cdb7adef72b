import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import type { Redis } from 'ioredis';
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
      escalateAfterMs: 1000,
      logger: silent,
      metrics: { observe() {} },
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

  test('+ before the jobs are queued: they are queued the next time', async () => {
    const { alertId } = await newAlert();
    isCut = true;
    await expect(planAgain(alertId)).rejects.toThrow('away');
    isCut = false;
    expect(await records.unprocessed(Date.now(), 1000)).toContain(alertId);
    expect(await planAgain(alertId)).toEqual(['raised', 'check']);
    expect(await records.unprocessed(Date.now(), 1000)).not.toContain(alertId);
    // Once is enough
    expect(await planAgain(alertId)).toEqual([]);
  });

  test('+ what its door has queued is left alone, what has come up meanwhile is not', async () => {
    const [quiet, ended] = [await newAlert(), await newAlert()];
    await records.step(ended, 'resolve', { at: Date.now(), who: 'usr_admin' });
    await records.clear([quiet, ended]);
    expect(await records.unprocessed(Date.now(), 1000)).not.toContain(quiet.alertId);
    expect(await records.unprocessed(Date.now(), 1000)).toContain(ended.alertId);
    expect(await records.take(quiet.press)).toMatchObject({ how: 'same', planned: true });
  });
});
