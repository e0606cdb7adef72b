/** Queues of services: what a stop owes to the jobs that are under way. */
import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';
import { afterAll, beforeAll, expect, jest, test } from '@jest/globals';
import type { Redis } from 'ioredis';
import type { Service, ServiceSchema } from 'moleculer';
import { type Jobs, queue } from '../../mixins/queue.ts';
import { redis } from '../../mixins/redis.ts';
import { makeBroker } from '../support/broker.ts';
import { eventually } from '../support/eventually.ts';
import { startTestRedis, type TestRedis } from '../support/redis.ts';

interface Worker {
  work: Jobs<{ key: string }>;
  redis: { set(key: string, value: string): Promise<unknown> };
  getQueue(name: string): object;
}

let server: TestRedis;
beforeAll(async () => {
  server = await startTestRedis();
});
afterAll(() => server.stop());

test.each(['before', 'behind'])(
  '+ a stop lets no job under way lose what it works with: Redis listed %s the queue',
  async (where) => {
    const { promise: allowed, resolve: allow } = Promise.withResolvers<void>();
    const stopped = { own: false };
    let began = false;
    const work = queue<{ key: string }, 'work'>({
      name: `work-${where}`,
      as: 'work',
      concurrency: 1,
      async process({ key }) {
        began = true;
        await allowed;
        // The service's own stop may end what jobs use, too
        await (this as unknown as Worker).redis.set(key, String(stopped.own));
      },
      async onExhausted() {},
    });
    const broker = makeBroker('node-1', { REDIS_URL: server.url });
    const service = broker.createService({
      name: 'worker',
      mixins: where === 'before' ? [redis(), work] : [work, redis()],
      async stopped() {
        stopped.own = true;
      },
    } as unknown as ServiceSchema) as Service & Worker;
    await broker.start();
    await service.work.add({ key: `done-${where}` });
    await eventually(() => expect(began).toBe(true));
    const stopping = broker.stop();
    await eventually(() => expect(service.getQueue(`work-${where}`)).toHaveProperty('closing'));
    allow();
    await stopping;
    const reader = server.connect();
    expect(await reader.get(`done-${where}`)).toBe('false');
    expect(stopped.own).toBe(true);
  },
);

test('+ a stop leaves no timer behind, also when Redis owes an answer about delayed jobs', async () => {
  const work = queue<{ key: string }, 'work'>({
    name: 'work-delayed',
    as: 'work',
    concurrency: 1,
    async process() {},
    async onExhausted() {},
  });
  const broker = makeBroker('node-1', { REDIS_URL: server.url });
  const service = broker.createService({
    name: 'worker',
    mixins: [work],
  } as unknown as ServiceSchema) as Service & Worker;
  await broker.start();
  const bullQueue = service.getQueue('work-delayed') as { updateDelayTimer(): Promise<unknown> };
  await server.connect().client('PAUSE', 1500);
  const asked = bullQueue.updateDelayTimer();
  await broker.stop();
  await asked;
  expect(Reflect.get(bullQueue, 'delayTimer')).toBeUndefined();
});

/** A service that works on one job, until it is allowed to end. */
async function withJobUnderWay(name: string, options: { concurrency: number; lockMs?: number }) {
  const { promise: allowed, resolve: allow } = Promise.withResolvers<void>();
  let began = false;
  const work = queue<{ key: string }, 'work'>({
    name,
    as: 'work',
    ...options,
    async process() {
      began = true;
      await allowed;
    },
    async onExhausted() {},
  });
  const broker = makeBroker('node-1', { REDIS_URL: server.url });
  const schema = { name: 'worker', mixins: [work] } as unknown as ServiceSchema;
  const service = broker.createService(schema) as Service & Worker;
  await broker.start();
  await service.work.add({ key: '' });
  await eventually(() => expect(began).toBe(true));
  return { broker, bullQueue: service.getQueue(name), allow };
}

test('+ a stop connects nothing anew, also while a job is under way: what came of it nobody would hold', async () => {
  const { broker, bullQueue, allow } = await withJobUnderWay('work-held', { concurrency: 2 });
  const { bclient } = bullQueue as { bclient: Redis };
  const connecting = jest.spyOn(bclient, 'connect');
  const closed = once(bclient, 'end');
  const stopping = broker.stop();
  await closed;
  await bclient.ping().catch(() => undefined);
  allow();
  await stopping;
  expect(connecting).not.toHaveBeenCalled();
});

test('+ a stop that cuts a job off renews its lock no more, and leaves no timer behind', async () => {
  const timersOpen = () => process.getActiveResourcesInfo().filter((kind) => kind === 'Timeout').length;
  const before = timersOpen();
  const { broker, bullQueue, allow } = await withJobUnderWay('work-cut', { concurrency: 1, lockMs: 60_000 });
  const { timers } = bullQueue as { timers: { idle: boolean } };
  expect(timers.idle).toBe(false);
  await broker.stop();
  expect(timers.idle).toBe(true);
  await eventually(() => expect(timersOpen()).toBeLessThanOrEqual(before));
  allow();
});

test('+ a stop while the queue connects leaves no connection behind, also where Bull goes on when it has begun', async () => {
  /** Answers each connection when that is closed, as a slow Redis answers what it was asked just before. */
  const lateServer = createServer({ allowHalfOpen: true }, (socket) => {
    let asked = 0;
    socket.on('data', (chunk) => (asked += chunk.toString().match(/^\*\d+\r$/gm)?.length ?? 0));
    socket.on('end', () => socket.end('+OK\r\n'.repeat(asked)));
    socket.on('error', () => undefined);
  });
  lateServer.listen(0, '127.0.0.1');
  await once(lateServer, 'listening');
  const { port } = lateServer.address() as AddressInfo;
  const work = queue<{ key: string }, 'work'>({
    name: 'work-late',
    as: 'work',
    concurrency: 1,
    async process() {},
    async onExhausted() {},
  });
  const broker = makeBroker('node-1', { REDIS_URL: `redis://127.0.0.1:${port}` });
  const schema = { name: 'worker', mixins: [work] } as unknown as ServiceSchema;
  const service = broker.createService(schema) as Service & Worker;
  const bullQueue = service.getQueue('work-late') as { bclient: Redis; bclientInitialized?: boolean };
  await broker.start();
  await broker.stop();
  await eventually(() => expect(bullQueue.bclientInitialized).toBe(true));
  await eventually(() => expect(bullQueue.bclient.status).toBe('end'));
  lateServer.close();
  await once(lateServer, 'close');
});
