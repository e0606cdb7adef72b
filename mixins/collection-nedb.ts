import { distanceM as distanceBetween } from '../lib/geo.ts';
import { type Collection, type GeoPoint, newestOfEach, type Query } from './collection.ts';

/** What we use of moleculer-db's MemoryAdapter. */
export interface NedbAdapter {
  findOne(query: Query): Promise<unknown>;
  find(filters: { query: Query; sort?: string[]; limit?: number }): Promise<unknown[]>;
  insert(document: unknown): Promise<unknown>;
  updateMany(query: Query, change: unknown): Promise<number>;
  db: {
    ensureIndex(options: {
      fieldName: string | string[];
      unique?: boolean;
      sparse?: boolean;
      expireAfterSeconds?: number;
    }): Promise<void>;
    update(query: Query, replacement: unknown, options: object): Promise<[changed: number]>;
    insert(documents: unknown[]): Promise<unknown>;
  };
}

const isDuplicate = (error: unknown): boolean =>
  error instanceof Error && 'errorType' in error && error.errorType === 'uniqueViolated';

/** NeDB is one process's own: nothing comes between its steps but other steps of ours. */
export function nedbCollection<T extends { _id: string }>(adapter: NedbAdapter): Collection<T> {
  // Records are written by this service alone, after contracts/ has checked them: the shape read is the shape written
  const findOne = async (query: Query) => ((await adapter.findOne(query)) ?? null) as T | null;
  const insert = async (document: T) => {
    try {
      await adapter.insert(document);
      return true;
    } catch (error) {
      if (isDuplicate(error)) return false;
      throw error;
    }
  };
  /** All of them, or none when one is there already. */
  const insertAll = async (documents: readonly T[]) => {
    try {
      await adapter.db.insert([...documents]);
      return true;
    } catch (error) {
      if (isDuplicate(error)) return false;
      throw error;
    }
  };
  const replaceOlder = async (document: T & { version: number }) => {
    const older = { _id: document._id, version: { $lt: document.version } };
    return (await adapter.db.update(older, document, {}))[0] > 0;
  };
  return {
    get: (id) => findOne({ _id: id }),
    findOne: (query) => findOne(query),
    async find(query, { sort, limit, fields } = {}) {
      const found = await adapter.find({ query, ...(sort ? { sort } : {}), ...(limit ? { limit } : {}) });
      if (!fields) return found as T[];
      const wanted = new Set<string>(['_id', ...fields]);
      return found.map(
        (document) =>
          Object.fromEntries(Object.entries(document as T).filter(([key]) => wanted.has(key))) as T,
      );
    },
    insert,
    async insertMany(documents) {
      const duplicates: string[] = [];
      // NeDB takes all of many or none
      for (const document of documents) if (!(await insert(document))) duplicates.push(document._id);
      return { inserted: documents.length - duplicates.length, duplicates };
    },
    update: (query, change) => adapter.updateMany(query, change),
    async replaceNewer(documents) {
      const newest = newestOfEach(documents);
      // A file is opened for each write: what is new goes in one
      const known = new Set<string>();
      for (const { _id } of (await adapter.find({
        query: { _id: { $in: newest.map((document) => document._id) } },
      })) as T[])
        known.add(_id);
      const fresh = newest.filter(({ _id }) => !known.has(_id));
      const inserted = fresh.length > 0 && (await insertAll(fresh));
      let taken = inserted ? fresh.length : 0;
      for (const document of inserted ? newest.filter(({ _id }) => known.has(_id)) : newest) {
        // Somebody may insert between the first two: then it is there to be replaced
        if ((await replaceOlder(document)) || (await insert(document)) || (await replaceOlder(document)))
          taken++;
      }
      return taken;
    },
    async near(field, point, { radiusM, limit, query = {} }) {
      const found = (await adapter.find({ query: { ...query, [field]: { $exists: true } } })) as T[];
      return found
        .map((document) => {
          const [lng, lat] = (document[field] as GeoPoint).coordinates;
          return { document, distanceM: distanceBetween(point, { lat, lng }) };
        })
        .filter(({ distanceM }) => distanceM <= radiusM)
        .toSorted((a, b) => a.distanceM - b.distanceM)
        .slice(0, limit);
    },
  };
}
