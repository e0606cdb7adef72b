import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Service, ServiceSchema } from 'moleculer';
import DbService from 'moleculer-db';
import MongooseAdapter from 'moleculer-db-adapter-mongoose';
import mongoose from 'mongoose';
import { brokerConfig } from '../lib/broker-config.ts';
import type { Mixin } from '../lib/define-service.ts';
import { healthOf } from '../lib/health.ts';

/** The part of MongoDB's query language that NeDB speaks too. */
export type Query = Record<string, unknown>;
export interface Change<T> {
  $set?: Partial<T>;
  $inc?: { [K in keyof T]?: number };
  $push?: { [K in keyof T]?: unknown };
  $unset?: { [K in keyof T]?: true };
}

/** A service's documents, the same on NeDB and on MongoDB. */
export interface Collection<T extends { _id: string }> {
  get(id: string): Promise<T | null>;
  findOne(query: Query): Promise<T | null>;
  /** `sort`: field names, a leading `-` for descending. */
  find(query: Query, options?: { sort?: string[]; limit?: number }): Promise<T[]>;
  /** False when a document with this id, or this value of a unique field, is there already. */
  insert(document: T): Promise<boolean>;
  /** Changes what matches, as one step for each document; how many were changed. */
  update(query: Query, change: Change<T>): Promise<number>;
}

/** `unique` fields must be unique where they are present. */
export interface Index {
  fields: string[];
  unique?: boolean;
}

/** What we use of moleculer-db's adapters: both have it. */
interface Adapter {
  findById(id: string): Promise<unknown>;
  findOne(query: Query): Promise<unknown>;
  find(filters: { query: Query; sort?: string[]; limit?: number }): Promise<unknown[]>;
  insert(document: unknown): Promise<unknown>;
  updateMany(query: Query, change: unknown): Promise<number>;
  entityToObject(entity: unknown): unknown;
  count(filters: { query: Query }): Promise<number>;
  db?: { ensureIndex?(options: { fieldName: string[]; unique: boolean; sparse: boolean }): Promise<void> };
}

const isDuplicate = (error: unknown): boolean =>
  error instanceof Error &&
  (('errorType' in error && error.errorType === 'uniqueViolated') ||
    ('code' in error && error.code === 11000));

function collectionOf<T extends { _id: string }>(adapter: Adapter): Collection<T> {
  // Records are written by this service alone, after contracts/ has checked them: the shape read is the shape written
  const read = (entity: unknown) => adapter.entityToObject(entity) as T;
  return {
    async get(id) {
      const found = await adapter.findById(id);
      return found ? read(found) : null;
    },
    async findOne(query) {
      const found = await adapter.findOne(query);
      return found ? read(found) : null;
    },
    async find(query, options = {}) {
      return (await adapter.find({ query, ...options })).map(read);
    },
    async insert(document) {
      try {
        await adapter.insert(document);
        return true;
      } catch (error) {
        if (isDuplicate(error)) return false;
        throw error;
      }
    },
    update: (query, change) => adapter.updateMany(query, change),
  };
}

/** moleculer-db's own actions would be callable by anybody on the broker. */
const noActions = {
  find: false,
  count: false,
  list: false,
  create: false,
  insert: false,
  get: false,
  update: false,
  remove: false,
};

/**
 * `this.store`: the documents of one collection. In MongoDB (`MONGO_URI`) or, for development, in an NeDB file in
 * DATA_DIR. Ids are our own strings. Shapes are checked at the door by contracts/, so the schema here holds none.
 */
export function store<T extends { _id: string }>(
  collection: string,
  indexes: Index[] = [],
): Mixin<{ store: Collection<T> }> {
  const adapters = new WeakMap<Service, Adapter>();
  return {
    mixins: [{ mixins: [DbService], actions: noActions }],
    merged(this: Service, schema: ServiceSchema & { adapter?: unknown; model?: unknown }) {
      const { mongoUri, dataDir } = brokerConfig(this.broker);
      if (mongoUri) {
        schema.model =
          mongoose.models[collection] ?? mongoose.model(collection, documentSchema(collection, indexes));
        schema.adapter = new MongooseAdapter(mongoUri);
      } else {
        mkdirSync(dataDir, { recursive: true });
        schema.adapter = new DbService.MemoryAdapter({ filename: join(dataDir, `${collection}.nedb`) });
      }
      const adapter = schema.adapter as Adapter;
      adapters.set(this, adapter);
      Object.assign(this, { store: collectionOf<T>(adapter) });
    },
    created(this: Service) {
      const adapter = adapters.get(this);
      healthOf(this.broker).add('db', async () => void (await adapter?.findOne({ _id: '-' })));
    },
    async started(this: Service) {
      const adapter = adapters.get(this);
      if (!adapter?.db?.ensureIndex) return;
      for (const { fields, unique = false } of indexes) {
        await adapter.db.ensureIndex({ fieldName: fields, unique, sparse: unique });
      }
    },
  };
}

function documentSchema(collection: string, indexes: Index[]) {
  const schema = new mongoose.Schema(
    { _id: String },
    { strict: false, versionKey: false, collection, minimize: false },
  );
  for (const { fields, unique = false } of indexes) {
    schema.index(Object.fromEntries(fields.map((field) => [field, 1])), { unique, sparse: unique });
  }
  return schema;
}
