import { z } from 'zod';
import { isoTime, readAgainMs } from './common.ts';
import { deliveredEvent, feedCursor } from './feed.ts';

export const admin = {
  description: 'What happens, for those who watch.',
  actions: {
    events: {
      summary: 'Events in the order in which they happened: those after an event, or the newest.',
      params: z.object({
        after: feedCursor
          .optional()
          .describe('The `next` of the page before, or the id of an event; `0` for the oldest'),
        limit: z.coerce.number().int().min(1).max(1000).default(100),
      }),
      result: z.object({
        events: z.array(deliveredEvent.extend({ at: isoTime }).meta({ id: 'FeedEvent' })),
        next: feedCursor.describe('Pass it as `after` for what comes next, now or later'),
        resync: z
          .boolean()
          .describe('True when some events after `after` are no longer kept: these are the oldest that are'),
      }),
      repeatAfterMs: readAgainMs,
    },
  },
  events: {},
};
