import type { Redis } from 'ioredis';
import type { Service } from 'moleculer';
import type { Mixin } from '../lib/define-service.ts';
import { FeedReader } from '../lib/feed-reader.ts';
import { connectRedis, redis } from './redis.ts';

/** `this.feedReader`, and the SOS Redis that it reads. Reads only while somebody is subscribed. */
export const feedReader = (): Mixin<{ feedReader: FeedReader; sosRedis: Redis }> => ({
  mixins: [redis('sos')],
  created(this: Service & { sosRedis: Redis; feedReader?: FeedReader }) {
    this.feedReader = new FeedReader({
      redis: this.sosRedis,
      // Never a Cluster (lib/config.ts)
      connect: () => connectRedis(this.broker, 'sos') as Redis,
      onTrouble: (text, error) => this.logger.warn(text, { error }),
    });
  },
  stopped(this: Service & { feedReader?: FeedReader }) {
    this.feedReader?.close();
  },
});
