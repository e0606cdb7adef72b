/**
 * Where a trip was, for 30 days (R9.2): a time series of each trip. `npm run migrate` makes it, and whoever writes it
 * when it starts. (tripId, timestamp) is a point's identity; a time series has no unique index, so its readers collapse
 * equals.
 */
import { type CollectionSpec, declareCollection } from '../../mixins/migrations.ts';

export const historyCollection = {
  name: 'location-history',
  // The same key as the index that MongoDB 6.3 and newer makes by itself; older ones need it said
  indexes: [{ fields: ['tripId', 'timestamp'] }],
  timeSeries: { timeField: 'timestamp', metaField: 'tripId', granularity: 'seconds', keepDays: 30 },
} as const satisfies CollectionSpec & { indexes: unknown };

declareCollection(historyCollection);
