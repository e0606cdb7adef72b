import Bull, { type Job, type JobOptions, type Queue, type QueueOptions } from 'bull';
import type { Redis } from 'ioredis';
import type { Service, ServiceSchema } from 'moleculer';
import BullService from 'moleculer-bull';
import type { Mixin } from '../lib/define-service.ts';
import { AppError } from '../lib/errors.ts';
import {
  closeConnection,
  commandConnection,
  isReady,
  type RedisConnection,
  workerConnection,
} from '../lib/redis-client.ts';
import { confirmed } from '../lib/replicated.ts';
import { logTrouble, type RedisName, redisTarget, untilReady } from './redis.ts';

/** Adds jobs to a queue. A job that is added again under its own id is one job. */
export interface Jobs<D> {
  /**
   * Resolves when Redis has the job, and its replica where there is one; UNAVAILABLE when that cannot be said.
   */
  add(data: D, options?: JobOptions): Promise<void>;
  /** The same for several, in one round trip. */
  addBulk(jobs: { data: D; options: JobOptions }[]): Promise<void>;
  /** How many jobs wait, and how many are being worked on. */
  counts(): Promise<{ waiting: number; active: number }>;
}

/** How long a worker's question for the next job stays open, s; and when a connection without its answer is dead, ms. */
const drainDelayS = 2;
const workerSilentMs = 5000;

const defaultJobOptions: JobOptions = { removeOnComplete: 1000, removeOnFail: 10_000 };

/** A stop of the whole process has 8 s, ms. */
const closeWithinMs = 4000;

interface BullFields {
  getQueue(name: string): Queue;
}

/** Bull leaves the connections that it did not make itself to whoever made them. */
const forBull = (connection: RedisConnection): Redis =>
  // Bull's type knows a Redis only; it works with a Cluster as well, all keys being in one slot
  connection as Redis;

/**
 * `this[as]`: adds jobs to the queue `name` without working on any, over a connection of its own that answers within 2 s
 * or refuses: a worker's holds what it is given for ever.
 */
export function producer<D, As extends string>(options: {
  name: string;
  redis?: RedisName;
  as: As;
}): Mixin<{ [K in As]: Jobs<D> }> {
  const { name, redis = 'main', as } = options;
  const connections = new WeakMap<Service, RedisConnection>();
  return {
    created(this: Service) {
      const target = redisTarget(this.broker, redis);
      const connection = commandConnection(target, { hold: false });
      logTrouble(this.broker, connection, { queue: name, producer: true });
      connections.set(this, connection);
      let made: Queue<D> | undefined;
      // Bull asks its Redis something as soon as it is made
      const bull = () => {
        made ??= new Bull<D>(name, {
          prefix: `{${name}}`,
          createClient: () => forBull(connection),
          defaultJobOptions,
        });
        return made;
      };
      const added = async (add: () => Promise<unknown>): Promise<void> => {
        if (!(await isReady(connection))) throw new AppError('UNAVAILABLE', { retryAfterS: 2 });
        const { kept } = await confirmed(connection, `{${name}}`, add, { wanted: target.replicas });
        if (!kept) throw new AppError('UNAVAILABLE', { retryAfterS: 2 });
      };
      const jobs: Jobs<D> = {
        add: (data, jobOptions) => added(() => bull().add(data, jobOptions)),
        async addBulk(list) {
          const entries = list.map((job) => ({ data: job.data, opts: job.options }));
          if (entries.length > 0) await added(() => bull().addBulk(entries));
        },
        async counts() {
          const { waiting, active } = await bull().getJobCounts();
          return { waiting, active };
        },
      };
      Object.assign(this, { [as]: jobs });
    },
    async started(this: Service) {
      const connection = connections.get(this);
      if (connection) await untilReady(this.broker, connection, redis);
    },
    stopped(this: Service) {
      const connection = connections.get(this);
      if (connection) closeConnection(connection);
    },
  };
}

/** All queues of a service. */
const namesOf = ({ schema }: Service): string[] => Object.keys((schema as { queues?: object }).queues ?? {});

const closings = new WeakMap<Service, Promise<unknown>>();

/** Of Bull (4.16), what its types leave out. */
interface BullInside extends Queue {
  /** Asks for the next job. */
  bclient: RedisConnection;
  bclientInitialized: boolean;
  /** Jobs under way. */
  processing: Record<string, Promise<unknown>>;
  setWorkerName(): Promise<unknown>;
  /** All that close() clears when it gets so far. */
  _clearTimers(): Promise<unknown>;
}

/** Bull leaves promises to nobody: where Redis goes away just then, or a stop comes, they would end the process. */
function mend(service: Service & BullFields, name: string): void {
  const bullQueue = service.getQueue(name) as BullInside;
  const work = bullQueue.process.bind(bullQueue) as (...args: unknown[]) => Promise<unknown>;
  bullQueue.process = (...args: unknown[]) =>
    work(...args).catch((error: unknown) => {
      if (!closings.has(service)) service.logger.error('The queue is not worked on', { queue: name, error });
    }) as Promise<void>;
  const setWorkerName = bullQueue.setWorkerName.bind(bullQueue);
  // Not waited for when the queue starts
  bullQueue.setWorkerName = () =>
    setWorkerName().catch((error: unknown) =>
      service.logger.warn('A connection has no name', { queue: name, error }),
    );
  // To close, Bull connects that connection anew, and looks whether it could when the jobs have ended. Nor does this wait with a QUIT
  // behind the open question, half a second for each queue; a job that is handed out at that moment is a stalled one
  bullQueue.whenCurrentJobsFinished = async () => {
    if (!bullQueue.bclientInitialized) return;
    closeConnection(bullQueue.bclient);
    await Promise.all(Object.values(bullQueue.processing));
  };
}

const bullStarted = new WeakSet<Service>();
const bull: Mixin & { started(this: Service): Promise<void> } = BullService('', {}) as never;
/** Of a service with several queues, each brings this one; their processors are to be set once. */
const bullOnce: Mixin = {
  ...bull,
  async started(this: Service) {
    if (bullStarted.has(this)) return;
    bullStarted.add(this);
    for (const name of namesOf(this)) mend(this as Service & BullFields, name);
    await bull.started.call(this);
  },
};

/** Closes all queues of a service, at once: one after the other their waits would add up. */
async function closeAll(service: Service & BullFields): Promise<void> {
  const closing = closings.get(service) ?? Promise.all(namesOf(service).map((name) => close(service, name)));
  closings.set(service, closing);
  await closing;
}

/**
 * Bull (4.16) sets its timer for delayed jobs anew when Redis' answer, or the end of the connection, comes after its close:
 * 5 s in which a process that has stopped would not end.
 */
function endDelayTimer(bullQueue: Queue): void {
  clearTimeout(Reflect.get(bullQueue, 'delayTimer') as NodeJS.Timeout | undefined);
  Object.defineProperty(bullQueue, 'delayTimer', { set: clearTimeout, get: () => undefined });
}

/**
 * Waits for the jobs that are running; what waits stays in Redis. Bull can wait for ever when its connections broke
 * meanwhile, and a job that is cut off runs again elsewhere.
 */
async function close(service: Service & BullFields, name: string): Promise<void> {
  const bullQueue = service.getQueue(name) as BullInside;
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<string>((resolve) => {
    timer = setTimeout(resolve, closeWithinMs, 'late');
  });
  const closed = bullQueue.close().then(
    () => 'closed',
    (error: unknown) => {
      service.logger.warn('The queue did not close well', { queue: name, error });
      return 'failed';
    },
  );
  const outcome = await Promise.race([closed, late]);
  clearTimeout(timer);
  if (outcome === 'late') {
    service.logger.warn('The queue is closed with jobs under way', { queue: name });
    // No lock is renewed for what is cut off: it is to go on elsewhere
    await bullQueue._clearTimers();
  }
  endDelayTimer(bullQueue);
}

/**
 * A Bull queue of the service's own, `{name}` being its key prefix so that a Redis Cluster keeps it on one node; `this[as]`
 * adds jobs. `process` runs with `concurrency` jobs at once in each process; a job may run twice, so it must be idempotent.
 * It may run before the service's own `started` has.
 */
export function queue<D, As extends string>(options: {
  name: string;
  as: As;
  redis?: RedisName;
  concurrency: number;
  /** A killed worker's job goes on elsewhere after `lockMs` and `stalledMs`, ms. */
  lockMs?: number;
  stalledMs?: number;
  process(this: Service, data: D, job: Job<D>): Promise<void>;
  /** After the last attempt, or one whose failure is final (`job.discard()`). */
  onExhausted(this: Service, job: Job<D>, error: Error): Promise<void>;
}): Mixin<{ [K in As]: Jobs<D> }> {
  const { name, as, redis = 'main', concurrency, lockMs = 10_000, stalledMs = 5000 } = options;
  const connections = new WeakMap<Service, RedisConnection[]>();
  const stoppedServices = new WeakSet<Service>();
  return {
    mixins: [bullOnce, producer<D, As>({ name, redis, as })],
    merged(this: Service & BullFields, schema: ServiceSchema & { queues?: Record<string, unknown> }) {
      const target = redisTarget(this.broker, redis);
      const keep = (connection: RedisConnection) => {
        logTrouble(this.broker, connection, { queue: name });
        connections.set(this, [...(connections.get(this) ?? []), connection]);
        // Bull makes one when another is ready, which can be while that is being closed
        if (stoppedServices.has(this)) closeConnection(connection);
        return connection;
      };
      const queueOptions: QueueOptions = {
        prefix: `{${name}}`,
        createClient: () => forBull(keep(workerConnection(target, workerSilentMs))),
        // Bull's defaults leave a killed worker's job for up to a minute, then fail it
        settings: {
          lockDuration: lockMs,
          stalledInterval: stalledMs,
          maxStalledCount: 5,
          drainDelay: drainDelayS,
          retryProcessDelay: 1000,
          // 1, 2, 4 … 30 s, half of it by chance, so that what failed together does not come back together
          backoffStrategies: {
            jittered: (attempt) => Math.min(30_000, 1000 * 2 ** (attempt - 1)) * (0.5 + Math.random() / 2),
          },
        },
        defaultJobOptions,
      };
      schema.queues = {
        ...schema.queues,
        [name]: {
          options: queueOptions,
          concurrency,
          process: (job: Job<D>) => options.process.call(this, job.data, job),
        },
      };
      // Run in reverse: jobs use what other mixins bring, so nothing is let go before the last job has ended
      schema.stopped = [schema.stopped ?? [], () => closeAll(this)].flat();
    },
    async started(this: Service & BullFields) {
      const queueOfService = this.getQueue(name);
      queueOfService.on('error', (error: Error) =>
        this.logger.warn('Queue trouble', { queue: name, error: error.message }),
      );
      queueOfService.on('failed', (job: Job<D>, error: Error) => {
        const attempts = job.opts.attempts ?? 1;
        this.logger.warn('A job failed', {
          queue: name,
          jobId: job.id,
          attempt: job.attemptsMade,
          of: attempts,
          error,
        });
        // Bull sets it when no attempt follows
        if (!job.finishedOn) return;
        options.onExhausted.call(this, job, error).catch((trouble: unknown) =>
          this.logger.error('The end of a job could not be recorded', {
            queue: name,
            jobId: job.id,
            error: trouble,
          }),
        );
      });
    },
    stopped(this: Service) {
      stoppedServices.add(this);
      for (const connection of connections.get(this) ?? []) closeConnection(connection);
    },
  };
}
