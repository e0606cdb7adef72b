/** What the workers do with alerts, on a real Redis and with providers that are told what to do. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import type { Redis } from 'ioredis';
import { feedKeys } from '../../lib/feed-stream.ts';
import { ProviderError } from '../../lib/providers/provider-error.ts';
import type { SosProviders } from '../../lib/providers/sos-providers.ts';
import { createSealer } from '../../lib/sealed.ts';
import { cardKey } from '../../mixins/cards.ts';
import { raisersView } from '../../services/sos/alert-record.ts';
import { openContacts } from '../../services/sos/contact-messages.ts';
import type { FollowJob, JobToAdd } from '../../services/sos/follow-jobs.ts';
import { lookUp } from '../../services/sos/look-up.ts';
import { Messenger, type MessengerParts } from '../../services/sos/messenger.ts';
import { Planner } from '../../services/sos/planner.ts';
import { readPress } from '../../services/sos/read-press.ts';
import { SosRecords } from '../../services/sos/records.ts';
import { Waker } from '../../services/sos/waker.ts';
import type { Way } from '../../services/sos/ways.ts';
import { eventually } from '../support/eventually.ts';
import { startTestRedis, type TestRedis } from '../support/redis.ts';

const sealer = createSealer([{ id: 'k', key: Buffer.alloc(32, 1) }]);
const contacts = sealer.seal(
  JSON.stringify(
    ['+919812345670', '+919812345671'].map((phone) => ({ name: 'Ravi', phone, relation: 'friend' })),
  ),
);
const hashSecret = 'secret';
const logger = { debug() {}, info() {}, warn() {}, error() {} };
const busy = new ProviderError({ provider: 'twilio', code: '20500', permanent: false, status: 500 });

let server: TestRedis;
let redis: Redis;
beforeAll(async () => {
  server = await startTestRedis();
  redis = server.connect();
});
afterEach(() => redis.flushall());
afterAll(() => server.stop());

/** Workers that share a Redis, providers, a clock and what they have queued. */
function makeWorkers() {
  const world = {
    clock: Date.now(),
    sent: [] as { by: string; to: string }[],
    languages: [] as string[],
    pages: [] as string[],
    calls: 0,
    counted: [] as string[],
    jobs: [] as JobToAdd<FollowJob>[],
    failSms: (_by: string): boolean => false,
    /** Of contacts who have the app: their devices, by the key of their number. */
    devices: new Map<string, string>(),
    failCall: false,
    queueIsAway: false,
    /** Whose contacts nobody can say. */
    unknown: new Set<string>(),
    /** Providers can say what they have sent. */
    canBeAsked: false,
    /** Until it resolves, no SMS is answered. */
    hold: Promise.resolve(),
  };
  const by = (name: string, channel: Way['channel']): Way => ({
    name,
    channel,
    async send({ to, said, devices: [token] }) {
      const fails = world.failSms(name);
      world.languages.push(said.language);
      if (!fails) world.sent.push({ by: name, to: token ?? to });
      await world.hold;
      if (fails) throw busy;
      return { providerMessageId: `${name}-${world.sent.length}` };
    },
    async findSent({ to }) {
      const isSent = world.canBeAsked && world.sent.some((one) => one.by === name && one.to === to);
      return isSent ? { providerMessageId: `${name} has it` } : null;
    },
  });
  const providers = {
    voice: {
      name: 'voice',
      async call() {
        if (world.failCall) throw busy;
        world.calls++;
        return { providerCallId: 'CA1' };
      },
    },
    pager: {
      name: 'pager',
      async trigger({ dedupKey }: { dedupKey: string }) {
        world.pages.push(dedupKey);
      },
      async acknowledge() {},
      async resolve() {},
    },
  } as unknown as Pick<SosProviders, 'voice' | 'pager'>;
  const records = new SosRecords(redis, { replicas: 0, replicaWithinMs: 0 });
  const common = {
    records,
    sealer,
    hashSecret,
    logger,
    metrics: {
      increment: (name: string, labels = {}) => void world.counted.push(`${name} ${JSON.stringify(labels)}`),
      observe() {},
    },
    async follow(jobs: JobToAdd<FollowJob>[]) {
      if (world.queueIsAway) throw new Error('away');
      // As Bull does: an id is added once
      for (const job of jobs)
        if (!world.jobs.some(({ options }) => options.jobId === job.options.jobId)) world.jobs.push(job);
    },
    now: () => world.clock,
  };
  const parts: MessengerParts = {
    ...common,
    texts: [by('twilio', 'sms'), by('msg91', 'sms'), by('whatsapp', 'whatsapp')],
    push: [by('fcm', 'push')],
    devicesOf: async () => world.devices,
    async cardOf(userId) {
      if (world.unknown.has(userId)) throw new Error('Nobody can say');
      return { name: 'Asha', contacts, pin: null, duressPin: null, language: 'hi' };
    },
    linkOf: async () => 'https://ride.example/share/shr_x',
  };
  const messenger = () => new Messenger(parts);
  const waker = new Waker({ ...common, providers, onCallPhone: '+12025550199', source: 'test' });
  const planner = new Planner({ ...common, escalateAfterMs: 30_000 });
  return { world, records, parts, messenger, waker, planner };
}
type Workers = ReturnType<typeof makeWorkers>;

async function raise({ records, world }: Workers, key: string, drill = false): Promise<string> {
  const press = readPress({ key, drill }, { id: `usr_${key}`, standing: 'live' }, world.clock);
  return (await records.take(press)).alertId;
}
const plan = async ({ records, planner }: Workers, ids: string[]) =>
  planner.process(
    (await records.readMany(ids)).filter((record) => record !== null),
    async () => {},
  );

/** Runs what is queued, a clock's time later for what is delayed, until nothing is left. */
async function runAll({ world, messenger, waker }: Workers, kinds = ['send', 'wake']): Promise<string[]> {
  const ran: string[] = [];
  const worker = messenger();
  for (const done = new Set<string>(); ; ) {
    const job = world.jobs.find(({ options, data }) => !done.has(options.jobId) && kinds.includes(data.kind));
    if (!job) return ran;
    done.add(job.options.jobId);
    ran.push(job.options.jobId);
    world.clock += job.options.delay ?? 0;
    if (job.data.kind === 'send') await worker.send(job.data);
    else await waker.wake(job.data);
  }
}

describe('planning', () => {
  test('+ a queue that was away after the plan was written down: the next look queues all of it', async () => {
    const workers = makeWorkers();
    const id = await raise(workers, 'a');
    workers.world.queueIsAway = true;
    await expect(plan(workers, [id])).rejects.toThrow('away');
    expect((await workers.records.read(id))?.planned).toBe(false);
    expect(await workers.records.unprocessed(Number.MAX_SAFE_INTEGER, 10)).toEqual([id]);
    workers.world.queueIsAway = false;
    await plan(workers, [id]);
    expect(workers.world.jobs.map(({ options }) => options.jobId)).toEqual([
      expect.stringMatching(/^raised:/),
      expect.stringMatching(/^wake:/),
    ]);
    expect(await workers.records.unprocessed(Number.MAX_SAFE_INTEGER, 10)).toEqual([]);
    await runAll(workers, ['send']);
    expect(workers.world.sent).toHaveLength(2);
  });

  test('planning twice changes nothing; a drill reaches nobody', async () => {
    const workers = makeWorkers();
    const [id, drill] = [await raise(workers, 'a'), await raise(workers, 'd', true)];
    await plan(workers, [id, drill]);
    await plan(workers, [id, drill]);
    expect(workers.world.jobs).toHaveLength(2);
    await runAll(workers);
    expect(workers.world.sent).toHaveLength(2);
    expect(workers.world.pages).toEqual([id]);
    const practised = await workers.records.read(drill);
    expect(practised?.messages.map(({ state }) => state.status)).toEqual(['drill', 'drill']);
  });

  test('+ R3.6 whose contacts nobody can say: the others are told, the job runs again, in the end somebody knows', async () => {
    const workers = makeWorkers();
    const ids = await Promise.all(['a', 'b'].map((key) => raise(workers, key)));
    const [known, unknown] = ids as [string, string];
    await redis.hset(`sos:alert:${known}`, 'contacts', contacts);
    workers.world.unknown.add('usr_b');
    const job = { kind: 'send' as const, ids, purpose: 'raised' as const };
    await expect(workers.messenger().send(job)).rejects.toThrow('Nobody can say');
    expect(workers.world.sent).toHaveLength(2);
    expect((await workers.records.read(unknown))?.looked).toBe(false);
    await workers.messenger().giveUp(job, new Error('Nobody can say'));
    const told = (await redis.xrange(feedKeys.stream, '-', '+')).map(([, fields]) =>
      JSON.parse(fields[5] ?? '{}'),
    );
    expect(told).toContainEqual({
      alertId: unknown,
      status: 'active',
      what: 'contacts-unknown',
      sound: true,
    });
    expect(told).not.toContainEqual(expect.objectContaining({ alertId: known, what: 'contacts-unknown' }));
    expect(workers.world.jobs.map(({ options }) => options.jobId)).toContain(`unreached:${unknown}`);
    // Accounts can be asked again
    workers.world.unknown.clear();
    await workers.messenger().send(job);
    expect(workers.world.sent).toHaveLength(4);
    expect((await workers.records.read(unknown))?.messages).toHaveLength(2);
  });
});

describe('messages', () => {
  test('+ workers that have the same job never send twice', async () => {
    const workers = makeWorkers();
    const ids = await Promise.all(['a', 'b', 'c'].map((key) => raise(workers, key)));
    await plan(workers, ids);
    const job = { kind: 'send' as const, ids, purpose: 'raised' as const };
    // Slow enough that the others see claims without an outcome
    const { promise, resolve } = Promise.withResolvers<void>();
    workers.world.hold = promise;
    const first = workers.messenger().send(job);
    await eventually(() => expect(workers.world.sent).toHaveLength(6));
    await Promise.all([1, 2, 3].map(() => workers.messenger().send(job)));
    resolve();
    await first;
    await runAll(workers, ['send']);
    expect(new Set(workers.world.sent.map(({ to }) => to)).size).toBe(2);
    expect(workers.world.sent).toHaveLength(6);
    const messages = (await workers.records.readMany(ids)).flatMap((record) => record?.messages ?? []);
    expect(messages.map(({ state }) => state.status)).toEqual(Array(6).fill('sent'));
  });

  test('+ of two claims in the same moment one is won; an alert that a job names twice is told of once', async () => {
    const workers = makeWorkers();
    const [id, twice] = [await raise(workers, 'a'), await raise(workers, 'b')];
    const { records } = await lookUp(workers.parts, [(await workers.records.read(id))!]);
    const [message] = records[0]!.messages;
    const { contact, state } = message!;
    const claim = () =>
      workers.records.claim(id, `m:raised:${contact}`, state, { ...state, status: 'sending', provider: 'x' });
    expect((await Promise.all([claim(), claim()])).toSorted()).toEqual(['lost', 'send']);
    await workers.messenger().send({ kind: 'send', ids: [twice, twice], purpose: 'raised' });
    expect(workers.world.sent).toHaveLength(2);
  });

  test('+ a claim whose owner died is taken over after some seconds, and counted', async () => {
    const workers = makeWorkers();
    const id = await raise(workers, 'a');
    await plan(workers, [id]);
    const job = { kind: 'send' as const, ids: [id], purpose: 'raised' as const };
    workers.world.hold = new Promise(() => {});
    void workers.messenger().send(job);
    await eventually(() => expect(workers.world.sent).toHaveLength(2));
    workers.world.hold = Promise.resolve();
    await runAll(workers, ['send']);
    const takenOver = workers.world.jobs.filter(({ options }) => options.jobId.includes('unfinished'));
    expect(takenOver).toHaveLength(2);
    for (const { options } of takenOver) expect(options.delay).toBeLessThan(5000);
    const record = await workers.records.read(id);
    expect(record?.messages.map(({ state }) => state.status)).toEqual(['sent', 'sent']);
    expect(workers.world.counted.filter((line) => line.startsWith('sos.resent.total'))).toHaveLength(2);
  });

  test('R3.6 three attempts each by jobs with ids of their own; then the next, then a dead letter and the person on call', async () => {
    const workers = makeWorkers();
    const { world, records } = workers;
    world.failSms = () => true;
    const id = await raise(workers, 'a');
    await plan(workers, [id]);
    world.jobs.splice(1);
    await runAll(workers, ['send']);
    const [key] = openContacts(sealer, hashSecret, contacts).map((contact) => contact.key);
    const attempts = world.jobs
      .map(({ options }) => options.jobId)
      .filter((jobId) => jobId.includes(`:${key}:`));
    expect(attempts).toEqual(
      'twilio:2 twilio:3 msg91:1 msg91:2 msg91:3 whatsapp:1 whatsapp:2 whatsapp:3'
        .split(' ')
        .map((what) => `raised:${id}:${key}:${what}`),
    );
    expect(await redis.llen('sos:dead-letters')).toBe(2);
    expect((await records.log(id)).filter(({ what }) => what === 'contact-not-reached')).toHaveLength(2);
    await runAll(workers, ['wake']);
    expect([world.pages, world.calls]).toEqual([[id], 1]);
    expect(world.counted).toContain('sos.exhausted.total {"what":"contact"}');
  });

  test('R3.5 what admins are told last is the state of the alert, though it moved on during an attempt', async () => {
    const workers = makeWorkers();
    const { world, records } = workers;
    const id = await raise(workers, 'a');
    const respond = async () => {
      await records.step((await records.read(id))!, 'respond', { at: world.clock, who: 'usr_admin' });
    };
    let last = 0;
    world.failSms = (by) => {
      // The last attempt for the second of them
      if (by === 'whatsapp' && ++last === 6) world.hold = respond();
      return true;
    };
    await plan(workers, [id]);
    await runAll(workers, ['send']);
    await workers.waker.giveUp({ kind: 'wake', part: 'incident', id, reason: 'unreached' }, busy);
    const told = (await redis.xrange(feedKeys.stream, '-', '+')).map(([, fields]) => {
      const { what, status } = JSON.parse(fields[5] ?? '{}') as Record<string, unknown>;
      return [what, status];
    });
    expect(told).toEqual([
      [undefined, undefined],
      ['contact-not-reached', 'active'],
      [undefined, 'responding'],
      ['contact-not-reached', 'responding'],
      ['incident-failed', 'responding'],
    ]);
  });

  test("+ R3.4 messages are in the language of the raiser's card; English where it names none", async () => {
    const workers = makeWorkers();
    const { world, records } = workers;
    const card = { name: 'Asha', contacts, pin: '', duressPin: '' };
    await redis.hset(cardKey('usr_older'), card);
    await redis.hset(cardKey('usr_hindi'), { ...card, language: 'hi' });
    await redis.hset(cardKey('usr_other'), { ...card, language: 'ta' });
    const [first] = openContacts(sealer, hashSecret, contacts);
    world.devices.set(first!.key, sealer.seal('["token-1"]'));
    // Of whom there is no card somebody has to be asked
    for (const [key, language] of [
      ['older', 'en'],
      ['hindi', 'hi'],
      ['other', 'en'],
      ['asked', 'hi'],
    ] as const) {
      world.languages.length = 0;
      const id = await raise(workers, key);
      await plan(workers, [id]);
      await runAll(workers, ['send']);
      expect([key, (await records.read(id))?.language, world.languages]).toEqual([
        key,
        language,
        Array(3).fill(language),
      ]);
    }
  });

  test('+ who has the app gets a push message beside the text; without it nobody needs waking', async () => {
    const workers = makeWorkers();
    const { world, records } = workers;
    const [first] = openContacts(sealer, hashSecret, contacts);
    world.devices.set(first!.key, sealer.seal('["token-1"]'));
    const [id, failing, drill] = [
      await raise(workers, 'a'),
      await raise(workers, 'b'),
      await raise(workers, 'd', true),
    ];
    await plan(workers, [id, drill]);
    await runAll(workers, ['send']);
    expect(world.sent.map(({ by }) => by).toSorted()).toEqual(['fcm', 'twilio', 'twilio']);
    expect(world.sent).toContainEqual({ by: 'fcm', to: 'token-1' });
    const told = await records.read(id);
    const rows = raisersView(told!, []).contacts.map(({ channel, status }) => `${channel} ${status}`);
    expect(rows.toSorted()).toEqual(['push sent', 'sms sent', 'sms sent']);
    expect((await records.read(drill))?.messages.map(({ state }) => state.status)).toEqual(
      Array(3).fill('drill'),
    );

    world.failSms = (name) => name === 'fcm';
    await plan(workers, [failing]);
    await runAll(workers, ['send']);
    expect(await redis.llen('sos:dead-letters')).toBe(1);
    expect(world.jobs.map(({ options }) => options.jobId)).not.toContain(`unreached:${failing}`);
    expect(world.counted).toContain('sos.exhausted.total {"what":"push"}');

    world.failSms = () => false;
    await records.step(told!, 'resolve', { at: world.clock, who: 'usr_admin' });
    await plan(workers, [id]);
    await runAll(workers, ['send']);
    expect(
      world.sent
        .slice(-3)
        .map(({ by }) => by)
        .toSorted(),
    ).toEqual(['fcm', 'twilio', 'twilio']);
  });

  test('+ nobody is told of an alert once it is over, and who was told hears of the end', async () => {
    const workers = makeWorkers();
    const { world, records } = workers;
    const [late, told] = [await raise(workers, 'late'), await raise(workers, 'told')];
    await plan(workers, [late, told]);
    await workers.messenger().send({ kind: 'send', ids: [told], purpose: 'raised' });
    await lookUp(workers.parts, [(await records.read(late))!]);
    for (const id of [late, told]) {
      const record = await records.read(id);
      expect(record?.messages).toHaveLength(2);
      expect(await records.step(record!, 'resolve', { at: world.clock, who: 'usr_admin' })).toBe('ok');
      // Read before the end, as a slow worker has it
      for (const { contact, state } of record!.messages)
        expect(await records.claim(id, `m:raised:${contact}`, state, { ...state, status: 'sending' })).toBe(
          'lost',
        );
    }
    await plan(workers, [late, told]);
    await runAll(workers, ['send']);
    expect(world.sent).toHaveLength(4);
    expect(world.jobs.map(({ options }) => options.jobId)).toContain(`over:${told}`);
    expect(world.jobs.map(({ options }) => options.jobId)).not.toContain(`over:${late}`);
  });

  test.each([
    { canBeAsked: true, becomes: 'sent', logged: 'contact-told' },
    { canBeAsked: false, becomes: 'failed', logged: 'contact-try-failed' },
  ])(
    'P2 a claim whose owner died is $becomes in the end also when the alert is over, and nothing is sent for it',
    async ({ canBeAsked, becomes, logged }) => {
      const workers = makeWorkers();
      const { world, records } = workers;
      world.canBeAsked = canBeAsked;
      const id = await raise(workers, 'a');
      await plan(workers, [id]);
      world.jobs.splice(0);
      const job = { kind: 'send' as const, ids: [id], purpose: 'raised' as const };
      world.hold = new Promise(() => {});
      void workers.messenger().send(job);
      await eventually(() => expect(world.sent).toHaveLength(2));
      world.hold = Promise.resolve();
      const record = (await records.read(id))!;
      expect(await records.step(record, 'resolve', { at: world.clock, who: 'usr_admin' })).toBe('ok');
      // The job runs again, as a killed worker's does
      await workers.messenger().send(job);
      await runAll(workers, ['send']);
      const raised = (await records.read(id))!.messages.filter(({ purpose }) => purpose === 'raised');
      expect(raised.map(({ state }) => state.status)).toEqual([becomes, becomes]);
      expect(world.sent).toHaveLength(2);
      const log = (await records.log(id)).map(({ what }) => what);
      expect(log.filter((what) => what === logged)).toHaveLength(2);
      // Who may have heard of it hears of the end; nobody is woken over an alert that is over
      await plan(workers, [id]);
      await runAll(workers);
      expect(world.sent).toHaveLength(4);
      expect([world.pages, world.calls, await redis.llen('sos:dead-letters')]).toEqual([[], 0, 0]);
    },
  );

  test('R3.4 the end of an alert never overtakes the alert on its way to a contact', async () => {
    const workers = makeWorkers();
    const { world, records } = workers;
    const id = await raise(workers, 'a');
    await plan(workers, [id]);
    world.jobs.splice(0);
    const { promise, resolve } = Promise.withResolvers<void>();
    world.hold = promise;
    const sending = workers.messenger().send({ kind: 'send', ids: [id], purpose: 'raised' });
    await eventually(() => expect(world.sent).toHaveLength(2));
    const record = (await records.read(id))!;
    expect(await records.step(record, 'resolve', { at: world.clock, who: 'usr_admin' })).toBe('ok');
    await plan(workers, [id]);
    await workers.messenger().send({ kind: 'send', ids: [id], purpose: 'over' });
    expect(world.sent).toHaveLength(2);
    const waiting = world.jobs.filter(({ options }) => options.jobId.includes(':behind:'));
    expect(waiting).toHaveLength(2);
    for (const { options } of waiting) expect(options.delay).toBeLessThan(5000);
    resolve();
    await sending;
    await runAll(workers, ['send']);
    const states = (await records.read(id))!.messages.map(
      ({ purpose, state }) => `${purpose} ${state.status}`,
    );
    expect(states.toSorted()).toEqual(['over sent', 'over sent', 'raised sent', 'raised sent']);
    expect(world.sent).toHaveLength(4);
  });

  test('+ under duress an attempt that was under way shows how it went, and nothing else does', async () => {
    const workers = makeWorkers();
    const { world, records } = workers;
    const id = await raise(workers, 'a');
    await plan(workers, [id]);
    const { promise, resolve } = Promise.withResolvers<void>();
    world.hold = promise;
    world.failSms = () => true;
    const sending = workers.messenger().send({ kind: 'send', ids: [id], purpose: 'raised' });
    await eventually(async () =>
      expect((await records.read(id))?.messages.map(({ state }) => state.status)).toEqual([
        'sending',
        'sending',
      ]),
    );
    await records.duress((await records.read(id))!, world.clock);
    const seen = async () =>
      [...((await records.read(id))?.seen?.contacts.values() ?? [])].map(({ status }) => status);
    expect(await seen()).toEqual(['sending', 'sending']);
    resolve();
    await sending;
    expect(await seen()).toEqual(['failed', 'failed']);
    world.failSms = () => false;
    await runAll(workers, ['send']);
    expect(world.sent).toHaveLength(2);
    expect(await seen()).toEqual(['failed', 'failed']);
  });
});

describe('waking the person on call', () => {
  test('+ a storm is one incident for all beyond sixty a minute, and one call', async () => {
    const workers = makeWorkers();
    const { world } = workers;
    const ids = await Promise.all(Array.from({ length: 70 }, (_, n) => raise(workers, `s${n}`)));
    await workers.waker.wake({ kind: 'wake', part: 'check', ids, reason: 'unacknowledged' });
    await runAll(workers);
    expect(world.pages.filter((key) => key.startsWith('sos_'))).toHaveLength(60);
    expect(new Set(world.pages.slice(60))).toEqual(new Set([expect.stringMatching(/^sos-storm-/)]));
    expect(world.calls).toBe(1);
  });

  test('+ the call is made again once it has failed; a drill and an acknowledged alert wake nobody', async () => {
    const workers = makeWorkers();
    const { world, records, waker } = workers;
    const [id, drill, seen] = [
      await raise(workers, 'a'),
      await raise(workers, 'd', true),
      await raise(workers, 's'),
    ];
    await records.step((await records.read(seen))!, 'acknowledge', { at: world.clock });
    const call = { kind: 'wake' as const, part: 'call' as const, id, reason: 'unacknowledged' as const };
    world.failCall = true;
    await expect(waker.wake(call)).rejects.toThrow();
    world.failCall = false;
    await waker.wake(call);
    await waker.wake(call);
    expect(world.calls).toBe(1);
    await waker.wake({ kind: 'wake', part: 'check', ids: [drill, seen], reason: 'unacknowledged' });
    expect(world.jobs).toEqual([]);
    await waker.giveUp(call, busy);
    expect(await redis.llen('sos:dead-letters')).toBe(1);
    expect((await records.log(id)).map(({ what }) => what)).toContain('call-failed');
  });
});
