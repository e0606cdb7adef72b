/**
 * Is everything all right on the way? Watches the positions of active trips, asks the rider when something is wrong, and alarms
 * admins when nobody answers or the answer is no. Emits safety.asked, for the rider's own devices. Owns the questions in the SOS
 * Redis and the shards' leases in the main one. Never says anything to the trip's room or its driver.
 */
import type { MetricRegistry } from 'moleculer';
import { defineService } from '../../lib/define-service.ts';
import { AppError } from '../../lib/errors.ts';
import { shardCount } from '../../lib/location-keys.ts';
import { redis } from '../../mixins/redis.ts';
import { QuestionStore } from './question-store.ts';
import { answer, ask, type SafetyEvent } from './questions.ts';
import { type SafetyRules, safetyRules } from './rules.ts';
import { ShardLeases } from './shard-leases.ts';
import { ShardReader, type Suspicion } from './shard-reader.ts';

/** A reader without a sign of life for so long is dead, ms: its shards are another's then. */
const leaseMs = 4000;
/** How late a reminder or an alarm may be, ms. */
const dueEveryMs = 500;
const asksAtOnce = 50;

interface Parts {
  rules: SafetyRules;
  leases: ShardLeases;
  reader: ShardReader;
  questions: QuestionStore;
}

function registerMetrics(metrics: MetricRegistry): void {
  const counters: [string, string[], string][] = [
    ['safety.questions.total', ['kind'], 'Riders asked whether they are OK'],
    ['safety.alarms.total', ['kind', 'why'], 'Alarms to admins: silence, or the rider said no'],
    ['safety.answers.total', ['safe'], 'Answers of riders'],
    ['safety.failures.total', ['step'], 'Steps that failed and are tried again'],
  ];
  for (const [name, labelNames, description] of counters)
    metrics.register({ type: 'counter', name, labelNames, description });
  const gauges: [string, string][] = [
    ['safety.shards', 'Shards that this process reads'],
    ['safety.trips', 'Trips that this process watches'],
    ['safety.unplanned', 'Of these, trips whose plan is not known: nothing is noticed on them'],
    ['safety.deaf', '1 while most trips are silent at once: lost signals are not asked about'],
  ];
  for (const [name, description] of gauges) metrics.register({ type: 'gauge', name, description });
}

export default defineService({
  name: 'safety',
  mixins: [redis(), redis('sos')],
  state: () => ({
    kept: undefined as Parts | undefined,
    loops: [] as { timer: NodeJS.Timeout; running: Promise<void> }[],
    wasDeaf: false,
  }),

  methods: {
    parts(): Parts {
      if (!this.kept) throw new AppError('UNAVAILABLE');
      return this.kept;
    },

    makeParts(): Parts {
      const rules = safetyRules(this.config);
      const reader = this.broker.nodeID;
      return {
        rules,
        leases: new ShardLeases(this.redis, { reader, leaseMs, shards: shardCount }),
        reader: new ShardReader({
          redis: this.redis,
          rules,
          plansOf: async (ids) => (await this.call('trips.plans', { ids })).plans,
          onTrouble: (text, error) => this.failed('plans', text, error),
        }),
        questions: new QuestionStore(this.sosRedis, rules.questions),
      };
    },

    failed(step: 'read' | 'plans' | 'ask' | 'due', text: string, error: unknown): void {
      this.broker.metrics.increment('safety.failures.total', { step });
      this.logger.warn(text, { error });
    },

    count(events: readonly SafetyEvent[]): void {
      for (const { kind, data } of events)
        if (kind === 'safety.alarm')
          this.broker.metrics.increment('safety.alarms.total', { kind: data.kind, why: data.why });
    },

    /** Reads what is new, and asks where something is wrong. */
    async readShards(): Promise<void> {
      const { leases, reader } = this.parts();
      const { now, shards } = await leases.renew();
      const suspicions = await reader.read(shards, now);
      this.tellState();
      for (let start = 0; start < suspicions.length; start += asksAtOnce)
        await Promise.all(
          suspicions.slice(start, start + asksAtOnce).map((suspicion) => this.askRider(suspicion)),
        );
    },

    tellState(): void {
      const { metrics } = this.broker;
      const { shards, trips, unplanned, isDeaf } = this.parts().reader.state;
      metrics.set('safety.shards', shards);
      metrics.set('safety.trips', trips);
      metrics.set('safety.unplanned', unplanned);
      metrics.set('safety.deaf', isDeaf ? 1 : 0);
      if (isDeaf && !this.wasDeaf)
        this.logger.error('Most trips are silent at once: lost signals are not asked about', { trips });
      this.wasDeaf = isDeaf;
    },

    /** What fails is tried again at the next reading: the matter goes on. */
    async askRider({ kind, watch: { plan, last } }: Suspicion): Promise<void> {
      const { questions, reader, rules } = this.parts();
      const { tripId, riderId, driverId } = plan;
      const now = Date.now();
      const location = last && { lat: last.lat, lng: last.lng, accuracy: last.accuracy, at: last.at };
      try {
        const made = await questions.change(tripId, now, (record) =>
          ask(
            record ?? { tripId, riderId, driverId, byKind: {} },
            kind,
            now,
            rules.questions,
            location ?? undefined,
          ),
        );
        if (!made) return;
        reader.quiet(tripId, kind, made.quietUntil);
        if (!made.asked) return;
        this.broker.metrics.increment('safety.questions.total', { kind });
        await this.emit('safety.asked', {
          userId: riderId,
          tripId,
          kind,
          answerBy: now + rules.questions.answerWithinMs,
        });
      } catch (error) {
        this.failed('ask', 'A rider could not be asked yet', error);
      }
    },

    /** Alarms where nobody answered, and tells again what is open: the first word can be lost. */
    async lookAtDue(): Promise<void> {
      const { alarms, remind, failed } = await this.parts().questions.overtakeDue(Date.now());
      this.count(alarms);
      for (const { tripId, error } of failed)
        this.failed('due', `Questions of trip ${tripId} could not be looked at yet`, error);
      await Promise.all(remind.map((check) => this.emit('safety.asked', check)));
    },

    /** Runs `work` again and again, each time `everyMs` after the last has ended. */
    repeat(step: 'read' | 'due', everyMs: number, work: () => Promise<void>): void {
      const loop = {
        running: Promise.resolve(),
        timer: setTimeout(() => {
          loop.running = work()
            .catch((error: unknown) => this.failed(step, 'Safety checks are behind', error))
            .finally(() => {
              const index = this.loops.indexOf(loop);
              if (index < 0) return;
              this.loops.splice(index, 1);
              this.repeat(step, everyMs, work);
            });
        }, everyMs),
      };
      this.loops.push(loop);
    },
  },

  actions: {
    answer: {
      permissions: 'user',
      async handler(ctx) {
        const { tripId, safe } = ctx.params;
        const caller = ctx.meta.user;
        // By the question itself, which needs neither trips nor the DB
        const made = await this.parts().questions.change(tripId, Date.now(), (record) =>
          record && record.riderId === caller?.id ? answer(record, safe) : null,
        );
        if (!made) {
          const trip = await ctx.call('trips.authorize', { id: tripId, as: 'watch' });
          // The same for who drives, whether there is a question or not
          throw new AppError(trip.riderId === caller?.id ? 'SAFETY_NOT_ASKED' : 'TRIP_FORBIDDEN');
        }
        this.broker.metrics.increment('safety.answers.total', { safe: String(safe) });
        this.count(made.events);
        return null;
      },
    },

    open: {
      permissions: 'user',
      async handler(ctx) {
        const found = await this.parts().questions.open(ctx.params.tripId);
        return { checks: found?.riderId === ctx.meta.user?.id ? (found?.checks ?? []) : [] };
      },
    },
  },

  async started() {
    registerMetrics(this.broker.metrics);
    this.kept = this.makeParts();
    this.repeat('read', this.config.safetyReadEveryMs, () => this.readShards());
    // Apart from the main Redis: what is open must end in an alarm without it
    this.repeat('due', dueEveryMs, () => this.lookAtDue());
  },

  async stopped() {
    const loops = this.loops.splice(0);
    for (const { timer } of loops) clearTimeout(timer);
    await Promise.all(loops.map(({ running }) => running));
    await this.kept?.leases
      .release()
      .catch((error: unknown) => this.logger.warn('Shards wait for their lease to end', { error }));
  },
});
