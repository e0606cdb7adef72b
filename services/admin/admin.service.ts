/** What administrators read over REST. Owns no data: the events are those of the feed on the SOS Redis. */
import { adminRoles } from '../../contracts/common.ts';
import { defineService } from '../../lib/define-service.ts';
import { readNewest, readPage } from '../../lib/feed-stream.ts';
import { redis } from '../../mixins/redis.ts';

const beginning = '0-0';

export default defineService({
  name: 'admin',
  mixins: [redis('sos')],

  actions: {
    events: {
      permissions: adminRoles,
      rest: { method: 'GET', path: '/admin/events' },
      async handler(ctx) {
        const { after, limit } = ctx.params;
        const asked = after === undefined ? null : await readPage(this.sosRedis, after, limit);
        const resync = asked?.outOfReach ?? false;
        const { events } = resync
          ? await readPage(this.sosRedis, beginning, limit)
          : (asked ?? { events: await readNewest(this.sosRedis, limit) });
        return {
          events: events.map((event) => ({ ...event, at: new Date(event.at).toISOString() })),
          // Nothing came: the same place again
          next: events.at(-1)?.id ?? (resync ? beginning : (after ?? beginning)),
          resync,
        };
      },
    },
  },
});
