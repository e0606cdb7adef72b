import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import mongoose from 'mongoose';
import type { Collection } from '../../mixins/collection.ts';
import { type CollectionSpec, MigrationConflict, migrate } from '../../mixins/migrations.ts';
import type { PooledAdapter } from '../../mixins/pooled-adapter.ts';
import { store } from '../../mixins/store.ts';
import { historyCollection } from '../../services/location/history.collection.ts';
import { eventually } from '../support/eventually.ts';
import { type MongoSimulator, notPrimary, startMongoSimulator } from '../support/mongo-simulator/index.ts';
import { type OpenStore, openStore } from '../support/store.ts';

interface Ride {
  _id: string;
  version: number;
  status?: string;
}
const rides = () => store<Ride>('rides', [{ fields: ['status'] }]);
const ride = (n: number, version = 1): Ride => ({ _id: `ride-${n}`, version, status: 'open' });

/** 2.5 s, and what a busy machine adds. */
const refusedWithinMs = 3500;
const unavailable = expect.objectContaining({ name: 'StoreUnavailableError' });
async function msUntil(done: Promise<unknown>): Promise<number> {
  const start = performance.now();
  await done;
  return performance.now() - start;
}

/** These look at what was sent and take the server away, so they are about the simulator whatever MONGO_URI is. */
describe("the MongoDB path, on the simulator of MongoDB's wire protocol", () => {
  let simulator: MongoSimulator;
  const opened: OpenStore<Ride>[] = [];
  const open = async (env: Record<string, string> = {}, ...mixins: object[]) => {
    const one = await openStore<Ride>(
      { MONGO_URI: simulator.uri, ...env },
      ...(mixins.length > 0 ? mixins : [rides()]),
    );
    opened.push(one);
    return one;
  };

  beforeEach(async () => {
    simulator = await startMongoSimulator();
  });
  afterEach(async () => {
    await Promise.all(opened.splice(0).map(({ broker }) => broker.stop()));
    await simulator.stop();
  });

  describe('what is sent', () => {
    test('every write waits for the journals of a majority', async () => {
      const { collection } = await open();
      await collection.insert(ride(1));
      await collection.insertMany([ride(2)]);
      await collection.update({ _id: 'ride-1' }, { $set: { status: 'taken' } });
      await collection.replaceNewer([ride(2, 2), ride(3)]);
      const writes = simulator.commands().filter(({ name }) => name !== 'find');
      expect(new Set(writes.map(({ name }) => name))).toEqual(
        new Set(['create', 'createIndexes', 'insert', 'update']),
      );
      for (const { command } of writes) expect(command['writeConcern']).toEqual({ w: 'majority', j: true });
    });

    test('R9.3 only reads that say that they may be stale go to a secondary', async () => {
      const { collection } = await open({ MONGO_URI: `${simulator.uri}&readPreference=secondary` });
      simulator.forget();
      await collection.get('a');
      await collection.findOne({ status: 'open' });
      await collection.find({});
      await collection.get('a', { stale: true });
      await collection.findOne({ status: 'open' }, { stale: true });
      await collection.find({}, { stale: true });
      const sent = simulator.commands('find').map(({ node, command }) => [node, command['$readPreference']]);
      const fresh = ['primary', undefined];
      const stale = ['secondary', { mode: 'secondaryPreferred' }];
      expect(sent).toEqual([fresh, fresh, fresh, stale, stale, stale]);
    });

    test('many documents go in batches of 1000, unordered', async () => {
      const { collection } = await open();
      await collection.insertMany(Array.from({ length: 2100 }, (_, n) => ride(n)));
      const batches = simulator.commands('insert').filter(({ command }) => command['insert'] === 'rides');
      expect(batches.map(({ command }) => command['documents'].length)).toEqual([1000, 1000, 100]);
      expect(batches.every(({ command }) => command['ordered'] === false)).toBe(true);
    });

    test("moleculer-db's own methods see conditions on any field", async () => {
      const { collection, service } = await open();
      const { adapter } = service as unknown as { adapter: PooledAdapter };
      await collection.insertMany([ride(1), { ...ride(2), status: 'taken' }]);
      const found = await adapter.find({ query: { status: 'taken' } });
      expect(found.map((document) => String(document._id))).toEqual(['ride-2']);
    });
  });

  describe('one pool', () => {
    test('R9.3 serves all services of a process, never with more connections than MONGO_POOL_SIZE', async () => {
      const other = store<Ride>('others');
      const { collection, service } = await open({ MONGO_POOL_SIZE: '8' }, rides(), other);
      const second = service.broker.getLocalService('keeper-1') as unknown as { store: Collection<Ride> };
      await collection.insert(ride(1));
      const found: unknown[] = [];
      // Several times as many at once as there are connections; a wait of 2.5 s for one would be refused
      while (found.length < 300) {
        const reads = Array.from({ length: 30 }, (_, n) =>
          (n % 2 === 0 ? collection : second.store).get('ride-1'),
        );
        found.push(...(await Promise.all(reads)));
      }
      expect(found.filter(Boolean)).toHaveLength(150);
      expect(simulator.peakConnections()).toBeGreaterThan(1);
      expect(simulator.peakConnections()).toBeLessThanOrEqual(8);
    });

    test('is closed by the last service that stops, not by the first', async () => {
      const { collection, broker, service } = await open({}, rides(), store<Ride>('others'));
      await collection.insert(ride(1));
      const second = broker.getLocalService('keeper-1');
      await broker.destroyService(second);
      expect(await collection.get('ride-1')).toEqual(ride(1));
      await broker.destroyService(service);
      await eventually(() => expect(simulator.connections()).toBe(0));
      await expect(collection.get('ride-1')).rejects.toEqual(unavailable);
    });

    test('an address that is none ends the start', async () => {
      await expect(open({ MONGO_URI: 'mango://nowhere' })).rejects.toThrow('Invalid scheme');
    });
  });

  describe('migrations', () => {
    const withDb = async <R>(use: (db: mongoose.mongo.Db) => Promise<R>): Promise<R> => {
      const client = await new mongoose.mongo.MongoClient(simulator.uri).connect();
      try {
        return await use(client.db());
      } finally {
        await client.close();
      }
    };

    test('R9.2 location history is a time series of each trip, gone after 30 days', async () => {
      await withDb((db) => migrate(db, historyCollection, 'test'));
      expect(simulator.commands('create').map(({ command }) => command)).toMatchObject([
        {
          create: 'location-history',
          timeseries: { timeField: 'timestamp', metaField: 'tripId', granularity: 'seconds' },
          expireAfterSeconds: 30 * 86_400,
        },
      ]);
      expect(simulator.commands('createIndexes')[0]?.command['indexes']).toEqual([
        { key: { tripId: 1, timestamp: 1 }, name: 'tripId_1_timestamp_1' },
      ]);
      const now = Date.now();
      const collection = simulator.database().collection('location-history');
      for (const days of [31, 29])
        collection.insert({ tripId: 't', timestamp: new Date(now - days * 86_400_000) });
      collection.expire(now);
      expect(collection.find({})).toHaveLength(1);
    });

    test('run by ten processes at once, and again, they make everything once and are recorded once', async () => {
      await withDb((db) =>
        Promise.all(Array.from({ length: 10 }, (_, i) => migrate(db, historyCollection, `pod-${i}`))),
      );
      await withDb((db) => migrate(db, historyCollection, 'later'));
      const database = simulator.database();
      expect([...database.collections.keys()].toSorted()).toEqual(['location-history', 'migrations']);
      expect(database.collection('location-history').indexes.map(({ name }) => name)).toEqual([
        'tripId_1_timestamp_1',
      ]);
      const recorded = database.collection('migrations').find({});
      expect(recorded).toHaveLength(1);
      expect(recorded[0]).toMatchObject({
        _id: expect.stringMatching(/^location-history:[0-9a-f]{12}$/),
        by: expect.stringMatching(/^pod-/),
        at: expect.any(Date),
      });
    });

    test('a collection that somebody else made meanwhile is no error', async () => {
      simulator.fail('create', 1, { ok: 0, code: 48, codeName: 'NamespaceExists', errmsg: 'already exists' });
      await withDb((db) => migrate(db, { name: 'rides', indexes: [{ fields: ['status'] }] }, 'test'));
      expect(simulator.database().collection('rides').indexes).toHaveLength(2);
    });

    test('another time to keep is set on what is there', async () => {
      const week = { ...historyCollection, timeSeries: { ...historyCollection.timeSeries, keepDays: 7 } };
      await withDb((db) => migrate(db, historyCollection, 'test'));
      await withDb((db) => migrate(db, week, 'test'));
      expect(simulator.database().collection('location-history').options['expireAfterSeconds']).toBe(
        7 * 86_400,
      );
      expect(simulator.database().collection('migrations').find({})).toHaveLength(2);
    });

    test.each<[string, CollectionSpec, CollectionSpec]>([
      [
        'a plain collection in the place of a time series',
        { name: historyCollection.name },
        historyCollection,
      ],
      [
        'an index with other options',
        { name: 'rides', indexes: [{ fields: ['n'] }] },
        { name: 'rides', indexes: [{ fields: ['n'], unique: true }] },
      ],
    ])('%s is a conflict that somebody has to solve', async (_, there, wanted) => {
      await withDb((db) => migrate(db, there, 'test'));
      await expect(withDb((db) => migrate(db, wanted, 'test'))).rejects.toThrow(MigrationConflict);
    });

    test('nothing is read or written before they are made', async () => {
      simulator.fail('createIndexes', 1, {
        ok: 0,
        code: 13,
        codeName: 'Unauthorized',
        errmsg: 'not authorized',
      });
      const { collection } = await open();
      await collection.insert(ride(1));
      const names = simulator.commands().map(({ name, command }) => `${name} ${command[name]}`);
      expect(names).toEqual([
        'create rides',
        'createIndexes rides',
        'create rides',
        'createIndexes rides',
        'insert migrations',
        'insert rides',
      ]);
    });
  });

  describe('while the DB is away', () => {
    test('at the start: the process starts, refuses in time, and works by itself once the DB is there', async () => {
      await simulator.halt();
      let started: OpenStore<Ride> | undefined;
      expect(await msUntil(open().then((one) => (started = one)))).toBeLessThan(6000);
      const { collection } = started!;
      expect(await msUntil(expect(collection.get('ride-1')).rejects.toEqual(unavailable))).toBeLessThan(
        refusedWithinMs,
      );
      await simulator.resume();
      await eventually(async () => expect(await collection.insert(ride(1))).toBe(true), 10_000);
      expect(simulator.database().collection('rides').indexes).toHaveLength(2);
    }, 30_000);

    test('at the start: the process ends at once when it is told to, though it still tries', async () => {
      await simulator.halt();
      const { broker } = await open();
      expect(await msUntil(broker.stop())).toBeLessThan(2000);
    }, 30_000);

    test('for a while: reads and writes are refused in time, and work again by themselves', async () => {
      const { collection } = await open();
      await collection.insert(ride(1));
      await simulator.halt();
      const refused = [
        collection.get('ride-1'),
        collection.find({}, { stale: true }),
        collection.insert(ride(2)),
        collection.insertMany([ride(3)]),
        collection.update({ _id: 'ride-1' }, { $set: { status: 'taken' } }),
        collection.replaceNewer([ride(4)]),
      ].map((one) => expect(one).rejects.toEqual(unavailable));
      expect(await msUntil(Promise.all(refused))).toBeLessThan(refusedWithinMs);
      await simulator.resume();
      await eventually(async () => expect(await collection.insert(ride(2))).toBe(true), 10_000);
      expect(await collection.get('ride-1')).toEqual(ride(1));
    }, 30_000);

    test('a server that is silent is given up in time, also when the process stops', async () => {
      const { collection, broker } = await open();
      simulator.delay(Number.POSITIVE_INFINITY);
      const refused = expect(collection.get('ride-1')).rejects.toEqual(unavailable);
      expect(await msUntil(refused)).toBeLessThan(refusedWithinMs);
      const hanging = expect(collection.get('ride-1')).rejects.toEqual(unavailable);
      expect(await msUntil(broker.stop())).toBeLessThan(2000);
      await hanging;
    });
  });

  describe('while the replica set changes', () => {
    test('a server that is no primary any more is asked again', async () => {
      const { collection } = await open();
      simulator.fail('insert', 1, notPrimary);
      expect(await collection.insert(ride(1))).toBe(true);
      simulator.fail('find', 1, { ...notPrimary, code: 11_600, codeName: 'InterruptedAtShutdown' });
      expect(await collection.get('ride-1')).toEqual(ride(1));
    });

    test('a write whose answer is lost with the connection counts once', async () => {
      const { collection } = await open();
      simulator.loseAnswer('insert');
      expect(await collection.insert(ride(1))).toBe(true);
      simulator.loseAnswer('update');
      expect(await collection.update({ _id: 'ride-1' }, { $inc: { version: 1 } })).toBe(1);
      expect(await collection.get('ride-1')).toEqual(ride(1, 2));
    });

    test('a write that no majority has confirmed is not reported as done', async () => {
      const { collection } = await open();
      const unsafe = {
        ok: 1,
        n: 1,
        nModified: 1,
        writeConcernError: { code: 64, errmsg: 'waiting for replication timed out' },
      };
      for (const name of ['insert', 'update']) simulator.fail(name, 1, unsafe);
      await expect(collection.insert(ride(1))).rejects.toEqual(unavailable);
      await expect(collection.update({ _id: 'a' }, { $set: { status: 'x' } })).rejects.toEqual(unavailable);
      for (const name of ['insert', 'update']) simulator.fail(name, 1, unsafe);
      await expect(collection.insertMany([ride(1)])).rejects.toEqual(unavailable);
      await expect(collection.replaceNewer([ride(1)])).rejects.toEqual(unavailable);
    });
  });

  test('R12.5 a query over 100 ms is logged with its shape and plan, not with its values', async () => {
    const { collection, broker } = await open();
    const lines: Record<string, unknown>[] = [];
    const { logger } = broker as unknown as {
      logger: { warn(message: string, line: Record<string, unknown>): void };
    };
    logger.warn = (_message, line) => void lines.push(line);
    simulator.delay(120, 'find');
    await collection.find({ status: 'secret', version: { $gt: 7 } });
    await collection.find({ nothing: 'secret' });
    await collection.find({ status: 'other', version: { $gt: 8 } });
    simulator.delay(0);
    await eventually(() => expect(lines).toHaveLength(3));
    const slow = { command: 'find', collection: 'rides', durationMs: expect.any(Number) };
    expect(lines).toContainEqual({
      ...slow,
      shape: '{"status":"?","version":{"$gt":"?"}}',
      plan: 'FETCH < IXSCAN status_1',
    });
    expect(lines).toContainEqual({ ...slow, shape: '{"nothing":"?"}', plan: 'COLLSCAN' });
    // The plan of a kind of query is asked for once a minute
    expect(simulator.commands('explain')).toHaveLength(2);
  });

  test('the simulator refuses what it does not know', async () => {
    const client = await new mongoose.mongo.MongoClient(simulator.uri).connect();
    const db = client.db();
    const refusalOf = (done: Promise<unknown>) =>
      done.catch((error: unknown) => (error as { code: number }).code);
    try {
      expect(await refusalOf(db.command({ mapReduce: 'rides' }))).toBe(59);
      expect(await refusalOf(db.collection('rides').find({}, { hint: 'x' }).toArray())).toBe(40_415);
      expect(
        await refusalOf(
          db
            .collection('rides')
            .aggregate([{ $out: 'x' }])
            .toArray(),
        ),
      ).toBe(40_324);
      await db.collection('rides').insertOne({ n: 1 });
      expect(
        await refusalOf(
          db
            .collection('rides')
            .find({ n: { $near: 1 } })
            .toArray(),
        ),
      ).toBe(2);
      const near = {
        $geoNear: { near: { type: 'Point', coordinates: [1, 1] }, key: 'at', distanceField: 'd' },
      };
      expect(await refusalOf(db.collection('rides').aggregate([near]).toArray())).toBe(27);
      await db.collection('rides').createIndex({ at: '2dsphere' });
      expect(await refusalOf(db.collection('rides').insertOne({ at: [1, 2] }))).toBe(16_755);
    } finally {
      await client.close();
    }
  });
});
