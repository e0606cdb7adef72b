import { once } from 'node:events';
import { Redis } from 'ioredis';
import type { Service, ServiceBroker } from 'moleculer';
import { brokerConfig } from '../lib/broker-config.ts';
import type { Mixin } from '../lib/define-service.ts';
import { healthOf } from '../lib/health.ts';

/** The main Redis, or the one that SOS and the admin feed have to themselves. */
export type RedisName = 'main' | 'sos';

/** Where a named Redis is. */
export function redisUrl(broker: ServiceBroker, name: RedisName): string {
  const config = brokerConfig(broker);
  const url = name === 'sos' ? (config.sosRedisUrl ?? config.redisUrl) : config.redisUrl;
  if (!url) throw new Error('REDIS_URL is not set, and no development Redis was started');
  return url;
}

/**
 * A connection that fails a command after 2 s rather than hold it for ever, and reconnects for as long as it takes
 * (backoff to 2 s with jitter).
 */
export function connectRedis(
  broker: ServiceBroker,
  name: RedisName,
  extra: { subscriber?: boolean } = {},
): Redis {
  const connection = new Redis(redisUrl(broker, name), {
    lazyConnect: true,
    // ioredis lets this timer run after a disconnect; its 2 s would hold a process that has stopped
    disconnectTimeout: 50,
    commandTimeout: extra.subscriber ? undefined : 2000,
    maxRetriesPerRequest: extra.subscriber ? null : 2,
    retryStrategy: (attempt) => Math.min(2000, 50 * 2 ** Math.min(attempt, 6)) * (0.5 + Math.random() / 2),
  });
  connection.on('error', (error: Error) =>
    broker.logger.warn('Redis connection trouble', { redis: name, error: error.message }),
  );
  return connection;
}

/** Connects, unless a probe's question has begun that already. */
export async function untilReady(connection: Redis): Promise<void> {
  if (connection.status === 'wait') await connection.connect();
  else if (connection.status !== 'ready') await once(connection, 'ready');
}

/** `this.redis` (main) or `this.sosRedis`, connected while the service runs. */
export function redis<N extends RedisName = 'main'>(
  name: N = 'main' as N,
): Mixin<N extends 'sos' ? { sosRedis: Redis } : { redis: Redis }> {
  const field = name === 'sos' ? 'sosRedis' : 'redis';
  const connections = new WeakMap<Service, Redis>();
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
      if (connection) await untilReady(connection);
    },
    stopped(this: Service) {
      connections.get(this)?.disconnect();
    },
  };
}
