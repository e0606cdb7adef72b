import type { Service } from 'moleculer';
import type { Mixin } from '../lib/define-service.ts';
import { isConnectionTrouble } from '../lib/errors.ts';
import { WriteBehind } from '../lib/write-behind.ts';
import type { Collection } from './collection.ts';

export interface ProjectionFields<T> {
  /**
   * Copies a record to the store soon, whatever the DB does now. Only for records whose truth is elsewhere: what is
   * dropped (logged, counted) has to be copied again from there.
   */
  project: (record: T) => void;
}

/** A stop of the whole process has 8 s, ms. */
const stopWithinMs = 2000;

/**
 * `this.project(record)` for a service with a store: written by `replaceNewer`, many at once, and kept in memory while
 * the DB is away (60 s of it and more), `limit` records at most. Metrics: `store.behind.waiting`, `store.behind.dropped`.
 */
export function projection<T extends { _id: string; version: number }>(
  options: { limit?: number } = {},
): Mixin<ProjectionFields<T>> {
  const queues = new WeakMap<Service, WriteBehind<T>>();
  return {
    created(this: Service & { store?: Collection<T> }) {
      const { metrics } = this.broker;
      const labels = { service: this.name };
      metrics.register({
        type: 'gauge',
        name: 'store.behind.waiting',
        labelNames: ['service'],
        description: 'Records that wait to be written to the DB',
      });
      metrics.register({
        type: 'counter',
        name: 'store.behind.dropped',
        labelNames: ['service', 'reason'],
        description: 'Records that were dropped before they were written to the DB',
      });
      const queue = new WriteBehind<T>({
        keyOf: ({ _id }) => _id,
        isNewer: (record, than) => record.version > than.version,
        write: async (batch) => {
          await this.store?.replaceNewer(batch);
          metrics.set('store.behind.waiting', queue.size - batch.length, labels);
        },
        isAway: isConnectionTrouble,
        onDrop: ({ _id }, reason, error) => {
          metrics.increment('store.behind.dropped', { ...labels, reason });
          this.logger.error('A record was not copied to the DB', { id: _id, reason, error });
        },
        onWait: (error, waitMs) =>
          this.logger.warn('Records wait for the DB', {
            waiting: queue.size,
            waitMs: Math.round(waitMs),
            error,
          }),
        limit: options.limit ?? 50_000,
        batchSize: 500,
      });
      queues.set(this, queue);
      const fields: ProjectionFields<T> = {
        project: (record) => {
          queue.add(record);
          metrics.set('store.behind.waiting', queue.size, labels);
        },
      };
      Object.assign(this, fields);
    },
    async stopped(this: Service) {
      const left = (await queues.get(this)?.stop(stopWithinMs)) ?? [];
      if (left.length > 0)
        this.logger.error('Stopped before everything was copied to the DB', { left: left.length });
    },
  };
}
