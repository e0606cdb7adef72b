/**
 * R4.5, R4.7: a lot of notifications over four channels at once, and sign-in codes amid them, through the notify role over NATS; beside it
 * a plain Bull queue with eight workers. Simulated providers in a process of their own, each answer after 50 ms, one in fifty an error.
 *
 * Accepted: the provider has answered that it has the message, by the provider's own clock (the same machine's). Handled: accepted, or
 * given up after its attempts, with a record and a dead letter.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import type { Redis } from 'ioredis';
import type { Sealer } from '../../lib/sealed.ts';
import type { Notification } from '../../services/notify/notification.ts';
import { NotificationRecords } from '../../services/notify/records.ts';
import { processCpuMs, redisCpuMs } from '../support/bench/machine.ts';
import { type BaselineMessage, baselineJob, notifyBaselineQueue } from '../support/bench/notify-baseline.ts';
import {
  inParallel,
  messageOf,
  otpPhone,
  personOf,
  type Queued,
  steadily,
  type Taken,
  tallyOf,
} from '../support/bench/notify-load.ts';
import { atMost, type Bench, type Figures, type Target } from '../support/bench/result.ts';
import { bullOn } from '../support/bench/sos-baseline.ts';
import { quantile } from '../support/bench/sos-load.ts';
import { startNats } from '../support/nats.ts';
import { startRole, untilReady } from '../support/process.ts';
import { startTestRedis } from '../support/redis.ts';
import { spawnAnnounced } from '../support/spawn.ts';
import { startSystem } from '../support/system.ts';

const latencyMs = 50;
const errorShare = 0.02;
const providers = ['twilio', 'msg91', 'whatsapp', 'sendgrid', 'ses', 'fcm'] as const;
/** Callers at once: as many as a role has calls of one action under way. */
const callers = 200;
const otpEveryMs = 100;
const nodeOptions = ['--max-semi-space-size=64', '--disable-warning=DEP0174'];
/** On a machine with other work, too. */
const readyWithinMs = 120_000;
const handledWithinMs = 300_000;
/** Nothing is asked of providers meanwhile: their receipts do not come here. */
const never = '3600000';
const data = { driver: 'Asha Rao', vehicle: 'White Swift', plate: 'KA01AB1234' };
const otpOf = (n: number) => ({ code: String(100_000 + n) });

/** Who queues and sends. Numbers of messages and of codes are never used twice. */
interface Contender {
  send(n: number): Promise<void>;
  sendOtp(n: number): Promise<void>;
  /** Resolves when all that was queued is accepted or given up. */
  untilHandled(): Promise<void>;
  /** When it gave each up, and what it does not know; by number of message or code. */
  endOf(kind: 'message' | 'otp', n: number): Pick<Queued, 'failedAt' | 'unsure'>;
  /** CPU time so far, by part. */
  cpuMs(): Promise<Record<'sender' | 'caller' | 'redis' | 'nats' | 'simulator', number>>;
}

/** What of accounts is used directly: users made without an SMS each. */
interface Accounts {
  findOrCreate(phone: string, name: string): Promise<{ _id: string }>;
  sealer(): Sealer;
  change(id: string, set: object): Promise<unknown>;
}

interface Simulator {
  url: string;
  pid: number;
  taken(): Promise<Taken[]>;
}

async function startSimulator(stops: AsyncDisposableStack): Promise<Simulator> {
  const args = ['bin/providers.ts', '--latency-ms', String(latencyMs), '--max-messages', '200000'];
  const program = await spawnAnnounced([...nodeOptions, ...args]);
  stops.defer(() => program.stop());
  const { line: url, child } = program;
  for (const provider of providers) {
    const script = { kind: 'flaky', share: errorShare };
    const answer = await fetch(`${url}/scripts`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ provider, script, receipts: { kind: 'dropped' } }),
    });
    if (!answer.ok) throw new Error(`The simulator does not play the script of ${provider}`);
  }
  return {
    url,
    pid: child.pid ?? 0,
    async taken() {
      const answer = await fetch(`${url}/outbox?limit=200000`);
      const { messages } = (await answer.json()) as {
        messages: { channel: string; to: string; at: string }[];
      };
      // It says so after it took it
      return messages.map(({ channel, to, at }) => ({ channel, to, at: Date.parse(at) + latencyMs }));
    },
  };
}

/** The notify role, called over NATS from here; accounts, which it asks whom to reach and where, is here too. */
async function startOurs(
  redis: Redis,
  redisUrl: string,
  simulator: Simulator,
  people: number,
  stops: AsyncDisposableStack,
): Promise<Contender> {
  const root = await mkdtemp(join(tmpdir(), 'ride-bench-notify-'));
  stops.defer(() => rm(root, { recursive: true, force: true }));
  const nats = await startNats();
  stops.defer(() => nats.stop());
  const env = {
    NATS_URL: nats.url,
    REDIS_URL: redisUrl,
    PROVIDERS_SANDBOX_URL: simulator.url,
    LOG_LEVEL: 'error',
    LOG_FORMAT: 'json',
    // What a process may hand to a provider is its account's limit, and not what is measured
    NOTIFY_PER_SECOND: providers.map((name) => `${name}:10000`).join(','),
    NOTIFY_RECEIPT_AFTER_MS: never,
    NOTIFY_PUSH_ACK_MS: never,
  };
  const role = await startRole('notify', join(root, 'notify'), env);
  stops.defer(async () => void (await role.stop()));
  const system = await startSystem({ only: ['accounts'], dataDir: join(root, 'accounts'), env });
  stops.defer(() => system.stop());
  const { broker } = system;
  await untilReady(role, readyWithinMs);
  await broker.waitForServices(['notify'], 20_000);

  const accounts = broker.getLocalService('accounts') as unknown as Accounts;
  const userIds: string[] = [];
  await inParallel(people, 10, async (n) => {
    const { phone, name, email, pushToken } = personOf(n);
    const { _id: id } = await accounts.findOrCreate(phone, name);
    const emailSealed = accounts.sealer().seal(email);
    await accounts.change(id, { emailSealed, pushToken: { token: pushToken, platform: 'android' } });
    userIds[n] = id;
  });

  const records = new NotificationRecords(redis);
  const ids = new Map<string, string>();
  const ends = new Map<string, Pick<Queued, 'failedAt' | 'unsure'>>();
  const keep = (key: string, { progress }: Notification, dead: ReadonlySet<string>, id: string) => {
    const { status, endedAt = null, attempts } = progress;
    const isOver = (status === 'failed' || status === 'expired') && dead.has(id);
    ends.set(key, {
      failedAt: isOver ? endedAt : null,
      unsure: attempts.filter(({ unsure }) => unsure === true).length,
    });
  };
  return {
    async send(n) {
      const { person, channel, priority } = messageOf(n);
      const key = `message ${n}`;
      const { notificationId } = await broker.call<{ notificationId: string }, object>('notify.send', {
        to: { userId: userIds[person] },
        template: 'trip-accepted',
        data,
        priority,
        channels: [channel],
        idempotencyKey: key,
        expiresInMs: 3_600_000,
      });
      ids.set(key, notificationId);
    },
    async sendOtp(n) {
      const key = `otp ${n}`;
      const { notificationId } = await broker.call<{ notificationId: string }, object>('notify.send', {
        to: { phone: otpPhone(n) },
        template: 'otp',
        data: otpOf(n),
        priority: 'high',
        channels: ['sms', 'whatsapp'],
        idempotencyKey: key,
        expiresInMs: 300_000,
      });
      ids.set(key, notificationId);
    },
    async untilHandled() {
      const waiting = [...ids].filter(([key]) => !ends.has(key));
      const deadline = performance.now() + handledWithinMs;
      const seen: [key: string, Notification][] = [];
      // In order, and no more than is likely to be handled: reading costs the CPU that is measured
      while (seen.length < waiting.length) {
        const some = waiting.slice(seen.length, seen.length + 100);
        const found = await records.readMany(some.map(([, id]) => id));
        const open = found.findIndex((one) => one === null || one.progress.status === 'queued');
        const handled = open === -1 ? found : found.slice(0, open);
        for (const [index, one] of handled.entries()) if (one) seen.push([some[index]?.[0] ?? '', one]);
        if (open === -1) continue;
        if (performance.now() > deadline)
          throw new Error(`${waiting.length - seen.length} notifications were not handled in time`);
        await pause(50);
      }
      const dead = new Set(
        (await records.dead(100_000)).map((json) => (JSON.parse(json) as { id: string }).id),
      );
      for (const [key, one] of seen) keep(key, one, dead, one.id);
    },
    endOf: (kind, n) => ends.get(`${kind} ${n}`) ?? { failedAt: null, unsure: 0 },
    cpuMs: async () => ({
      sender: await processCpuMs(role.child.pid ?? 0),
      caller: await processCpuMs(process.pid),
      redis: await redisCpuMs(redis),
      nats: await processCpuMs(nats.pid),
      simulator: await processCpuMs(simulator.pid),
    }),
  };
}

/** Bull, with a worker in a process of its own. */
async function startPlain(
  redis: Redis,
  redisUrl: string,
  simulator: Simulator,
  stops: AsyncDisposableStack,
): Promise<Contender> {
  const file = join(import.meta.dirname, '../support/bench/notify-baseline.ts');
  const worker = await spawnAnnounced([...nodeOptions, file, redisUrl, simulator.url]);
  stops.defer(() => worker.stop());
  const bull = bullOn<BaselineMessage>(notifyBaselineQueue, redisUrl);
  stops.defer(() => bull.close());
  const { queue } = bull;
  const failed = new Map<string, number>();
  return {
    async send(n) {
      const { channel, to } = messageOf(n);
      await queue.add(
        { channel, to, template: 'trip-accepted', data },
        { ...baselineJob(false), jobId: `message ${n}` },
      );
    },
    async sendOtp(n) {
      const message: BaselineMessage = { channel: 'sms', to: otpPhone(n), template: 'otp', data: otpOf(n) };
      await queue.add(message, { ...baselineJob(true), jobId: `otp ${n}` });
    },
    async untilHandled() {
      const deadline = performance.now() + handledWithinMs;
      for (;;) {
        const { waiting, active, delayed } = await queue.getJobCounts();
        if (waiting + active + delayed === 0) break;
        if (performance.now() > deadline) throw new Error('The baseline was not done in time');
        await pause(50);
      }
      for (const { id, finishedOn } of await queue.getFailed())
        failed.set(String(id), finishedOn ?? Date.now());
    },
    endOf: (kind, n) => ({ failedAt: failed.get(`${kind} ${n}`) ?? null, unsure: 0 }),
    cpuMs: async () => ({
      sender: await processCpuMs(worker.child.pid ?? 0),
      caller: await processCpuMs(process.pid),
      redis: await redisCpuMs(redis),
      nats: 0,
      simulator: await processCpuMs(simulator.pid),
    }),
  };
}

interface Outcome {
  lost: number;
  doubled: number;
  figures: Figures;
}

/** A few to compile the code, then `count` at once with codes amid them. */
async function measure(
  contender: Contender,
  simulator: Simulator,
  { count, warm }: { count: number; warm: number },
): Promise<Outcome> {
  // Codes of the warm-up have numbers below those that count
  const firstOtp = 1000;
  await inParallel(warm, callers, (n) => contender.send(count + n));
  await inParallel(20, 5, (n) => contender.sendOtp(n));
  await contender.untilHandled();

  const dueAt = { message: new Map<number, number>(), otp: new Map<number, number>() };
  const cpuBefore = await contender.cpuMs();
  const began = Date.now();
  const codes = steadily(otpEveryMs, async (n, due) => {
    dueAt.otp.set(firstOtp + n, due);
    await contender.sendOtp(firstOtp + n);
  });
  await inParallel(count, callers, async (n) => {
    dueAt.message.set(n, Date.now());
    await contender.send(n);
  });
  const queuedMs = Date.now() - began;
  await contender.untilHandled();
  const otps = await codes.stop();
  await contender.untilHandled();
  const cpuAfter = await contender.cpuMs();

  const queued = (kind: 'message' | 'otp', isWanted: (n: number) => boolean = () => true) =>
    [...dueAt[kind]]
      .filter(([n]) => isWanted(n))
      .map(([n, at]): Queued => {
        const { channel, to } = kind === 'otp' ? { channel: 'sms' as const, to: otpPhone(n) } : messageOf(n);
        return { channel, to, at, ...contender.endOf(kind, n) };
      });
  const taken = await simulator.taken();
  const tallied = (list: readonly Queued[], isOf: (one: Taken) => Taken = (one) => one) => {
    const addresses = new Set(list.map(({ to }) => to));
    return tallyOf(list, taken.filter(({ to }) => addresses.has(to)).map(isOf));
  };
  const messages = queued('message');
  const tally = tallied(messages);
  // A code may come by WhatsApp, too
  const otpTally = tallied(queued('otp'), (one) => ({ ...one, channel: 'sms' }));
  const urgent = tallied(queued('message', (n) => messageOf(n).priority === 'high'));
  const handledMs = tally.lastAt - began;
  const cpu = Object.fromEntries(
    Object.entries(cpuAfter).map(([part, ms]) => [
      part,
      (ms - cpuBefore[part as keyof typeof cpuBefore]) / (count + otps),
    ]),
  ) as typeof cpuAfter;
  const { sender, caller, redis, nats, simulator: simulated } = cpu;
  const times = (prefix: string, values: readonly number[]): Figures => ({
    [`${prefix}P50Ms`]: quantile(values, 0.5),
    [`${prefix}P95Ms`]: quantile(values, 0.95),
    [`${prefix}P99Ms`]: quantile(values, 0.99),
    [`${prefix}MaxMs`]: quantile(values, 1),
  });
  return {
    lost: tally.lost + otpTally.lost,
    doubled: tally.doubled + otpTally.doubled,
    figures: {
      queuedPerS: (count / queuedMs) * 1000,
      handledMs,
      handledPerS: (count / handledMs) * 1000,
      ...times('accepted', tally.acceptedMs),
      urgentAcceptedP99Ms: quantile(urgent.acceptedMs, 0.99),
      ...times('otp', otpTally.acceptedMs),
      otps,
      failed: tally.failed + otpTally.failed,
      doubledUnanswered: tally.doubledUnanswered + otpTally.doubledUnanswered,
      cpuMsEach: sender + caller + redis + nats,
      senderCpuMsEach: sender,
      callerCpuMsEach: caller,
      redisCpuMsEach: redis,
      natsCpuMsEach: nats,
      simulatorCpuMsEach: simulated,
    },
  };
}

const notify: Bench = async ({ quick }) => {
  const size = quick ? { count: 2000, warm: 200 } : { count: 10_000, warm: 1000 };
  const run = async (
    start: (
      redis: Redis,
      redisUrl: string,
      simulator: Simulator,
      stops: AsyncDisposableStack,
    ) => Promise<Contender>,
  ): Promise<Outcome> => {
    await using stops = new AsyncDisposableStack();
    const server = await startTestRedis();
    stops.defer(() => server.stop());
    const simulator = await startSimulator(stops);
    const contender = await start(server.connect(), server.url, simulator, stops);
    return await measure(contender, simulator, size);
  };
  const people = (size.count + size.warm) / 4;
  const { lost, doubled, figures } = await run((redis, url, simulator, stops) =>
    startOurs(redis, url, simulator, people, stops),
  );
  const plain = await run(startPlain);
  const baseline: Figures = { ...plain.figures, lost: plain.lost, doubled: plain.doubled };
  const figure = (name: string) => figures[name] ?? Number.NaN;
  const targets: Target[] = [
    atMost('R4.7', 'a sign-in code is out, p99, ms', figure('otpP99Ms'), 2000),
    ...(quick
      ? []
      : [atMost('R4.5', `${size.count} notifications all handled, ms`, figure('handledMs'), 20_000)]),
  ];
  return {
    name: 'notify',
    lost,
    doubled,
    figures,
    baseline,
    ratio: { handledPerS: figure('handledPerS') / (baseline['handledPerS'] ?? Number.NaN) },
    targets,
    notes: [
      `${size.count} calls of notify.send, ${callers} at a time, a quarter on each of SMS, WhatsApp, email and push, one in ten of high priority and three of low, to ${size.count / 4} users; a sign-in code every ${otpEveryMs} ms until all are handled. Each provider answers after ${latencyMs} ms, ${errorShare * 100} % of the answers are errors of its own. No receipts come, the rate budgets are lifted.`,
      'One process of the role notify over NATS (8 workers, 200 messages in flight); the callers and accounts are in the process of the benchmark. Redis with appendfsync always. CPU of each includes the codes; cpuMsEach leaves the simulator out.',
      'Baseline: Bull with a job each, 8 workers in a process of their own with one send each, 3 attempts with exponential backoff on the next provider, codes with priority; the job has the address, so nothing is looked up, kept or logged. Called without a service broker in between.',
      'doubledUnanswered: sent once more because the first answer was lost.',
    ],
  };
};

export default notify;
