/**
 * What an alert sets in motion outside: messages to contacts with their retries, and waking the person on call. Role `sos`;
 * needs the SOS Redis and the providers, nothing else. Owns the queue {sos-send}. Any job may run twice: what was done
 * stands in the alert's record.
 */
import { hostname } from 'node:os';
import { defineService } from '../../lib/define-service.ts';
import { createSosProviders } from '../../lib/providers/index.ts';
import { sealerOf } from '../../lib/sealed.ts';
import { queue } from '../../mixins/queue.ts';
import { redis } from '../../mixins/redis.ts';
import { type FollowJob, followQueue, toFollow } from './follow-jobs.ts';
import { Messenger } from './messenger.ts';
import { SosRecords } from './records.ts';
import { Waker } from './waker.ts';

interface Parts {
  messenger: Messenger;
  waker: Waker;
}

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
    redis('sos'),
    queue<FollowJob, 'following'>({
      ...followQueue,
      concurrency: 8,
      async process(job) {
        const { messenger, waker } = (this as typeof this & { parts(): Parts }).parts();
        if (job.kind === 'send') await messenger.send(job);
        else await waker.wake(job);
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
      const { broker, config, logger, sosRedis } = this;
      const { metrics } = broker;
      for (const [name, description, labelNames] of counters)
        metrics.register({ type: 'counter', name, description, labelNames });
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
        messenger: new Messenger({ ...common, sms: providers.sms }),
        waker: new Waker({ ...common, providers, onCallPhone: config.oncallPhone, source: hostname() }),
      };
    },
  },

  actions: {},

  async started() {
    this.parts();
  },
});
