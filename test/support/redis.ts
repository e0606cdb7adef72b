import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Redis } from 'ioredis';
import { startRedis } from '../../lib/standins/redis.ts';

/** A Redis of a test's own. */
export interface TestRedis {
  /** For REDIS_URL. */
  url: string;
  /** A new connection; closed by `stop`. */
  connect(): Redis;
  /** The server goes away; its data stays. */
  halt(): Promise<void>;
  /** The server comes back with its data. */
  resume(): Promise<void>;
  /** Ends it and removes its data. */
  stop(): Promise<void>;
}

export async function startTestRedis(): Promise<TestRedis> {
  const dataDir = await mkdtemp(join(tmpdir(), 'ride-redis-'));
  let server = await startRedis({ dataDir });
  const url = server.socketPath;
  const clients: Redis[] = [];
  return {
    url,
    connect() {
      const client = new Redis({ path: url, disconnectTimeout: 50, retryStrategy: () => 20 });
      // Halting the server is part of tests; commands that fail say so themselves
      client.on('error', () => undefined);
      clients.push(client);
      return client;
    },
    halt: () => server.stop(),
    async resume() {
      server = await startRedis({ dataDir });
    },
    async stop() {
      for (const client of clients) client.disconnect();
      await server.stop();
      await rm(dataDir, { recursive: true });
    },
  };
}
