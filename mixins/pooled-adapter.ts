import type { Service, ServiceBroker } from 'moleculer';
import MongooseAdapter from 'moleculer-db-adapter-mongoose';
import mongoose, { type mongo } from 'mongoose';
import { pause } from '../lib/backoff.ts';
import { type CollectionSpec, MigrationConflict, migrate } from './migrations.ts';
import { acquirePool, operationMs, StoreUnavailableError, untilDone } from './mongo.ts';

/** How long a service waits for MongoDB when it starts, ms. */
const startWaitMs = 3000;

/**
 * moleculer-db's mongoose adapter on the process's one pool. The original connects through mongoose's default connection,
 * tries for ever while its service starts, and closes that connection for every other service when it stops.
 */
export class PooledAdapter extends MongooseAdapter<mongoose.Document> {
  readonly #spec: CollectionSpec;
  readonly #stopping = new AbortController();
  #pool: ReturnType<typeof acquirePool> | undefined;
  #prepared: mongo.Db | undefined;
  #opening: Promise<void> = Promise.resolve();

  constructor(uri: string, spec: CollectionSpec) {
    super(uri);
    this.#spec = spec;
  }

  override init(broker: ServiceBroker, service: Service): void {
    this.broker = broker;
    this.service = service;
    // Here, and not when it connects, so that an address that is none ends the start with an error
    this.#pool = acquirePool(broker);
  }

  /** Begins to connect and to prepare the collection, and waits 3 s at most; goes on trying until it is done. */
  override async connect(): Promise<void> {
    const pool = this.#pool;
    if (!pool) throw new Error('The adapter was not initialised');
    this.#opening = untilDone(() => this.#prepare(pool), {
      signal: this.#stopping.signal,
      maxMs: 5000,
      onFailure: (error, waitMs) => {
        const line = { collection: this.#spec.name, waitMs: Math.round(waitMs), error };
        if (error instanceof MigrationConflict) this.service.logger.error('A migration cannot be made', line);
        else this.service.logger.warn('MongoDB is not there yet', line);
      },
    });
    if (!(await this.#openedWithin(startWaitMs)))
      this.service.logger.warn('Started without MongoDB', { collection: this.#spec.name });
  }

  override async disconnect(): Promise<void> {
    this.#stopping.abort();
    await this.#pool?.release();
    await this.#opening;
  }

  /** The database once it is there and prepared. Rejects with StoreUnavailableError when that takes too long. */
  async database(): Promise<mongo.Db> {
    if (!this.#prepared && !(this.#pool && (await this.#openedWithin(operationMs))))
      throw new StoreUnavailableError();
    if (!this.#prepared) throw new StoreUnavailableError();
    return this.#prepared;
  }

  async #prepare(pool: ReturnType<typeof acquirePool>): Promise<void> {
    const db = await pool.connect();
    await migrate(db, this.#spec, this.broker.nodeID);
    // For moleculer-db's own methods; strictQuery would leave conditions on fields out that the schema does not name
    const schema = new mongoose.Schema(
      { _id: String },
      {
        strict: false,
        strictQuery: false,
        versionKey: false,
        minimize: false,
        collection: this.#spec.name,
        autoCreate: false,
        autoIndex: false,
        bufferCommands: false,
      },
    );
    const { connection } = pool;
    // Mongoose infers a model's documents from the schema, which has nothing but the id
    this.model = (connection.models[this.#spec.name] ??
      connection.model(this.#spec.name, schema)) as unknown as typeof this.model;
    this.#prepared = db;
  }

  async #openedWithin(ms: number): Promise<boolean> {
    const waited = new AbortController();
    const signal = AbortSignal.any([this.#stopping.signal, waited.signal]);
    await Promise.race([this.#opening, pause(ms, signal)]);
    waited.abort();
    return this.#prepared !== undefined;
  }
}
