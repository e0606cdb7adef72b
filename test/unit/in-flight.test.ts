import { describe, expect, test } from '@jest/globals';
import { ServiceBroker } from 'moleculer';
import { inFlight } from '../../lib/middlewares/in-flight.ts';

/** A broker with a service whose action ends when it is told to. */
async function started(withinMs: number) {
  const broker = new ServiceBroker({ logger: false, middlewares: [inFlight(withinMs)] });
  const ends: (() => void)[] = [];
  broker.createService({
    name: 'slow',
    actions: {
      work: {
        bulkhead: { enabled: true, concurrency: 1 } as never,
        handler() {
          const { promise, resolve } = Promise.withResolvers<void>();
          ends.push(resolve);
          return promise;
        },
      },
    },
  });
  await broker.start();
  return { broker, ends };
}

describe('a stop', () => {
  test('waits for what is under way, and for what begins after it', async () => {
    const { broker, ends } = await started(60_000);
    const order: string[] = [];
    const calls = ['first', 'second'].map((name) => broker.call('slow.work').then(() => order.push(name)));
    const stopped = broker.stop().then(() => order.push('stopped'));
    while (ends.length < 2) {
      ends.at(-1)?.();
      await new Promise(setImmediate);
    }
    ends[1]?.();
    await Promise.all([...calls, stopped]);
    expect(order).toEqual(['first', 'second', 'stopped']);
  });

  test('does not wait for ever', async () => {
    const { broker, ends } = await started(1);
    const call = broker.call('slow.work');
    await broker.stop();
    ends[0]?.();
    await call;
    expect(ends).toHaveLength(1);
  });
});
