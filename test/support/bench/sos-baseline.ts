/**
 * What an SOS would be with a plain Bull queue: one job an alert, the same writes one after the other, each contact's message a
 * job. A worker for benchmarks, in a process of its own: `node sos-baseline.ts REDIS_SOCKET DB_FILE HASH_SECRET KEYS`.
 */
import Bull from 'bull';
import { Redis } from 'ioredis';
import DbService from 'moleculer-db';
import { createSealer, parseSealKeys } from '../../../lib/sealed.ts';
import { cardKey } from '../../../mixins/cards.ts';
import { openContacts } from '../../../services/sos/contact-messages.ts';

export const baselineQueue = 'baseline';
export const baselineSends = 'baseline-send';
export const baselineFeed = '{baseline}:feed';

/** What the queue carries: as much as an alert of ours says. */
export interface BaselineAlert {
  alertId: string;
  userId: string;
  tripId: string;
  acceptedAt: number;
  location: object;
}

/** A queue on a Redis of this machine, with Bull's own defaults but for what finished jobs leave behind. */
export function bullOn<D>(
  name: string,
  socketPath: string,
): { queue: Bull.Queue<D>; close(): Promise<void> } {
  const connections: Redis[] = [];
  const queue = new Bull<D>(name, {
    prefix: `{${name}}`,
    createClient(_type, options) {
      const own = {
        path: socketPath,
        maxRetriesPerRequest: null,
        enableReadyCheck: false,
        disconnectTimeout: 50,
      };
      const connection = new Redis({ ...options, ...own });
      connections.push(connection);
      return connection;
    },
    defaultJobOptions: { removeOnComplete: true },
  });
  return {
    queue,
    async close() {
      await queue.close();
      for (const connection of connections) connection.disconnect();
    },
  };
}

const concurrency = 50;

async function work(socketPath: string, file: string, hashSecret: string, keys: string): Promise<void> {
  const redis = new Redis({ path: socketPath });
  const sealer = createSealer(parseSealKeys(keys) ?? []);
  const adapter = new DbService.MemoryAdapter({ filename: file });
  await adapter.connect();
  const { queue: sends } = bullOn<object>(baselineSends, socketPath);
  const { queue: alerts } = bullOn<BaselineAlert>(baselineQueue, socketPath);
  await alerts.process(concurrency, async ({ data }) => {
    const { alertId, userId, tripId, acceptedAt } = data;
    const card = await redis.hgetall(cardKey(userId));
    const record = {
      userId,
      tripId,
      acceptedAt,
      status: 'active',
      name: card.name ?? '',
      doc: JSON.stringify(data),
    };
    await redis.hset(`baseline:alert:${alertId}`, record);
    await redis.rpush(`baseline:log:${alertId}`, JSON.stringify({ at: acceptedAt, what: 'raised' }));
    await redis.zadd('baseline:open', acceptedAt, alertId);
    await redis.xadd(baselineFeed, '*', 'kind', 'sos.triggered', 'at', acceptedAt, 'data', record.doc);
    await adapter.insert({ _id: alertId, ...record });
    for (const { key, phone } of openContacts(sealer, hashSecret, card.contacts ?? '')) {
      await redis.hset(`baseline:alert:${alertId}`, `m:${key}`, JSON.stringify({ status: 'queued' }));
      await sends.add({ alertId, key, to: sealer.seal(phone) });
    }
  });
}

if (process.argv[1] === import.meta.filename) {
  const [socketPath = '', file = '', hashSecret = '', keys = ''] = process.argv.slice(2);
  await work(socketPath, file, hashSecret, keys);
}
