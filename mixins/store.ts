import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Service, ServiceSchema } from 'moleculer';
import DbService from 'moleculer-db';
import type { mongo } from 'mongoose';
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

/** What a mixin makes of its collection, on either database. */
interface Backends<C> {
  /** `database` resolves once MongoDB is there and prepared. */
  onMongo(database: () => Promise<mongo.Db>): C;
  onNedb(adapter: NedbAdapter): C;
  /** NeDB's indexes. */
  prepareNedb(db: NedbAdapter['db']): Promise<void>;
}

/**
 * `this.<field>`: one collection in MongoDB (`MONGO_URI`) or, for development, in an NeDB file in DATA_DIR, open while the
 * service runs.
 *
 * A service starts also while MongoDB is away, after 3 s: what needs the DB is refused (UNAVAILABLE) until it is there.
 */
export function collectionMixin<F extends string, C>(
  spec: CollectionSpec,
  field: F,
  backends: Backends<C>,
): Mixin<Record<F, C>> {
  declareCollection(spec);
  return {
    mixins: [{ mixins: [DbService], actions: noActions }],
    merged(this: Service, schema: ServiceSchema & { adapter?: unknown }) {
      const { mongoUri, dataDir } = brokerConfig(this.broker);
      if (mongoUri) {
        const adapter = new PooledAdapter(mongoUri, spec);
        schema.adapter = adapter;
        Object.assign(this, { [field]: backends.onMongo(() => adapter.database()) });
      } else {
        mkdirSync(dataDir, { recursive: true });
        schema.adapter = new DbService.MemoryAdapter({ filename: join(dataDir, `${spec.name}.nedb`) });
        Object.assign(this, { [field]: backends.onNedb(schema.adapter as NedbAdapter) });
      }
    },
    created(this: Service & { adapter?: unknown }) {
      healthOf(this.broker).add('db', async () => {
        if (this.adapter instanceof PooledAdapter) await (await this.adapter.database()).command({ ping: 1 });
      });
    },
    async started(this: Service & { adapter?: Partial<NedbAdapter> | PooledAdapter }) {
      const { adapter } = this;
      if (adapter && !(adapter instanceof PooledAdapter) && adapter.db)
        await backends.prepareNedb(adapter.db);
    },
  };
}

/** `this.store`: the documents of one collection. Ids are our own strings. Shapes are checked at the door by contracts/. */
export function store<T extends { _id: string }>(
  collection: string,
  indexes: Index[] = [],
  options: Pick<CollectionSpec, 'timeSeries'> = {},
): Mixin<{ store: Collection<T> }> {
  const spec = { name: collection, indexes, ...options };
  return collectionMixin(spec, 'store', {
    onMongo: (database) => mongoCollection<T>(spec.name, database),
    onNedb: (adapter) => nedbCollection<T>(adapter),
    async prepareNedb(db) {
      for (const { fields, unique = false, geo = false, expires = false } of indexes)
        if (!geo)
          await db.ensureIndex({
            fieldName: fields,
            unique,
            sparse: unique,
            ...(expires ? { expireAfterSeconds: 0 } : {}),
          });
    },
  });
}
