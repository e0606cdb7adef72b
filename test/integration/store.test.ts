import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { distanceM } from '../../lib/geo.ts';
import { type GeoPoint, geoPoint } from '../../mixins/collection.ts';
import { store } from '../../mixins/store.ts';
import { mongoBackend, startMongo, type TestMongo } from '../support/mongo.ts';
import { type OpenStore, openStore } from '../support/store.ts';

interface Ride {
  _id: string;
  status: string;
  n: number;
  log: string[];
  at?: GeoPoint;
}
interface Alert {
  _id: string;
  version: number;
  note: string;
}
interface Measured {
  _id: string;
  tripId: string;
  timestamp: Date;
}

const rides = store<Ride>('rides', [
  { fields: ['n'], unique: true },
  { fields: ['at'], geo: true },
]);
const alerts = store<Alert>('alerts');
const history = store<Measured>('measured', [{ fields: ['tripId', 'timestamp'] }], {
  timeSeries: { timeField: 'timestamp', metaField: 'tripId', granularity: 'seconds', keepDays: 30 },
});

const ride = (n: number, more: Partial<Ride> = {}): Ride => ({
  _id: `ride-${n}`,
  status: 'open',
  n,
  log: [],
  ...more,
});

describe.each(['NeDB', mongoBackend])('documents in %s', (backend) => {
  let dataDir: string;
  let mongo: TestMongo | undefined;
  let opened: OpenStore<Ride>;
  let alertStore: OpenStore<Alert>;
  const env = () => ({ DATA_DIR: dataDir, ...(mongo ? { MONGO_URI: mongo.uri } : {}) });

  beforeAll(async () => {
    dataDir = await mkdtemp(join(tmpdir(), 'ride-store-'));
    if (backend !== 'NeDB') mongo = await startMongo();
    [opened, alertStore] = await Promise.all([
      openStore<Ride>(env(), rides),
      openStore<Alert>(env(), alerts),
    ]);
  });
  afterAll(async () => {
    await Promise.all([opened.broker.stop(), alertStore.broker.stop()]);
    await mongo?.stop();
    await rm(dataDir, { recursive: true, force: true });
  });

  test('inserts once: the same id or the same value of a unique field is refused', async () => {
    const { collection } = opened;
    expect(await collection.insert(ride(1))).toBe(true);
    expect(await collection.insert(ride(1))).toBe(false);
    expect(await collection.insert({ ...ride(1), _id: 'another' })).toBe(false);
    expect(await collection.get('ride-1')).toEqual(ride(1));
    expect(await collection.get('nobody')).toBeNull();
    expect(await collection.findOne({ n: 1, status: 'nothing like that' })).toBeNull();
  });

  test('of many conditional updates at once exactly one finds its condition', async () => {
    const { collection } = opened;
    await collection.insert(ride(2));
    const counts = await Promise.all(
      Array.from({ length: 20 }, (_, by) =>
        collection.update(
          { _id: 'ride-2', status: { $in: ['open'] } },
          { $set: { status: 'taken' }, $push: { log: `by ${by}` } },
        ),
      ),
    );
    expect(counts.reduce((sum, count) => sum + count)).toBe(1);
    expect((await collection.get('ride-2'))?.log).toHaveLength(1);
  });

  test('finds by query, in order, up to a limit, the fields that are asked for', async () => {
    const { collection } = opened;
    for (const n of [5, 3, 4]) await collection.insert(ride(n));
    const found = await collection.find({ n: { $gt: 2 } }, { sort: ['-n'], limit: 2, fields: ['n'] });
    expect(found).toEqual([
      { _id: 'ride-5', n: 5 },
      { _id: 'ride-4', n: 4 },
    ]);
    expect(await collection.find({ n: 3 }, { stale: true })).toEqual([ride(3)]);
  });

  test('a field without a value is left out, and one that is null stays null', async () => {
    const { collection } = opened;
    const odd = { _id: 'odd', n: -1, status: undefined, log: null };
    await collection.insert(odd as unknown as Ride);
    expect(await collection.get('odd')).toEqual({ _id: 'odd', n: -1, log: null });
    await collection.update({ _id: 'odd' }, { $set: { status: 'there', log: undefined } as unknown as Ride });
    expect(await collection.findOne({ _id: 'odd', status: { $ne: 'open' } })).toMatchObject({
      status: 'there',
    });
  });

  test('inserts many, whatever is there already, and says which were', async () => {
    const { collection } = opened;
    const many = Array.from({ length: 2500 }, (_, i) => ride(1000 + i));
    expect(await collection.insertMany(many.slice(1100, 1102))).toEqual({ inserted: 2, duplicates: [] });
    expect(await collection.insertMany(many)).toEqual({
      inserted: 2498,
      duplicates: ['ride-2100', 'ride-2101'],
    });
    expect(await collection.find({ n: { $gte: 1000 } }, { fields: [] })).toHaveLength(2500);
    expect(await collection.insertMany([])).toEqual({ inserted: 0, duplicates: [] });
  });

  test('takes a record in the place of an older one only: twice is once, late never goes back', async () => {
    const { collection } = alertStore;
    const alert = (id: string, version: number): Alert => ({ _id: id, version, note: `v${version}` });
    expect(await collection.replaceNewer([alert('a', 2), alert('b', 1)])).toBe(2);
    expect(await collection.replaceNewer([alert('a', 1), alert('b', 3), alert('b', 2), alert('c', 1)])).toBe(
      2,
    );
    expect(await collection.replaceNewer([alert('b', 3)])).toBe(0);
    expect(await collection.find({}, { sort: ['_id'] })).toEqual([
      alert('a', 2),
      alert('b', 3),
      alert('c', 1),
    ]);
    expect(await collection.replaceNewer([])).toBe(0);
  });

  test('however versions race, the newest of each record stays', async () => {
    const { collection } = alertStore;
    let run = 0;
    await fc.assert(
      fc.asyncProperty(
        fc.array(
          fc.array(fc.tuple(fc.constantFrom('x', 'y', 'z'), fc.integer({ min: 1, max: 6 })), {
            maxLength: 6,
          }),
          {
            minLength: 2,
            maxLength: 6,
          },
        ),
        async (writers) => {
          const key = `race-${run++}`;
          await Promise.all(
            writers.map((batch) =>
              collection.replaceNewer(
                batch.map(([id, version]) => ({ _id: `${key}-${id}`, version, note: `v${version}` })),
              ),
            ),
          );
          for (const id of ['x', 'y', 'z']) {
            const versions = writers.flat().filter(([other]) => other === id);
            const newest = Math.max(...versions.map(([, version]) => version));
            expect((await collection.get(`${key}-${id}`))?.version).toBe(
              versions.length > 0 ? newest : undefined,
            );
          }
        },
      ),
      { numRuns: 25 },
    );
  });

  test('R9.4 finds what is near, the nearest first, within the radius and the query', async () => {
    const { collection } = opened;
    const centre = { lat: 12.97, lng: 77.59 };
    // 0.001° of latitude are 111.2 m; the last is across the date line from nothing
    const places = [3, 1, 2, 50].map((step, i) =>
      ride(5000 + i, { at: geoPoint({ lat: 12.97 + step / 1000, lng: 77.59 }) }),
    );
    await collection.insertMany([...places, ride(5009, { status: 'taken', at: geoPoint(centre) })]);
    const found = await collection.near('at', centre, { radiusM: 334, limit: 5, query: { status: 'open' } });
    expect(found.map(({ document }) => document.n)).toEqual([5001, 5002, 5000]);
    expect(found[0]?.document).toEqual(places[1]);
    for (const { document, distanceM: metres } of found) {
      const [lng = 0, lat = 0] = document.at?.coordinates ?? [];
      expect(metres).toBeCloseTo(distanceM(centre, { lat, lng }), 6);
    }
    // The third is 333.6 m away: the radius is the same on both spheres
    expect(
      await collection.near('at', centre, { radiusM: 333, limit: 5, query: { status: 'open' } }),
    ).toHaveLength(2);
    expect(await collection.near('at', centre, { radiusM: 500, limit: 1, stale: true })).toMatchObject([
      { document: { n: 5009 }, distanceM: 0 },
    ]);
  });

  test('R9.2 keeps measurements with their times', async () => {
    const measured = await openStore<Measured>(env(), history);
    const at = (i: number): Measured => ({
      _id: `m${i}`,
      tripId: 't',
      timestamp: new Date(1_700_000_000_000 + i),
    });
    try {
      expect(await measured.collection.insertMany([at(2), at(1)])).toMatchObject({ inserted: 2 });
      const found = await measured.collection.find(
        { tripId: 't', timestamp: { $gte: at(1).timestamp } },
        { sort: ['timestamp'] },
      );
      expect(found).toEqual([at(1), at(2)]);
    } finally {
      await measured.broker.stop();
    }
  });

  describe('a restart', () => {
    afterEach(async () => {
      if (!opened.broker.started) opened = await openStore<Ride>(env(), rides);
    });
    test('keeps everything, and there are no actions of its own', async () => {
      expect(opened.broker.registry.actions.list({ skipInternal: true })).toEqual([]);
      await opened.broker.stop();
      if (!mongo) expect(await readFile(join(dataDir, 'rides.nedb'), 'utf8')).toContain('ride-2');
      opened = await openStore<Ride>(env(), rides);
      expect((await opened.collection.get('ride-2'))?.status).toBe('taken');
      expect(await opened.collection.insert({ ...ride(2), _id: 'another' })).toBe(false);
    });
  });
});
