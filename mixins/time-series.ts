import type { mongo } from 'mongoose';
import type { Mixin } from '../lib/define-service.ts';
import { collectionUser, refusedBy } from './collection-mongo.ts';
import type { NedbAdapter } from './collection-nedb.ts';
import type { CollectionSpec } from './migrations.ts';
import { saysNotNow } from './mongo.ts';
import { collectionMixin } from './store.ts';

/** A time series of points P, each known by what it is of (`metaField`) and when (`timeField`; ms here, a Date in the DB). */
export interface TimeSeriesSpec<P> extends CollectionSpec {
  timeSeries: NonNullable<CollectionSpec['timeSeries']> & {
    timeField: keyof P & string;
    metaField: keyof P & string;
  };
}

/**
 * Points over time. MongoDB keeps nothing unique in a time series, so `add` asks what is there before it inserts, and
 * `read` shows equals once. Rejects with StoreUnavailableError while MongoDB is away.
 */
export interface TimeSeries<P> {
  /**
   * Adds those that are not there yet, of equal ones the first. Again after it failed, or after another process died in the
   * middle of it, adds the rest; only two at the same time may double a point. Answers how many were added, and which ones the
   * database refuses by themselves. Nothing is written after `until` (of `performance.now()`): it rejects with TooLateError.
   */
  add(points: readonly P[], until: number): Promise<{ added: number; refused: P[] }>;
  /** The first `limit` in order of time, `from` to `to` (ms, inclusive); `more`: there are others behind them. */
  read(
    of: string,
    range: { from: number; to: number; limit: number },
  ): Promise<{ points: P[]; more: boolean }>;
}

/** The time in which a caller may write is up: somebody else may be at it. */
class TooLateError extends Error {
  constructor() {
    super('The database took too long');
    this.name = 'TooLateError';
  }
}

/** `this.series`: a time series, in MongoDB or in NeDB as mixins/store.ts has it. */
export function timeSeries<P extends object>(spec: TimeSeriesSpec<P>): Mixin<{ series: TimeSeries<P> }> {
  const { timeField, metaField, keepDays } = spec.timeSeries;
  const fields: Fields<P> = {
    timeField,
    metaField,
    of: (point) => String(point[metaField]),
    at: (point) => Number(point[timeField]),
  };
  return collectionMixin(spec, 'series', {
    onMongo: (database) => mongoTimeSeries(spec.name, fields, database),
    onNedb: (adapter) => nedbTimeSeries(fields, adapter),
    async prepareNedb(db) {
      await db.ensureIndex({ fieldName: metaField });
      await db.ensureIndex({ fieldName: timeField, expireAfterSeconds: keepDays * 86_400 });
    },
  });
}

interface Fields<P> {
  timeField: string;
  metaField: string;
  of: (point: P) => string;
  at: (point: P) => number;
}

const identity = <P>({ of, at }: Fields<P>, point: P): string => `${of(point)} ${at(point)}`;

/** A question and an insert are about so many points, and about so long a time (a bucket's of MongoDB), ms. */
const batchSize = 1000;
const batchSpanMs = 3_600_000;

/** Each point once, in order of time, in batches that are small in number and time: what is asked for each stays narrow. */
export function batchesOf<P>(points: readonly P[], fields: Pick<Fields<P>, 'of' | 'at'>): P[][] {
  const { of, at } = fields;
  const each = new Map<string, P>();
  for (const point of points) {
    const key = `${of(point)} ${at(point)}`;
    if (!each.has(key)) each.set(key, point);
  }
  const batches: P[][] = [];
  for (const point of [...each.values()].toSorted((a, b) => at(a) - at(b))) {
    const batch = batches.at(-1);
    const [first] = batch ?? [];
    if (batch && first && batch.length < batchSize && at(point) - at(first) < batchSpanMs) batch.push(point);
    else batches.push([point]);
  }
  return batches;
}

function onlyUntil(until: number): void {
  if (performance.now() > until) throw new TooLateError();
}

function mongoTimeSeries<P extends object>(
  name: string,
  fields: Fields<P>,
  database: () => Promise<mongo.Db>,
): TimeSeries<P> {
  const { timeField, metaField, of, at } = fields;
  const run = collectionUser<mongo.Document>(name, database);
  // Written by this service alone, from points of its contract
  const fromDocument = ({ _id, ...document }: mongo.Document) =>
    ({ ...document, [timeField]: (document[timeField] as Date).getTime() }) as P;

  /** Which of a batch are there. What a failover may still take back does not count. */
  const findKnown = (batch: readonly P[]) =>
    run(async (collection) => {
      const times = batch.map((point) => new Date(at(point)));
      const found = await collection
        .find(
          {
            [metaField]: { $in: [...new Set(batch.map(of))] },
            [timeField]: { $gte: times[0], $lte: times.at(-1), $in: times },
          },
          {
            projection: { _id: 0, [metaField]: 1, [timeField]: 1 },
            readPreference: 'primary',
            readConcern: 'majority',
          },
        )
        .toArray();
      return new Set(found.map((document) => identity(fields, fromDocument(document))));
    });

  return {
    async add(points, until) {
      let added = 0;
      const refused: P[] = [];
      for (const batch of batchesOf(points, fields)) {
        const known = await findKnown(batch);
        const fresh = batch.filter((point) => !known.has(identity(fields, point)));
        if (fresh.length === 0) continue;
        onlyUntil(until);
        const documents = fresh.map((point) => ({ ...point, [timeField]: new Date(at(point)) }));
        const refusals = await run((collection) =>
          refusedBy(
            () => collection.insertMany(documents, { ordered: false }),
            (code) => !saysNotNow(code),
          ),
        );
        added += fresh.length - refusals.length;
        refused.push(...refusals.flatMap((index) => fresh[index] ?? []));
      }
      return { added, refused };
    },

    read: (what, { from, to, limit }) =>
      run(async (collection) => {
        const found = await collection
          .find(
            { [metaField]: what, [timeField]: { $gte: new Date(from), $lte: new Date(to) } },
            { sort: { [timeField]: 1 }, limit: limit + 1, readPreference: 'primary' },
          )
          .toArray();
        const points = new Map<number, P>();
        for (const document of found.slice(0, limit)) {
          const point = fromDocument(document);
          if (!points.has(at(point))) points.set(at(point), point);
        }
        return { points: [...points.values()], more: found.length > limit };
      }),
  };
}

/** NeDB has unique ids and one process: a point's identity is its id. */
function nedbTimeSeries<P extends object>(fields: Fields<P>, adapter: NedbAdapter): TimeSeries<P> {
  const { timeField, metaField, at } = fields;
  const fromDocument = (document: object) => {
    const { _id, ...point } = document as Record<string, unknown>;
    return { ...point, [timeField]: (point[timeField] as Date).getTime() } as P;
  };
  return {
    async add(points, until) {
      let added = 0;
      for (const batch of batchesOf(points, fields)) {
        const ids = batch.map((point) => identity(fields, point));
        const there = (await adapter.find({ query: { _id: { $in: ids } } })) as { _id: string }[];
        const known = new Set(there.map(({ _id }) => _id));
        const fresh = batch.filter((point) => !known.has(identity(fields, point)));
        onlyUntil(until);
        if (fresh.length > 0)
          await adapter.db.insert(
            fresh.map((point) => ({
              ...point,
              _id: identity(fields, point),
              [timeField]: new Date(at(point)),
            })),
          );
        added += fresh.length;
      }
      return { added, refused: [] };
    },

    async read(what, { from, to, limit }) {
      const found = (await adapter.find({
        query: { [metaField]: what, [timeField]: { $gte: new Date(from), $lte: new Date(to) } },
        sort: [timeField],
        limit: limit + 1,
      })) as object[];
      return { points: found.slice(0, limit).map(fromDocument), more: found.length > limit };
    },
  };
}
