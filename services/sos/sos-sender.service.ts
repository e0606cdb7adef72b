/**
 * What an alert sets in motion outside: messages to contacts with their retries, and waking the person on call. Role `sos`;
 * needs the SOS Redis and the providers, and accounts only for who has no card there. Owns the queue {sos-send}. Any job may run twice: what was done
 * stands in the alert's record.
 */
import { hostname } from 'node:os';
import { defineService } from '../../lib/define-service.ts';
import { createSosProviders } from '../../lib/providers/sos-providers.ts';
import { sealerOf } from '../../lib/sealed.ts';
import { cards } from '../../mixins/cards.ts';
import { queue } from '../../mixins/queue.ts';
import { shares } from '../../mixins/shares.ts';
import { type FollowJob, followQueue, stepTime, toFollow } from './follow-jobs.ts';
import { Messenger } from './messenger.ts';
import { SosRecords } from './records.ts';
import { Waker } from './waker.ts';
import { waysOf } from './ways.ts';

interface Parts {
  messenger: Messenger;
  waker: Waker;
}

/** A contact's link outlives any ride, ms. */
const linkForMs = 86_400_000;

const counters: [name: string, description: string, labelNames: string[]][] = [
  [
    'sos.messages.total',
    'Messages to emergency contacts, by outcome and by who sent them',
    ['outcome', 'from'],
  ],
  ['sos.resent.total', 'Messages sent again because it was not known whether they were', []],
  ['sos.exhausted.total', 'What reached nobody after every attempt', ['what']],
];

export default defineService({
  name: 'sos-sender',
  mixins: [
    shares(),
    cards(),
    queue<FollowJob, 'following'>({
      ...followQueue,
      // A job waits for providers most of its time
      concurrency: 32,
      async process(job) {
        const { messenger, waker } = (this as typeof this & { parts(): Parts }).parts();
        const stopTimer = this.broker.metrics.timer('sos.step.time', { step: job.kind });
        try {
          await (job.kind === 'send' ? messenger.send(job) : waker.wake(job));
        } finally {
          stopTimer();
        }
      },
      async onExhausted(job, error) {
        const { messenger, waker } = (this as typeof this & { parts(): Parts }).parts();
        if (job.data.kind === 'send') await messenger.giveUp(job.data, error);
        else await waker.giveUp(job.data, error);
      },
    }),
  ],
  state: () => ({ kept: undefined as Parts | undefined }),

  methods: {
    /** Made at the first use: a job may come before the service has started. */
    parts(): Parts {
      this.kept ??= this.makeParts();
      return this.kept;
    },

    makeParts(): Parts {
      const { broker, config, logger, sosRedis, cards: userCards } = this;
      const { metrics } = broker;
      for (const [name, description, labelNames] of counters)
        metrics.register({ type: 'counter', name, description, labelNames });
      metrics.register(stepTime);
      const providers = createSosProviders(config);
      const common = {
        records: new SosRecords(sosRedis, { replicas: 0, replicaWithinMs: 0 }),
        sealer: sealerOf(config),
        logger,
        metrics,
        hashSecret: config.hashSecret,
        follow: toFollow(this.following),
        now: Date.now,
      };
      return {
        messenger: new Messenger({
          ...common,
          ...waysOf(providers),
          devicesOf: (contacts) => userCards.devicesOf(contacts),
          cardOf: async (userId) =>
            (await userCards.read(userId)) ??
            (await this.call('accounts.card', { userId }, { timeout: 2000 })),
          linkOf: async ({ alertId, userId, tripId }) => {
            const subject = tripId === null ? { alertId } : { alertId, tripId };
            return (await this.shares.create({ userId, ttlMs: linkForMs, ...subject })).url;
          },
        }),
        waker: new Waker({ ...common, providers, onCallPhone: config.oncallPhone, source: hostname() }),
      };
    },
  },

  actions: {},

  async started() {
    this.parts();
  },
});
