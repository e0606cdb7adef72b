/**
 * What a collection is in MongoDB: its options and indexes. Made before the first use by an explicit step, never by a
 * library at the side: a collection that is made by its first write has neither expiry nor indexes.
 */
import { createHash } from 'node:crypto';
import mongoose, { type mongo } from 'mongoose';

/**
 * `unique` fields must be unique where they are present. `geo`: the one field holds a GeoJSON point, for `near`.
 * `expires`: the one field holds a Date, after which the document goes, within a minute or so.
 */
export interface Index {
  fields: string[];
  unique?: boolean;
  geo?: boolean;
  expires?: boolean;
}

export interface CollectionSpec {
  name: string;
  indexes?: Index[];
  /** Measurements over time, of `metaField` each; a Date in `timeField`. Gone after `keepDays`. */
  timeSeries?: {
    timeField: string;
    metaField: string;
    granularity: 'seconds' | 'minutes' | 'hours';
    keepDays: number;
  };
}

const declared = new Map<string, CollectionSpec>();

/** Every collection that a loaded service has, for `npm run migrate`. */
export const declaredCollections = (): CollectionSpec[] => [...declared.values()];
export const declareCollection = (spec: CollectionSpec): void => void declared.set(spec.name, spec);

/** What is there is not what is wanted, and changing it would lose or lock data: somebody has to decide. */
export class MigrationConflict extends Error {
  constructor(collection: string, problem: string, cause?: unknown) {
    super(`Collection ${collection}: ${problem}`, { cause });
    this.name = 'MigrationConflict';
  }
}

/** An index build on a full collection takes its time. ms */
const timeoutMS = 600_000;
const code = (error: unknown) => (error instanceof mongoose.mongo.MongoServerError ? error.code : undefined);
const namespaceExists = 48;
const indexConflicts: unknown[] = [85, 86];
const duplicateKey = 11_000;

/**
 * Makes the collection and its indexes. May run any number of times and in many processes at once: every step says "be
 * there", and is nothing where it is. Adds, never drops. Recorded in the collection `migrations`, once for each version.
 * @throws MigrationConflict when what is there differs
 */
export async function migrate(db: mongo.Db, spec: CollectionSpec, by: string): Promise<void> {
  const { name, indexes = [], timeSeries } = spec;
  const expireAfterSeconds = timeSeries ? timeSeries.keepDays * 86_400 : undefined;
  try {
    const { timeField = '', metaField, granularity } = timeSeries ?? {};
    await db.createCollection(name, {
      timeoutMS,
      ...(timeSeries && expireAfterSeconds !== undefined
        ? {
            timeseries: {
              timeField,
              ...(metaField ? { metaField } : {}),
              ...(granularity ? { granularity } : {}),
            },
            expireAfterSeconds,
          }
        : {}),
    });
  } catch (error) {
    if (code(error) !== namespaceExists) throw error;
  }
  if (timeSeries && expireAfterSeconds !== undefined) await checkTimeSeries(db, spec, expireAfterSeconds);
  if (indexes.length > 0) {
    try {
      await db.collection(name).createIndexes(indexes.map(indexDescription), { timeoutMS });
    } catch (error) {
      if (!indexConflicts.includes(code(error))) throw error;
      throw new MigrationConflict(
        name,
        'an index is there with other options; drop it, or change the code',
        error,
      );
    }
  }
  const version = createHash('sha256').update(JSON.stringify(spec)).digest('hex').slice(0, 12);
  try {
    await db
      .collection<{ _id: string; collection: string; spec: string; at: Date; by: string }>('migrations')
      .insertOne({
        _id: `${name}:${version}`,
        collection: name,
        spec: JSON.stringify(spec),
        at: new Date(),
        by,
      });
  } catch (error) {
    if (code(error) !== duplicateKey) throw error;
  }
}

function indexDescription({
  fields,
  unique = false,
  geo = false,
  expires = false,
}: Index): mongo.IndexDescription {
  const key = Object.fromEntries(fields.map((field) => [field, geo ? ('2dsphere' as const) : 1]));
  return { key, ...(unique ? { unique, sparse: true } : {}), ...(expires ? { expireAfterSeconds: 0 } : {}) };
}

async function checkTimeSeries(
  db: mongo.Db,
  { name, timeSeries }: CollectionSpec,
  seconds: number,
): Promise<void> {
  const [found] = await db.listCollections({ name }, { timeoutMS }).toArray();
  const options = (found && 'options' in found ? found.options : undefined) as
    | { timeseries?: { timeField: string; metaField?: string }; expireAfterSeconds?: number | bigint }
    | undefined;
  if (
    options?.timeseries?.timeField !== timeSeries?.timeField ||
    options?.timeseries?.metaField !== timeSeries?.metaField
  )
    throw new MigrationConflict(
      name,
      'is there as another kind of collection; move its data away, then start again',
    );
  if (Number(options?.expireAfterSeconds) !== seconds)
    await db.command({ collMod: name, expireAfterSeconds: seconds }, { timeoutMS });
}
