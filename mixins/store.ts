import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Service, ServiceSchema } from 'moleculer';
import DbService from 'moleculer-db';
import { brokerConfig } from '../lib/broker-config.ts';
import type { Mixin } from '../lib/define-service.ts';
import { healthOf } from '../lib/health.ts';
import type { Collection } from './collection.ts';
import { mongoCollection } from './collection-mongo.ts';
import { type NedbAdapter, nedbCollection } from './collection-nedb.ts';
import { type CollectionSpec, declareCollection, type Index } from './migrations.ts';
import { PooledAdapter } from './pooled-adapter.ts';

export type { Change, Collection } from './collection.ts';

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
 *
 * A service starts also while MongoDB is away, after 3 s: what needs the DB is refused (UNAVAILABLE) until it is there.
 */
export function store<T extends { _id: string }>(
  collection: string,
  indexes: Index[] = [],
  options: Pick<CollectionSpec, 'timeSeries'> = {},
): Mixin<{ store: Collection<T> }> {
  const spec = { name: collection, indexes, ...options };
  declareCollection(spec);
  const collections = new WeakMap<Service, Collection<T>>();
  return {
    mixins: [{ mixins: [DbService], actions: noActions }],
    merged(this: Service, schema: ServiceSchema & { adapter?: unknown }) {
      const { mongoUri, dataDir } = brokerConfig(this.broker);
      let made: Collection<T>;
      if (mongoUri) {
        const adapter = new PooledAdapter(mongoUri, spec);
        schema.adapter = adapter;
        made = mongoCollection<T>(spec.name, () => adapter.database());
      } else {
        mkdirSync(dataDir, { recursive: true });
        schema.adapter = new DbService.MemoryAdapter({ filename: join(dataDir, `${spec.name}.nedb`) });
        made = nedbCollection<T>(schema.adapter as NedbAdapter);
      }
      collections.set(this, made);
      Object.assign(this, { store: made });
    },
    created(this: Service) {
      healthOf(this.broker).add('db', async () => void (await collections.get(this)?.get('-')));
    },
    async started(this: Service & { adapter?: Partial<NedbAdapter> | PooledAdapter }) {
      const { adapter } = this;
      if (!adapter || adapter instanceof PooledAdapter) return;
      for (const { fields, unique = false, geo = false } of indexes)
        if (!geo) await adapter.db?.ensureIndex({ fieldName: fields, unique, sparse: unique });
    },
  };
}
