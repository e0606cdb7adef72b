/**
 * The documents of one collection with its indexes and options: unique (sparse, partial), 2dsphere, time series.
 * Queries and updates are mingo's; what it does not know is refused.
 */
import { type Document, EJSON } from 'bson';
import { Query, update } from 'mingo';
import type { Modifier } from 'mingo/updater';
import { distanceM } from '../../../lib/geo.ts';
import { Refusal } from './refusal.ts';

export interface IndexSpec extends Document {
  name: string;
  key: Record<string, unknown>;
  unique?: boolean;
  sparse?: boolean;
  partialFilterExpression?: Document;
}

/** MongoDB's sphere: kRadiusOfEarthInMeters in src/mongo/db/geo/geometry_container; ours is the IUGG mean. */
const mongoToMeanRadius = 6_378_100 / 6_371_008.8;

const valueAt = (document: Document, path: string): unknown =>
  path
    .split('.')
    .reduce<unknown>(
      (value, key) => (typeof value === 'object' && value !== null ? (value as Document)[key] : undefined),
      document,
    );

function matcher(query: Document): (document: Document) => boolean {
  try {
    const compiled = new Query(query);
    return (document) => compiled.test(document);
  } catch (error) {
    throw new Refusal('BadValue', String(error));
  }
}

/** Values of BSON are never changed, so that they may be shared. `structuredClone` makes dates of another realm under Jest. */
function clone<T>(value: T): T {
  if (Array.isArray(value)) return value.map(clone) as T;
  if (typeof value !== 'object' || value === null || Object.getPrototypeOf(value) !== Object.prototype)
    return value;
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, clone(inner)])) as T;
}
const text = (value: unknown): string => EJSON.stringify(value ?? null);

export class SimulatedCollection {
  readonly name: string;
  readonly options: Document;
  readonly indexes: IndexSpec[] = [{ v: 2, name: '_id_', key: { _id: 1 } }];
  /** Who has which value of a unique index, by the index's name. */
  readonly #taken = new Map<string, Map<string, Document>>();
  #documents: Document[] = [];

  constructor(name: string, options: Document) {
    this.name = name;
    this.options = options;
    const { timeField, metaField } = this.timeseries ?? {};
    // A time series has no index on _id, and since 6.3 one on what it is grouped by and its time
    if (timeField)
      this.indexes = metaField
        ? [{ v: 2, name: `${metaField}_1_${timeField}_1`, key: { [metaField]: 1, [timeField]: 1 } }]
        : [];
  }

  get timeseries(): { timeField: string; metaField?: string } | undefined {
    return this.options['timeseries'] as { timeField: string; metaField?: string } | undefined;
  }

  find(query: Document): Document[] {
    const fits = matcher(query);
    return this.#documents.filter(fits).map(clone);
  }

  /** `$geoNear` on GeoJSON points, nearest first. Distances on the server's sphere, m. */
  near(stage: Document): Document[] {
    const field = String(stage['key']);
    if (!this.indexes.some(({ key }) => key[field] === '2dsphere'))
      throw new Refusal('IndexNotFound', 'unable to find index for $geoNear query');
    const [lng, lat] = (stage['near'] as { coordinates: [number, number] }).coordinates;
    return this.find((stage['query'] as Document | undefined) ?? {})
      .filter((document) => valueAt(document, field) !== undefined)
      .map((document) => {
        const [lng2, lat2] = (valueAt(document, field) as { coordinates: [number, number] }).coordinates;
        const distance = distanceM({ lat, lng }, { lat: lat2, lng: lng2 }) * mongoToMeanRadius;
        return { ...document, [String(stage['distanceField'])]: distance };
      })
      .filter((document) => Number(document[String(stage['distanceField'])]) <= Number(stage['maxDistance']))
      .toSorted((a, b) => Number(a[stage['distanceField']]) - Number(b[stage['distanceField']]));
  }

  insert(document: Document): void {
    this.#check(document);
    const kept = clone(document);
    this.#documents.push(kept);
    this.#occupy(kept);
  }

  /** One statement of `update`. */
  update(statement: Document): { n: number; modified: number; upserted?: unknown } {
    if (this.timeseries)
      throw new Refusal('InvalidOptions', 'Updates of time-series collections are not simulated');
    const query = statement['q'] as Document;
    const change = statement['u'] as Document;
    const fits = matcher(query);
    const found = this.#documents.filter(fits).slice(0, statement['multi'] === true ? undefined : 1);
    let modified = 0;
    for (const document of found) {
      const next = this.#changed(document, change);
      if (text(next) === text(document)) continue;
      this.#check(next, document);
      this.#vacate(document);
      this.#documents[this.#documents.indexOf(document)] = next;
      this.#occupy(next);
      modified++;
    }
    if (found.length > 0 || statement['upsert'] !== true) return { n: found.length, modified };
    const equalities = Object.fromEntries(
      Object.entries(query).filter(([key, value]) => !key.startsWith('$') && !isOperators(value)),
    );
    const base = isOperators(change) ? equalities : { _id: equalities['_id'] };
    const fresh = this.#changed(base, change);
    this.insert(fresh);
    return { n: 1, modified: 0, upserted: fresh['_id'] };
  }

  remove(query: Document, limit: number): number {
    const fits = matcher(query);
    const doomed = new Set(this.#documents.filter(fits).slice(0, limit === 0 ? undefined : limit));
    this.#documents = this.#documents.filter((document) => !doomed.has(document));
    for (const document of doomed) this.#vacate(document);
    return doomed.size;
  }

  /** What the server's TTL monitor would take away at a time, ms. */
  expire(now: number): number {
    const after = Number(this.options['expireAfterSeconds']);
    const { timeField } = this.timeseries ?? {};
    let gone = 0;
    for (const { key, expireAfterSeconds } of this.indexes) {
      const [field] = Object.keys(key);
      if (!field || expireAfterSeconds === undefined) continue;
      gone += this.remove({ [field]: { $lt: new Date(now - expireAfterSeconds * 1000) } }, 0);
    }
    if (!timeField || Number.isNaN(after)) return gone;
    return gone + this.remove({ [timeField]: { $lt: new Date(now - after * 1000) } }, 0);
  }

  addIndex(spec: IndexSpec): boolean {
    const sameKey = this.indexes.find(({ key }) => text(key) === text(spec.key));
    const sameName = this.indexes.find(({ name }) => name === spec.name);
    const options = ({
      unique = false,
      sparse = false,
      partialFilterExpression = {},
      expireAfterSeconds = -1,
    }: IndexSpec) => text({ unique, sparse, partialFilterExpression, expireAfterSeconds });
    if (sameName && sameName !== sameKey)
      throw new Refusal('IndexKeySpecsConflict', `An existing index has the same name: ${spec.name}`);
    if (sameKey) {
      if (options(sameKey) !== options(spec))
        throw new Refusal(
          'IndexOptionsConflict',
          `Index already exists with different options: ${spec.name}`,
        );
      return false;
    }
    this.indexes.push({ v: 2, ...spec });
    try {
      for (const document of this.#documents) {
        this.#check(document, document);
        this.#occupy(document);
      }
    } catch (error) {
      this.indexes.pop();
      this.#taken.delete(spec.name);
      throw error;
    }
    return true;
  }

  /** The index that a query would use: the first whose leading field it fixes. */
  indexFor(query: Document): IndexSpec | undefined {
    return this.indexes.find(({ key }) => Object.hasOwn(query, Object.keys(key)[0] ?? ''));
  }

  #changed(document: Document, change: Document): Document {
    if (!isOperators(change)) return { _id: document['_id'], ...clone(change) };
    const next = clone(document);
    try {
      update(next, clone(change) as Modifier<Document>);
    } catch (error) {
      throw new Refusal('BadValue', String(error));
    }
    if (text(next['_id']) !== text(document['_id']))
      throw new Refusal('BadValue', 'The field _id is immutable');
    return next;
  }

  /** Refuses what the collection's options or an index forbid; `except` is the state that it takes the place of. */
  #check(document: Document, except?: Document): void {
    const { timeField } = this.timeseries ?? {};
    if (timeField && !(document[timeField] instanceof Date))
      throw new Refusal(
        'BadValue',
        `'${timeField}' must be present and contain a valid BSON UTC datetime value`,
      );
    for (const index of this.indexes) {
      for (const [field, kind] of Object.entries(index.key)) {
        if (kind === '2dsphere' && !isPointOrNothing(valueAt(document, field)))
          throw new Refusal('CannotExtractGeoKeys', `Can't extract geo keys: ${text(document['_id'])}`);
      }
      const key = uniqueKey(index, document);
      const holder = key === undefined ? undefined : this.#taken.get(index.name)?.get(key);
      if (!holder || holder === except) continue;
      throw new Refusal(
        'DuplicateKey',
        `E11000 duplicate key error collection: ${this.name} index: ${index.name} dup key: ${key}`,
        { keyPattern: index.key },
      );
    }
  }

  #occupy(document: Document): void {
    for (const index of this.indexes) {
      const key = uniqueKey(index, document);
      if (key === undefined) continue;
      const taken = this.#taken.get(index.name) ?? new Map<string, Document>();
      this.#taken.set(index.name, taken.set(key, document));
    }
  }

  #vacate(document: Document): void {
    for (const index of this.indexes) {
      const key = uniqueKey(index, document);
      if (key !== undefined) this.#taken.get(index.name)?.delete(key);
    }
  }
}

/** Is it `{$set: …}` or `{$gt: …}` rather than a document or a value? */
const isOperators = (value: unknown): boolean =>
  typeof value === 'object' && value !== null && Object.keys(value)[0]?.startsWith('$') === true;

/** A document's value in a unique index; undefined when the index does not hold it, or is not unique. */
function uniqueKey(index: IndexSpec, document: Document): string | undefined {
  if (!index.unique && index.name !== '_id_') return undefined;
  const fields = Object.keys(index.key);
  if (index.sparse && fields.every((field) => valueAt(document, field) === undefined)) return undefined;
  if (index.partialFilterExpression && !matcher(index.partialFilterExpression)(document)) return undefined;
  return text(fields.map((field) => valueAt(document, field) ?? null));
}

function isPointOrNothing(value: unknown): boolean {
  if (value === undefined || value === null) return true;
  const { type, coordinates } = value as { type?: unknown; coordinates?: unknown };
  if (type !== 'Point' || !Array.isArray(coordinates) || coordinates.length !== 2) return false;
  const [lng, lat] = coordinates.map(Number);
  return Math.abs(lng ?? Number.NaN) <= 180 && Math.abs(lat ?? Number.NaN) <= 90;
}
