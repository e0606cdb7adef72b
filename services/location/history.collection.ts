/**
 * Where a trip was, for 30 days (R9.2): a time series of each trip. Made by the service that writes it, or by
 * `npm run migrate`. (tripId, timestamp) is a point's identity.
 */
import type { Update } from '../../contracts/location.ts';
import type { TimeSeriesSpec } from '../../mixins/time-series.ts';

export const historyCollection = {
  name: 'location-history',
  // The same key as the index that MongoDB 6.3 and newer makes by itself; older ones need it said
  indexes: [{ fields: ['tripId', 'timestamp'] }],
  timeSeries: { timeField: 'timestamp', metaField: 'tripId', granularity: 'seconds', keepDays: 30 },
} as const satisfies TimeSeriesSpec<Update> & { indexes: unknown };
