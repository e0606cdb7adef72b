import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import type { ServiceSchema } from 'moleculer';
import { type Collection, store } from '../../mixins/store.ts';
import { makeBroker } from '../support/broker.ts';

interface Ride {
  _id: string;
  status: string;
  n: number;
  log: string[];
}

/** A service that has nothing but a store. */
async function openStore(dataDir: string) {
  const broker = makeBroker('store', { DATA_DIR: dataDir });
  const service = broker.createService({
    name: 'rides',
    mixins: [store<Ride>('rides', [{ fields: ['n'], unique: true }]) as Partial<ServiceSchema>],
  });
  await broker.start();
  return { rides: (service as unknown as { store: Collection<Ride> }).store, broker };
}

describe('documents in NeDB', () => {
  let dataDir: string;
  let opened: Awaited<ReturnType<typeof openStore>>;
  const ride = (n: number): Ride => ({ _id: `ride-${n}`, status: 'open', n, log: [] });

  beforeAll(async () => {
    dataDir = await mkdtemp(join(tmpdir(), 'ride-store-'));
    opened = await openStore(dataDir);
  });
  afterAll(async () => {
    await opened.broker.stop();
    await rm(dataDir, { recursive: true, force: true });
  });

  test('inserts once: the same id or the same value of a unique field is refused', async () => {
    const { rides } = opened;
    expect(await rides.insert(ride(1))).toBe(true);
    expect(await rides.insert(ride(1))).toBe(false);
    expect(await rides.insert({ ...ride(1), _id: 'another' })).toBe(false);
    expect(await rides.get('ride-1')).toEqual(ride(1));
    expect(await rides.get('nobody')).toBeNull();
  });

  test('of many conditional updates at once exactly one finds its condition', async () => {
    const { rides } = opened;
    await rides.insert(ride(2));
    const counts = await Promise.all(
      Array.from({ length: 20 }, (_, by) =>
        rides.update(
          { _id: 'ride-2', status: { $in: ['open'] } },
          { $set: { status: 'taken' }, $push: { log: `by ${by}` } },
        ),
      ),
    );
    expect(counts.reduce((sum, count) => sum + count)).toBe(1);
    expect((await rides.get('ride-2'))?.log).toHaveLength(1);
  });

  test('finds by query, in order, up to a limit', async () => {
    const { rides } = opened;
    for (const n of [5, 3, 4]) await rides.insert(ride(n));
    const found = await rides.find({ n: { $gt: 2 } }, { sort: ['-n'], limit: 2 });
    expect(found.map(({ n }) => n)).toEqual([5, 4]);
  });

  test('keeps everything over a restart, and offers no actions of its own', async () => {
    const actions = opened.broker.registry.actions.list({ skipInternal: true });
    expect(actions).toEqual([]);
    await opened.broker.stop();
    expect(await readFile(join(dataDir, 'rides.nedb'), 'utf8')).toContain('ride-2');
    opened = await openStore(dataDir);
    expect((await opened.rides.get('ride-2'))?.status).toBe('taken');
  });
});
