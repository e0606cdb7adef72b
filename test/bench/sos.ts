/**
 * R3.3, R3.5, P2: SOS alerts from the intake action, from REST and from sockets, one at a time, at a rate and all at once, beside a
 * plain Bull queue that does the same writes one by one.
 *
 * Done: the alert is durable, its feed entry can be read, every contact's message is durably queued. The door and the
 * generator are this process; the worker, Redis (every write fsynced) and the simulated providers are processes of their
 * own. Messages are sent afterwards, by a sender that is started then: that time is reported apart.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { Agent, request as httpRequest } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as pause } from 'node:timers/promises';
import type { Redis } from 'ioredis';
import { feedKeys } from '../../lib/feed-stream.ts';
import type { Sessions } from '../../mixins/sessions.ts';
import type { FollowJob } from '../../services/sos/follow-jobs.ts';
import { sosKeys } from '../../services/sos/sos-keys.ts';
import { processCpuMs, redisCpuMs } from '../support/bench/machine.ts';
import { atLeast, atMost, type Bench, type Figures, type Target } from '../support/bench/result.ts';
import {
  type BaselineAlert,
  baselineFeed,
  baselineQueue,
  baselineSends,
  bullOn,
} from '../support/bench/sos-baseline.ts';
import { contactsEach, quantile, writeCards } from '../support/bench/sos-load.ts';
import { type ClientSocket, connectAdmin, connectSocket } from '../support/clients.ts';
import { spawnApplication, untilReady } from '../support/process.ts';
import { startTestRedis } from '../support/redis.ts';
import { type System, startSystem } from '../support/system.ts';

const users = 'usr_bench';
const where = { lat: 12.97161, lng: 77.59461, accuracy: 9 };
const node = ['--disable-warning=ExperimentalWarning', '--disable-warning=DEP0174'];

/** Waits for a condition, asked every 5 ms. */
async function until(what: string, isSo: () => Promise<boolean>, withinMs = 240_000): Promise<void> {
  const deadline = performance.now() + withinMs;
  while (!(await isSo())) {
    if (performance.now() > deadline) throw new Error(`Not within ${withinMs} ms: ${what}`);
    await pause(5);
  }
}

/** When so much of N was done, ms since the beginning, looked at every few ms. */
class Progress {
  readonly #steps: { at: number; done: number }[] = [];
  readonly #began = performance.now();
  add(done: number): void {
    this.#steps.push({ at: performance.now() - this.#began, done });
  }
  when(share: number, of: number): number {
    return this.#steps.find(({ done }) => done >= share * of)?.at ?? Number.NaN;
  }
}

const times = (prefix: string, values: readonly number[]): Figures => ({
  [`${prefix}P50Ms`]: quantile(values, 0.5),
  [`${prefix}P95Ms`]: quantile(values, 0.95),
  [`${prefix}P99Ms`]: quantile(values, 0.99),
  [`${prefix}MaxMs`]: quantile(values, 1),
});

/** Begins so many calls as fast as they come in; in between the process may read and write, as from sockets. */
async function allAtOnce<T>(calls: number, call: (n: number) => Promise<T>): Promise<Promise<T>[]> {
  const begun: Promise<T>[] = [];
  for (let n = 0; n < calls; n++) {
    begun.push(call(n));
    if (n % 100 === 99) await new Promise(setImmediate);
  }
  return begun;
}

interface Tally {
  lost: number;
  doubled: number;
}

/** Ids in the jobs that will send an alert's messages; nobody takes them while this is asked. */
async function queuedAlerts(redis: Redis): Promise<Set<string>> {
  const queue = '{sos-send}:sos-send';
  const jobs = await redis.lrange(`${queue}:wait`, 0, -1);
  const queuedIds = new Set<string>();
  for (let start = 0; start < jobs.length; start += 1000) {
    const pipeline = redis.pipeline();
    for (const id of jobs.slice(start, start + 1000)) pipeline.hget(`${queue}:${id}`, 'data');
    for (const [, json] of (await pipeline.exec()) ?? []) {
      const { kind, purpose, ids } = JSON.parse(String(json)) as FollowJob & {
        purpose?: string;
        ids: string[];
      };
      if (kind === 'send' && purpose === 'raised') for (const id of ids) queuedIds.add(id);
    }
  }
  return queuedIds;
}

/** Every alert that was answered is there with its contacts, once in the feed, and a job will send its messages. */
async function check(redis: Redis, ids: ReadonlySet<string>, expected: number, tally: Tally): Promise<void> {
  tally.lost += expected - ids.size;
  const seen = new Map<string, number>();
  for (const [, fields] of await redis.xrange(feedKeys.stream, '-', '+')) {
    if (fields[1] !== 'sos.triggered') continue;
    const { alertId } = JSON.parse(fields[5] ?? '{}') as { alertId: string };
    seen.set(alertId, (seen.get(alertId) ?? 0) + 1);
  }
  const queuedIds = await queuedAlerts(redis);
  const all = [...ids];
  for (let start = 0; start < all.length; start += 1000) {
    const group = all.slice(start, start + 1000);
    const pipeline = redis.pipeline();
    for (const id of group) pipeline.hexists(sosKeys.alert(id), 'contacts');
    const records = (await pipeline.exec()) ?? [];
    for (const [index, id] of group.entries()) {
      const entries = seen.get(id) ?? 0;
      if (records[index]?.[1] !== 1 || entries === 0 || !queuedIds.has(id)) tally.lost++;
      if (entries > 1) tally.doubled++;
    }
  }
}

const sos: Bench = async ({ quick }) => {
  const sizes = quick ? [200, 1000] : [1000, 10_000, 30_000];
  const largest = sizes.at(-1) ?? 0;
  const [rate, rateS] = quick ? [500, 2] : [2000, 10];
  const doors = quick ? 200 : 2000;
  const root = await mkdtemp(join(tmpdir(), 'ride-bench-sos-'));
  const children: ChildProcess[] = [];
  const stops: (() => Promise<unknown>)[] = [() => rm(root, { recursive: true, force: true })];
  const end = async (child: ChildProcess) => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    child.kill('SIGTERM');
    const cut = setTimeout(() => child.kill('SIGKILL'), 10_000);
    await once(child, 'exit');
    clearTimeout(cut);
  };
  const tally: Tally = { lost: 0, doubled: 0 };
  const figures: Figures = {};
  const targets: Target[] = [];
  try {
    const server = await startTestRedis();
    stops.push(() => server.stop());
    const redis = server.connect();
    const simulator = spawn(process.execPath, [...node, 'bin/providers.ts', '--max-messages', '200000'], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    children.push(simulator);
    const [providersUrl] = (await once(createInterface(simulator.stdout), 'line')) as [string];
    const common = {
      REDIS_URL: server.url,
      PROVIDERS_SANDBOX_URL: providersUrl,
      LOG_LEVEL: 'error',
      LOG_FORMAT: 'json',
      // Nobody is to be woken by a benchmark
      SOS_ESCALATE_AFTER_MS: '3600000',
      RATE_LIMIT_PER_IP: '1000000',
    };
    const startRole = async (services: string) => {
      const role = await spawnApplication(join(root, services), { SERVICES: services, ...common });
      children.push(role.child);
      await untilReady(role, 30_000);
      return role.child;
    };
    const worker = await startRole('sos/sos-worker.service.ts');
    const system: System = await startSystem({
      only: ['sos', 'api', 'gateway'],
      dataDir: join(root, 'door'),
      env: common,
    });
    stops.push(() => system.stop());
    const { broker, config } = system;

    /** From acceptance to done, of each alert of the stage; and when that was. */
    let doneTimes: number[] = [];
    let doneAt: number[] = [];
    const { metrics } = broker;
    const observe = metrics.observe.bind(metrics);
    metrics.observe = (...args: Parameters<typeof observe>) => {
      if (args[0] === 'sos.done.time') {
        doneTimes.push(args[1]);
        doneAt.push(performance.now());
      }
      observe(...args);
    };
    const press = async (n: number, stage: string): Promise<string> => {
      const meta = { user: { id: `${users}${n}`, role: 'rider', sessionId: 'bench' } };
      const location = { ...where, timestamp: Date.now() };
      const params = { key: stage, tripId: `trp_${stage}`, location };
      const answer: { alertId: string } = await broker.call('sos.trigger', params, { meta });
      return answer.alertId;
    };
    const settled = () =>
      until('all alerts are processed and copied', async () => {
        const [[, waiting], [, copying], [, jobs], [, active]] = (await redis
          .pipeline()
          .zcard(sosKeys.unprocessed)
          .zcard(sosKeys.unprojected)
          .llen('{sos}:sos:wait')
          .llen('{sos}:sos:active')
          .exec()) as [[null, number], [null, number], [null, number], [null, number]];
        return waiting + copying + jobs + active === 0;
      });
    const clear = async (howMany: number) => {
      await redis.flushall();
      doneTimes = [];
      doneAt = [];
      await writeCards(redis, config, users, howMany);
    };

    // The first ones compile the code
    await clear(Math.min(2000, largest));
    await Promise.all(Array.from({ length: Math.min(2000, largest) }, (_, n) => press(n, 'warm')));
    await settled();

    // One at a time, and how soon an admin sees it
    await clear(50);
    const { sessions } = broker.getLocalService('api') as unknown as { sessions: Sessions };
    const admin = await connectAdmin(system, (await sessions.create('usr_admin', 'operations', 1)).token);
    const seenAt = new Map<string, number>();
    admin.on('events', (events) => {
      for (const { data } of events)
        if (typeof data.alertId === 'string') seenAt.set(data.alertId, performance.now());
    });
    await admin.emitWithAck('subscribe', { kinds: ['sos.triggered'] });
    const [acks, sights]: [number[], number[]] = [[], []];
    for (let n = 0; n < 50; n++) {
      const since = performance.now();
      const id = await press(n, 'single');
      acks.push(performance.now() - since);
      await until('an admin sees it', async () => seenAt.has(id), 5000);
      sights.push((seenAt.get(id) ?? Number.NaN) - since);
    }
    admin.close();
    await settled();
    Object.assign(
      figures,
      times('singleAccepted', acks),
      times('singleDone', doneTimes),
      times('adminSees', sights),
    );
    targets.push(atMost('R3.5', 'an admin sees an alert, p99, ms', quantile(sights, 0.99), 200));

    // All at once
    let perS = Number.NaN;
    for (const size of sizes) {
      await clear(size);
      const cpuBefore = [
        await processCpuMs(process.pid),
        await processCpuMs(worker.pid ?? 0),
        await redisCpuMs(redis),
      ];
      const since = performance.now();
      const accepted: number[] = [];
      const presses = await allAtOnce(size, async (n) => {
        const id = await press(n, `burst${size}`);
        accepted.push(performance.now() - since);
        return id;
      });
      // One whose door's jobs were not taken is queued by the sweep
      await until('the burst is done', async () => {
        if (doneAt.length >= size) return true;
        const [unprocessed, taken] = [await redis.zcard(sosKeys.unprocessed), await redis.zcard(sosKeys.all)];
        if (accepted.length < size || unprocessed > 0 || taken < size) return false;
        while (doneAt.length < size) doneAt.push(performance.now());
        return true;
      });
      const cpuAfter = [
        await processCpuMs(process.pid),
        await processCpuMs(worker.pid ?? 0),
        await redisCpuMs(redis),
      ];
      const ids = new Set(await Promise.all(presses));
      const took = Math.max(...doneAt) - since;
      perS = (size / took) * 1000;
      const [door = 0, work = 0, redisMs = 0] = cpuAfter.map(
        (cpu, index) => (cpu - (cpuBefore[index] ?? 0)) / size,
      );
      const done = doneAt.map((at) => at - since);
      Object.assign(figures, times(`burst${size}Accepted`, accepted), times(`burst${size}Done`, done), {
        [`burst${size}PerS`]: perS,
        [`burst${size}DoorCpuMsEach`]: door,
        [`burst${size}WorkerCpuMsEach`]: work,
        [`burst${size}RedisCpuMsEach`]: redisMs,
      });
      await settled();
      await check(redis, ids, size, tally);
    }
    const took = figures[`burst${largest}DoneMaxMs`] ?? Number.NaN;
    if (!quick) targets.push(atMost('R3.3', `${largest} alerts at once all done, ms`, took, 5000));

    // The messages of the last burst, really sent
    const sending = performance.now();
    const sender = await startRole('sos/sos-sender.service.ts');
    const wanted = largest * contactsEach;
    const taken = async () => {
      const answer = await fetch(`${providersUrl}/outbox?channel=sms&limit=200000`);
      return ((await answer.json()) as { messages: { to: string }[] }).messages;
    };
    // Not the simulator is asked: its list is long, and costs the CPU that is measured
    await until('all messages are sent', async () => {
      await pause(100);
      const [[, waiting], [, active]] = (await redis
        .pipeline()
        .llen('{sos-send}:sos-send:wait')
        .llen('{sos-send}:sos-send:active')
        .exec()) as [[null, number], [null, number]];
      return waiting + active === 0;
    });
    figures.sentAllMs = performance.now() - sending;
    const messages = await taken();
    figures.sentPerS = (wanted / figures.sentAllMs) * 1000;
    tally.doubled += messages.length - new Set(messages.map(({ to }) => to)).size;
    tally.lost += wanted - new Set(messages.map(({ to }) => to)).size;
    await end(sender);

    // At a rate
    await clear(rate * rateS);
    const [ackedAfter, open]: [number[], Promise<string>[]] = [[], []];
    const since = performance.now();
    for (let n = 0; n < rate * rateS; n++) {
      const due = since + (n * 1000) / rate;
      if (due - performance.now() > 1) await pause(due - performance.now());
      open.push(press(n, 'rate').finally(() => ackedAfter.push(performance.now() - due)));
    }
    const rated = new Set(await Promise.all(open));
    await settled();
    await check(redis, rated, rate * rateS, tally);
    Object.assign(figures, times('rateAccepted', ackedAfter), times('rateDone', doneTimes));
    if (!quick)
      targets.push(atMost('R3.3', `done at ${rate} alerts/s, p99, ms`, quantile(doneTimes, 0.99), 500));

    // Through the doors, as far as a generator in the same process goes
    await clear(doors);
    const tokens = await Promise.all(
      Array.from(
        { length: doors },
        async (_, n) => (await sessions.create(`${users}${n}`, 'rider', 1)).token,
      ),
    );
    const agent = new Agent({ keepAlive: true, maxSockets: 64 });
    const rest = (n: number) =>
      new Promise<string>((resolve, reject) => {
        const headers = { authorization: `Bearer ${tokens[n]}`, 'content-type': 'application/json' };
        const call = httpRequest(
          `${system.apiUrl}/api/v1/sos`,
          { method: 'POST', agent, headers },
          (answer) => {
            let text = '';
            answer.on('data', (chunk: Buffer) => (text += chunk.toString()));
            answer.on('end', () => resolve((JSON.parse(text) as { alertId: string }).alertId));
          },
        );
        call.on('error', reject);
        call.end(JSON.stringify({ tripId: 'trp_rest', location: where }));
      });
    const through = async (door: string, send: (n: number) => Promise<string>) => {
      const began = performance.now();
      const answered: number[] = [];
      const ids = await Promise.all(
        Array.from({ length: doors }, async (_, n) => {
          const id = await send(n);
          answered.push(performance.now() - began);
          return id;
        }),
      );
      const tookMs = performance.now() - began;
      await settled();
      await check(redis, new Set(ids), doors, tally);
      Object.assign(figures, times(`${door}Accepted`, answered), {
        [`${door}PerS`]: (doors / tookMs) * 1000,
      });
    };
    await through('rest', rest);
    agent.destroy();
    const sockets: ClientSocket[] = [];
    for (let start = 0; start < Math.min(doors, 500); start += 50)
      sockets.push(
        ...(await Promise.all(tokens.slice(start, start + 50).map((token) => connectSocket(system, token)))),
      );
    await through('socket', async (n) => {
      const socket = sockets[n % sockets.length];
      const answer = await socket?.emitWithAck('sos:trigger', {
        key: `s${n}`,
        tripId: `trp_s${n}`,
        location: where,
      });
      return answer?.ok ? answer.alertId : '';
    });
    for (const socket of sockets) socket.close();
    await end(worker);
    await system.stop();
    stops.pop();

    // The baseline, on the same Redis, with as many
    await redis.flushall();
    await writeCards(redis, config, users, largest);
    const args = [
      server.url,
      join(root, 'baseline.nedb'),
      config.hashSecret,
      process.env['ENCRYPTION_KEYS'] ?? '',
    ];
    const keys = args[3] === '' ? 'development:ZGV2ZWxvcG1lbnQtb25seSBlbmNyeXB0aW9uIGtleS4=' : args[3];
    const baselineFile = join(import.meta.dirname, '../support/bench/sos-baseline.ts');
    const plain = spawn(process.execPath, [...node, baselineFile, ...args.slice(0, 3), keys ?? ''], {
      stdio: ['ignore', 'inherit', 'inherit'],
    });
    children.push(plain);
    const plainQueue = bullOn<BaselineAlert>(baselineQueue, server.url);
    const { queue } = plainQueue;
    stops.push(() => plainQueue.close());
    const run = async (
      size: number,
      stage: string,
    ): Promise<{ accepted: number[]; progress: Progress; cpu: number }> => {
      const accepted: number[] = [];
      const cpuBefore =
        (await processCpuMs(process.pid)) + (await processCpuMs(plain.pid ?? 0)) + (await redisCpuMs(redis));
      const before = await redis.llen(`{${baselineSends}}:${baselineSends}:wait`);
      const began = performance.now();
      const progress = new Progress();
      const adds = await allAtOnce(size, async (n) => {
        const alertId = `sos_${stage}${n}`;
        const data = {
          alertId,
          userId: `${users}${n}`,
          tripId: `trp_${stage}`,
          acceptedAt: Date.now(),
          location: where,
        };
        await queue.add(data, { jobId: alertId });
        accepted.push(performance.now() - began);
      });
      await until('the baseline is done', async () => {
        const waiting = (await redis.llen(`{${baselineSends}}:${baselineSends}:wait`)) - before;
        progress.add(waiting / contactsEach);
        return waiting === size * contactsEach;
      });
      await Promise.all(adds);
      const cpuAfter =
        (await processCpuMs(process.pid)) + (await processCpuMs(plain.pid ?? 0)) + (await redisCpuMs(redis));
      return { accepted, progress, cpu: (cpuAfter - cpuBefore) / size };
    };
    await run(Math.min(500, largest), 'warm');
    const { accepted, progress, cpu } = await run(largest, 'burst');
    tally.lost += largest + Math.min(500, largest) - (await redis.xlen(baselineFeed)) === 0 ? 0 : 1;
    const baselinePerS = (largest / progress.when(1, largest)) * 1000;
    const key = `burst${largest}`;
    const baseline: Figures = {
      ...times(`${key}Accepted`, accepted),
      [`${key}DoneP50Ms`]: progress.when(0.5, largest),
      [`${key}DoneP95Ms`]: progress.when(0.95, largest),
      [`${key}DoneP99Ms`]: progress.when(0.99, largest),
      [`${key}DoneMaxMs`]: progress.when(1, largest),
      [`${key}PerS`]: baselinePerS,
      cpuMsEach: cpu,
    };
    figures.cpuMsEach = ['Door', 'Worker', 'Redis'].reduce(
      (sum, part) => sum + (figures[`${key}${part}CpuMsEach`] ?? Number.NaN),
      0,
    );
    const ratio = { [`${key}PerS`]: perS / baselinePerS, cpuMsEach: cpu / figures.cpuMsEach };
    if (!quick)
      targets.push(
        atLeast('R3.3', `alerts/s in the burst of ${largest}, times the baseline's`, perS / baselinePerS, 5),
      );
    return {
      name: 'sos',
      ...tally,
      figures,
      baseline,
      ratio,
      targets,
      notes: [
        `Three contacts an alert, NeDB for the database, Redis with appendfsync always. Bursts are ${sizes.join(', ')} calls of sos.trigger, begun as fast as one process can (100, then a turn of the event loop); the rate is ${rate}/s for ${rateS} s; REST over 64 connections and ${sockets.length} sockets with ${doors} presses at once, generator and door in one process.`,
        'Done is counted when the job that sends the messages is in Redis; they are sent by a process that is started afterwards (sentAllMs counts from its start). CPU of the burst is until done.',
        'Baseline: Bull with one job an alert and one a message, concurrency 50, the writes one after the other, added without a service broker in between; nothing is sent meanwhile either.',
      ],
    };
  } finally {
    for (const child of children.toReversed()) await end(child);
    for (const stop of stops.toReversed()) await stop();
  }
};

export default sos;
