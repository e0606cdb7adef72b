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

/** The fields that a queue brings. */
export interface QueueFields<D> {
  /**
   * Adds a job. Resolves when Redis has it, and its replica where there is one; UNAVAILABLE when that cannot be said:
   * a job that is added again under its own id is one job.
   */
  enqueue(data: D, options?: JobOptions): Promise<void>;
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

/**
 * A Bull queue of the service's own name, with `{name}` as its key prefix so that a Redis Cluster keeps it on one
 * node. `process` runs with `concurrency` jobs at once in each process; a job may run twice, so it must be idempotent.
 */
export function queue<D>(options: {
  name: string;
  redis?: RedisName;
  concurrency: number;
  process(this: Service, data: D, job: Job<D>): Promise<void>;
  /** After the last attempt, or one whose failure is final (`job.discard()`). */
  onExhausted(this: Service, job: Job<D>, error: Error): Promise<void>;
}): Mixin<QueueFields<D>> {
  const { name, redis = 'main', concurrency } = options;
  // Bull leaves the connections that it did not make itself to whoever made them
  const connections = new WeakMap<Service, RedisConnection[]>();
  /** Bull's type knows a Redis only; it works with a Cluster as well, all keys being in one slot. */
  const forBull = (connection: RedisConnection) => connection as Redis;
  return {
    mixins: [BullService('', {})],
    merged(this: Service, schema: ServiceSchema & { queues?: Record<string, unknown> }) {
      const target = redisTarget(this.broker, redis);
      const keep = (connection: RedisConnection) => {
        logTrouble(this.broker, connection, { queue: name });
        connections.set(this, [...(connections.get(this) ?? []), connection]);
        return connection;
      };
      const queueOptions: QueueOptions = {
        prefix: `{${name}}`,
        createClient: () => forBull(keep(workerConnection(target, workerSilentMs))),
        // Bull's defaults leave a killed worker's job for up to a minute, then fail it
        settings: {
          lockDuration: 10_000,
          stalledInterval: 5000,
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
        [name]: {
          options: queueOptions,
          concurrency,
          process: (job: Job<D>) => options.process.call(this, job.data, job),
        },
      };
    },
    async started(this: Service & BullFields & Partial<QueueFields<D>>) {
      const bull = this.getQueue(name);
      bull.on('error', (error: Error) =>
        this.logger.warn('Queue trouble', { queue: name, error: error.message }),
      );
      bull.on('failed', (job: Job<D>, error: Error) => {
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
      // Jobs are added over a connection of its own, which answers within 2 s: a worker's holds them for ever
      const target = redisTarget(this.broker, redis);
      const connection = commandConnection(target, { hold: false });
      logTrouble(this.broker, connection, { queue: name, producer: true });
      const producer = new Bull<D>(name, {
        prefix: `{${name}}`,
        createClient: () => forBull(connection),
        defaultJobOptions,
      });
      connections.set(this, [...(connections.get(this) ?? []), connection]);
      this.enqueue = async (data, jobOptions) => {
        if (!(await isReady(connection))) throw new AppError('UNAVAILABLE', { retryAfterS: 2 });
        const add = () => producer.add(data, jobOptions);
        const { kept } = await confirmed(connection, `{${name}}`, add, { wanted: target.replicas });
        if (!kept) throw new AppError('UNAVAILABLE', { retryAfterS: 2 });
      };
      await untilReady(this.broker, connection, redis);
    },
    async stopped(this: Service & BullFields) {
      // Waits for the jobs that are running; what waits stays in Redis. Bull can wait for ever when its connections
      // broke meanwhile, and a job that is cut off runs again elsewhere
      let timer: NodeJS.Timeout | undefined;
      const late = new Promise<string>((resolve) => {
        timer = setTimeout(resolve, closeWithinMs, 'late');
      });
      const closed = this.getQueue(name)
        .close()
        .then(
          () => 'closed',
          (error: unknown) => {
            this.logger.warn('The queue did not close well', { queue: name, error });
            return 'failed';
          },
        );
      const outcome = await Promise.race([closed, late]);
      clearTimeout(timer);
      if (outcome === 'late') this.logger.warn('The queue is closed with jobs under way', { queue: name });
      for (const connection of connections.get(this) ?? []) {
        // One that was never ready: Bull would reject a promise that nobody holds
        connection.removeAllListeners('end');
        closeConnection(connection);
      }
    },
  };
}
