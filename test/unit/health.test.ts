import { describe, expect, test } from '@jest/globals';
import { Health } from '../../lib/health.ts';

const fine = async () => undefined;
const failing = () => Promise.reject(new Error('gone'));
const hanging = () => new Promise<void>(() => undefined);

function ready(checks: Record<string, () => Promise<void>> = {}): Health {
  const health = new Health();
  for (const [name, check] of Object.entries(checks)) health.add(name, check);
  health.state = 'ready';
  return health;
}

describe('health', () => {
  test('tells how each thing is, and stays ready without them', async () => {
    const before = performance.now();
    expect(await ready({ redis: fine, db: failing, nats: hanging, sosRedis: hanging }).report()).toEqual({
      ready: true,
      state: 'ready',
      checks: {
        redis: 'ok',
        db: 'unreachable',
        nats: 'no answer in 500 ms',
        sosRedis: 'no answer in 500 ms',
      },
    });
    // At once, not one after the other
    expect(performance.now() - before).toBeLessThan(950);
  });

  test('several checks of one name must all pass', async () => {
    const health = ready({ redis: fine });
    health.add('redis', failing);
    health.add('redis', fine);
    expect((await health.report()).checks).toEqual({ redis: 'unreachable' });
  });

  test('is ready when all services have started, and what it was told to wait for has ended', async () => {
    const health = new Health();
    const heard = Promise.withResolvers<void>();
    health.readyAfter(heard.promise);
    const started = health.started();
    expect(await health.report()).toMatchObject({ ready: false, state: 'starting' });
    heard.resolve();
    await started;
    expect(await health.report()).toMatchObject({ ready: true, state: 'ready' });
  });

  test('does not become ready any more when it stops before', async () => {
    const health = new Health();
    const heard = Promise.withResolvers<void>();
    health.readyAfter(heard.promise);
    const started = health.started();
    await health.drain();
    heard.resolve();
    await started;
    expect(await health.report()).toMatchObject({ ready: false, state: 'draining' });
  });

  test('a new process is not ready', async () => {
    expect(await new Health().report()).toMatchObject({ ready: false, state: 'starting' });
  });

  test('a draining process is not ready, and runs every drain even when one fails', async () => {
    const health = ready();
    const ran: string[] = [];
    health.onDrain(async () => {
      ran.push('first');
      throw new Error('first failed');
    });
    let release = () => {};
    const held = new Promise<void>((resolve) => {
      release = resolve;
    });
    health.onDrain(async () => {
      await held;
      ran.push('second');
    });
    const draining = health.drain();
    expect(await health.report()).toMatchObject({ ready: false, state: 'draining' });
    release();
    await expect(draining).rejects.toThrow('first failed');
    expect(ran).toEqual(['first', 'second']);
  });
});
