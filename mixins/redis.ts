import type { Redis } from 'ioredis';
import type { Service, ServiceBroker } from 'moleculer';
import { brokerConfig } from '../lib/broker-config.ts';
import type { Mixin } from '../lib/define-service.ts';
import { healthOf } from '../lib/health.ts';
import {
  closeConnection,
  commandConnection,
  isReady,
  type RedisConnection,
  subscriberConnection,
} from '../lib/redis-client.ts';
import { parseRedisUrl, type RedisTarget } from '../lib/redis-url.ts';

/** The main Redis, or the one that SOS and the admin feed have to themselves. */
export type RedisName = 'main' | 'sos';

/** Where a named Redis is. */
export function redisTarget(broker: ServiceBroker, name: RedisName): RedisTarget {
  const config = brokerConfig(broker);
  const url = name === 'sos' ? (config.sosRedisUrl ?? config.redisUrl) : config.redisUrl;
  if (!url) throw new Error('REDIS_URL is not set, and no development Redis was started');
  const parsed = parseRedisUrl(url);
  // The configuration was checked; this is for what a stand-in put there
  if ('problem' in parsed) throw new Error(`The address of the ${name} Redis ${parsed.problem}`);
  return parsed.target;
}

/** Its trouble is logged; the commands that fail say so themselves. */
export function logTrouble(broker: ServiceBroker, connection: RedisConnection, what: object): void {
  connection.on('error', (error: Error) =>
    broker.logger.warn('Redis connection trouble', { ...what, error: error.message }),
  );
}

/** A connection for commands: bounded (lib/redis-client.ts), and it comes back by itself, however long that takes. */
export function connectRedis(broker: ServiceBroker, name: RedisName): RedisConnection {
  const connection = commandConnection(redisTarget(broker, name));
  logTrouble(broker, connection, { redis: name });
  return connection;
}

/** A connection for classic pub/sub, which does not subscribe again by itself. */
export function connectSubscriber(broker: ServiceBroker, name: RedisName): Redis {
  const connection = subscriberConnection(redisTarget(broker, name));
  logTrouble(broker, connection, { redis: name, subscriber: true });
  return connection;
}

/** A start waits so long for a Redis, ms: doors must open for an SOS without it. */
const startWaitMs = 2000;
/** What a start has waited for in vain: one wait for each Redis is enough. */
const absentAtStart = new WeakMap<ServiceBroker, Set<RedisName>>();

/** Connects, unless a probe's question has begun that already. A start goes on without a Redis that is away. */
export async function untilReady(
  broker: ServiceBroker,
  connection: RedisConnection,
  name: RedisName,
): Promise<void> {
  const absent = absentAtStart.get(broker) ?? new Set();
  absentAtStart.set(broker, absent);
  if (await isReady(connection, absent.has(name) ? 0 : startWaitMs)) return;
  absent.add(name);
  broker.logger.warn('Starting without Redis; it is tried again and again', { redis: name });
}

/** `this.redis` (main) or `this.sosRedis` (never a Cluster), connected while the service runs. */
export function redis<N extends RedisName = 'main'>(
  name: N = 'main' as N,
): Mixin<N extends 'sos' ? { sosRedis: Redis } : { redis: RedisConnection }> {
  const field = name === 'sos' ? 'sosRedis' : 'redis';
  const connections = new WeakMap<Service, RedisConnection>();
  return {
    created(this: Service) {
      const connection = connectRedis(this.broker, name);
      connections.set(this, connection);
      Object.assign(this, { [field]: connection });
      healthOf(this.broker).add(
        name === 'sos' ? 'sosRedis' : 'redis',
        async () => void (await connection.ping()),
      );
    },
    async started(this: Service) {
      const connection = connections.get(this);
      if (connection) await untilReady(this.broker, connection, name);
    },
    stopped(this: Service) {
      const connection = connections.get(this);
      if (connection) closeConnection(connection);
    },
  };
}
