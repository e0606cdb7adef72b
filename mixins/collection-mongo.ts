import mongoose, { type mongo } from 'mongoose';
import { distanceM as distanceBetween } from '../lib/geo.ts';
import { type Collection, type GeoPoint, newestOfEach, type ReadOptions } from './collection.ts';
import { isAway, StoreUnavailableError } from './mongo.ts';

/** Documents in one command of a bulk write. */
const chunkSize = 1000;
/** MongoDB measures on a sphere of 6,378.1 km, lib/geo.ts on the mean radius; a radius has to be the same angle on both. */
const toMongoSphere = 6_378_100 / 6_371_008.8;
const duplicateKey = 11_000;

type Document = mongo.Document & { _id: string };

/** Uses a collection once MongoDB is there and prepared; an error that says "not now" becomes a StoreUnavailableError. */
export const collectionUser =
  <D extends mongo.Document>(name: string, database: () => Promise<mongo.Db>) =>
  async <R>(use: (collection: mongo.Collection<D>) => Promise<R>): Promise<R> => {
    try {
      return await use((await database()).collection<D>(name));
    } catch (error) {
      throw isAway(error) ? new StoreUnavailableError(error) : error;
    }
  };

/** Which documents of a bulk write, by index, were refused with codes that are `expected`. Any other error is thrown. */
export async function refusedBy(
  write: () => Promise<unknown>,
  expected: (code: number) => boolean,
): Promise<number[]> {
  try {
    await write();
    return [];
  } catch (error) {
    if (!(error instanceof mongoose.mongo.MongoBulkWriteError)) throw error;
    // Written, but not by a majority: it may still be lost
    if (error.result.getWriteConcernError()) throw new StoreUnavailableError(error);
    const errors = [error.writeErrors].flat();
    if (errors.length === 0 || errors.some(({ code }) => !expected(code))) throw error;
    return errors.map(({ index }) => index);
  }
}

/** Secondaries are asked where the caller said so, and nowhere else. */
const readPreference = ({ stale = false }: ReadOptions): mongo.ReadPreferenceMode =>
  stale ? 'secondaryPreferred' : 'primary';

/**
 * Straight on the driver, and not through mongoose's models: their casting leaves out conditions on fields that a schema
 * does not name, and ours names none. `database` resolves once MongoDB is there and prepared.
 */
export function mongoCollection<T extends { _id: string }>(
  name: string,
  database: () => Promise<mongo.Db>,
): Collection<T> {
  // Records are written by this service alone, after contracts/ has checked them: the shape read is the shape written
  const asT = (found: mongo.Document | null) => found as T | null;

  const run = collectionUser<Document>(name, database);
  /** Which of the documents, by index, were refused as duplicates. Any other error is thrown. */
  const duplicatesOf = (write: () => Promise<unknown>) => refusedBy(write, (code) => code === duplicateKey);

  return {
    get: (id, options = {}) =>
      run(async (c) => asT(await c.findOne({ _id: id }, { readPreference: readPreference(options) }))),
    findOne: (query, options = {}) =>
      run(async (c) => asT(await c.findOne(query, { readPreference: readPreference(options) }))),
    find: (query, options = {}) =>
      run(async (c) => {
        const { sort = [], limit = 0, fields } = options;
        const found = await c
          .find(query, {
            readPreference: readPreference(options),
            limit,
            ...(sort.length > 0 ? { sort: sort.map(sortField) } : {}),
            ...(fields
              ? { projection: Object.fromEntries(['_id', ...fields].map((field) => [field, 1])) }
              : {}),
          })
          .toArray();
        return found as unknown as T[];
      }),
    insert: (document) =>
      run(async (c) => {
        try {
          await c.insertOne(document);
          return true;
        } catch (error) {
          if (error instanceof mongoose.mongo.MongoServerError && error.code === duplicateKey) return false;
          throw error;
        }
      }),
    insertMany: (documents) =>
      run(async (c) => {
        const duplicates: string[] = [];
        for (const chunk of chunks(documents)) {
          const there = await duplicatesOf(() => c.insertMany(chunk, { ordered: false }));
          for (const index of there) duplicates.push(chunk[index]?._id ?? '');
        }
        return { inserted: documents.length - duplicates.length, duplicates };
      }),
    update: (query, change) =>
      run(async (c) => {
        const changes = change as mongo.UpdateFilter<Document>;
        // MongoDB repeats a write whose answer was lost, without doing it twice, only when it is one document's
        const one = typeof query['_id'] === 'string';
        return (await (one ? c.updateOne(query, changes) : c.updateMany(query, changes))).modifiedCount;
      }),
    replaceNewer: (documents) =>
      run(async (c) => {
        const newest = newestOfEach(documents);
        // An upsert that meets a newer one fails as a duplicate. So does one that loses a race against an older one: the
        // second time that one is there to be replaced, and a duplicate is newer for sure
        const write = async (batch: readonly (T & { version: number })[]) => {
          const there = await duplicatesOf(() =>
            c.bulkWrite(
              batch.map((document) => ({
                replaceOne: {
                  filter: { _id: document._id, version: { $lt: document.version } },
                  replacement: document,
                  upsert: true,
                },
              })),
              { ordered: false },
            ),
          );
          return batch.filter((_, index) => there.includes(index));
        };
        let left = 0;
        for (const chunk of chunks(newest)) {
          const refused = await write(chunk);
          if (refused.length > 0) left += (await write(refused)).length;
        }
        return newest.length - left;
      }),
    near: (field, point, options) =>
      run(async (c) => {
        const { radiusM, limit, query = {} } = options;
        const $geoNear = {
          near: { type: 'Point', coordinates: [point.lng, point.lat] },
          key: field,
          distanceField: '_distance',
          maxDistance: radiusM * toMongoSphere,
          query,
          spherical: true,
        };
        const found = await c
          .aggregate([{ $geoNear }, { $limit: limit }], { readPreference: readPreference(options) })
          .toArray();
        return found.map(({ _distance, ...document }) => {
          const [lng, lat] = (document[field] as GeoPoint).coordinates;
          return { document: document as T, distanceM: distanceBetween(point, { lat, lng }) };
        });
      }),
  };
}

const sortField = (field: string): [string, 1 | -1] =>
  field.startsWith('-') ? [field.slice(1), -1] : [field, 1];

function* chunks<D>(documents: readonly D[]): Generator<D[]> {
  for (let at = 0; at < documents.length; at += chunkSize) yield documents.slice(at, at + chunkSize);
}
