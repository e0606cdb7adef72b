import type { Point } from '../lib/geo.ts';

/** The part of MongoDB's query language that NeDB speaks too. */
export type Query = Record<string, unknown>;
export interface Change<T> {
  $set?: Partial<T>;
  $inc?: { [K in keyof T]?: number };
  $push?: { [K in keyof T]?: unknown };
  $unset?: { [K in keyof T]?: true };
}

export interface ReadOptions {
  /**
   * What is some seconds old will do: a secondary may answer, where there is one. Never for what decides a write, nor for
   * what somebody has just written.
   */
  stale?: boolean;
}

export interface FindOptions<F> extends ReadOptions {
  /** Field names, a leading `-` for descending. */
  sort?: string[];
  limit?: number;
  /** Only these, and `_id`. */
  fields?: readonly F[];
}

/** A GeoJSON point (RFC 7946): longitude before latitude. */
export interface GeoPoint {
  type: 'Point';
  coordinates: [lng: number, lat: number];
}
export const geoPoint = ({ lat, lng }: Point): GeoPoint => ({ type: 'Point', coordinates: [lng, lat] });

/** A service's documents, the same on NeDB and on MongoDB. Rejects with StoreUnavailableError while MongoDB is away. */
export interface Collection<T extends { _id: string }> {
  get(id: string, options?: ReadOptions): Promise<T | null>;
  findOne(query: Query, options?: ReadOptions): Promise<T | null>;
  find<F extends keyof T & string = keyof T & string>(
    query: Query,
    options?: FindOptions<F>,
  ): Promise<Pick<T, F | '_id'>[]>;
  /** False when a document with this id, or this value of a unique field, is there already. */
  insert(document: T): Promise<boolean>;
  /** Inserts what is not there yet, whatever else is; `duplicates` are the ids that were there (as in `insert`). */
  insertMany(documents: readonly T[]): Promise<{ inserted: number; duplicates: string[] }>;
  /** Changes what matches, as one step for each document; how many were changed. */
  update(query: Query, change: Change<T>): Promise<number>;
  /**
   * Puts each document in the place of the one with its id, if that is older by `version`, or where none is. Twice is
   * once, and late never goes back. Answers how many were taken; the others were there as new or newer.
   */
  replaceNewer(documents: readonly (T & { version: number })[]): Promise<number>;
  /**
   * The nearest first, at most `radiusM` metres away and `limit` many, of those that match `query`. `field` holds a
   * GeoPoint and has a geo index.
   */
  near(
    field: keyof T & string,
    point: Point,
    options: { radiusM: number; limit: number; query?: Query } & ReadOptions,
  ): Promise<{ document: T; distanceM: number }[]>;
}

/** The newest of each id, in the order in which the ids came. */
export function newestOfEach<T extends { _id: string; version: number }>(documents: readonly T[]): T[] {
  const newest = new Map<string, T>();
  for (const document of documents) {
    const other = newest.get(document._id);
    if (!other || other.version < document.version) newest.set(document._id, document);
  }
  return [...newest.values()];
}
