import type { ServiceBroker } from 'moleculer';
import mongoose, { type mongo } from 'mongoose';
import { backoffMs, pause } from '../lib/backoff.ts';
import { brokerConfig } from '../lib/broker-config.ts';
import { logSlowQueries } from './slow-queries.ts';

/** An operation gets an answer or an error within this time, whatever it waits for: a server, a connection, a socket. ms */
export const operationMs = 2500;

/** MongoDB is away, or is not prepared yet: try again. `isConnectionTrouble` knows it by its name. */
export class StoreUnavailableError extends Error {
  constructor(cause?: unknown) {
    super('MongoDB cannot be used at the moment', { cause });
    this.name = 'StoreUnavailableError';
  }
}

/**
 * Codes that say "not now": no primary, no majority, shutting down, interrupted, out of time. From "retryable errors"
 * and "not writable primary errors" of https://github.com/mongodb/specifications
 */
const notNow = new Set([
  6, 7, 50, 64, 89, 91, 100, 134, 189, 262, 9001, 10_107, 11_600, 11_602, 13_435, 13_436,
]);

/** Does this code of an answer say "not now", rather than that something is wrong with the request? */
export const saysNotNow = (code: unknown): boolean => notNow.has(Number(code));

/** Is the server away, or the write not safe yet, rather than something wrong with the request? */
export function isAway(error: unknown): boolean {
  if (error instanceof StoreUnavailableError) return true;
  if (!(error instanceof Error)) return false;
  if (error instanceof mongoose.mongo.MongoServerError) {
    // A bulk write carries what stopped it as if a server had answered that
    if ((error.errorResponse as unknown) instanceof Error) return isAway(error.errorResponse);
    return error.name === 'MongoWriteConcernError' || saysNotNow(error.code);
  }
  return /^Mongo\w*(Network|Selection|Timeout|NotConnected|Closed|Cleared|Expired)\w*Error$/.test(error.name);
}

interface Pool {
  /** Connects, unless that has been done; rejects when MongoDB does not answer within 2 s. */
  connect(): Promise<mongo.Db>;
  connection: mongoose.Connection;
  /** Whoever acquired it needs it no more; the last one closes it. */
  release(): Promise<void>;
}

interface SharedPool extends Omit<Pool, 'release'> {
  users: number;
  close(): Promise<void>;
}

const pools = new WeakMap<ServiceBroker, SharedPool>();

/**
 * The one connection pool of the process, for all of its services: MONGO_POOL_SIZE connections to each server of the
 * replica set. Writes are acknowledged by a majority, from its journal. Reads go to the primary unless they say otherwise
 * themselves: a preference on the connection would count for everything that is done with it.
 */
export function acquirePool(broker: ServiceBroker): Pool {
  const pool = pools.get(broker) ?? makePool(broker);
  pools.set(broker, pool);
  pool.users++;
  let released = false;
  return {
    connect: pool.connect,
    connection: pool.connection,
    async release() {
      if (released) return;
      released = true;
      if (--pool.users > 0) return;
      pools.delete(broker);
      await pool.close();
    },
  };
}

function makePool(broker: ServiceBroker): SharedPool {
  const { mongoUri = '', mongoPoolSize } = brokerConfig(broker);
  const client = new mongoose.mongo.MongoClient(mongoUri, {
    appName: 'ride-safety',
    maxPoolSize: mongoPoolSize,
    writeConcern: { w: 'majority', journal: true },
    readPreference: 'primary',
    // A server that went away is noticed, and one that came back is used, in about 2 s
    serverSelectionTimeoutMS: 2000,
    connectTimeoutMS: 2000,
    heartbeatFrequencyMS: 2000,
    timeoutMS: operationMs,
    // A field without value is left out, as in NeDB, instead of becoming null
    ignoreUndefined: true,
    monitorCommands: true,
  });
  logSlowQueries(client, broker.logger);
  // For moleculer-db's own methods
  const connection = mongoose.createConnection();
  let connecting: Promise<mongo.Db> | undefined;
  return {
    users: 0,
    connection,
    connect() {
      connecting ??= client.connect().then(
        () => {
          if (connection.readyState === mongoose.ConnectionStates.disconnected) connection.setClient(client);
          return client.db();
        },
        (error: unknown) => {
          connecting = undefined;
          throw error;
        },
      );
      return connecting;
    },
    async close() {
      // Sockets are cut: with a server that is silent there is no end to wait for
      await client.close(true);
    },
  };
}

/** Tries until it works or `signal` is aborted; each failure is shown. Waits 0.25 s, doubled up to `maxMs`. */
export async function untilDone(
  attempt: () => Promise<void>,
  options: { signal: AbortSignal; maxMs: number; onFailure: (error: unknown, waitMs: number) => void },
): Promise<void> {
  const { signal, maxMs, onFailure } = options;
  for (let tries = 0; !signal.aborted; tries++) {
    try {
      await attempt();
      return;
    } catch (error) {
      if (signal.aborted) return;
      const waitMs = backoffMs(tries, { firstMs: 250, maxMs });
      onFailure(error, waitMs);
      await pause(waitMs, signal);
    }
  }
}
