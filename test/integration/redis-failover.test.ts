import { setTimeout as pause } from 'node:timers/promises';
import { afterEach, describe, expect, test } from '@jest/globals';
import type { Service, ServiceBroker } from 'moleculer';
import { shardKeys, shardOf } from '../../lib/location-keys.ts';
import { type ProviderSimulator, startProviderSimulator } from '../../lib/standins/providers.ts';
import type { Sessions } from '../../mixins/sessions.ts';
import { activeTrip, aracaju, type ClientSocket, connectSocket, newPhone } from '../support/clients.ts';
import { eventually } from '../support/eventually.ts';
import { startTestRedis, type TestRedis } from '../support/redis.ts';
import { type RedisTopology, startCluster, startSentinel } from '../support/redis-topology.ts';
import { type System, startSystem } from '../support/system.ts';

let redis: RedisTopology | undefined;
let sosRedis: TestRedis | undefined;
let simulator: ProviderSimulator | undefined;
let system: System | undefined;
const sockets: ClientSocket[] = [];
let writers: { stop(): Promise<void> }[] = [];

afterEach(async () => {
  // Also when the test has failed: they would go on through all later files of the process
  await Promise.all(writers.map((writer) => writer.stop()));
  writers = [];
  for (const socket of sockets.splice(0)) socket.close();
  await system?.stop();
  await simulator?.stop();
  await redis?.stop();
  await sosRedis?.stop();
  system = simulator = redis = sosRedis = undefined;
}, 30_000);

/** Writes one after the other until stopped: what was acknowledged, and when, ms. */
class Writer<T> {
  readonly acknowledged: { value: T; at: number }[] = [];
  refused = 0;
  readonly #done: Promise<void>;
  #stopping = false;

  constructor(write: (n: number) => Promise<T>) {
    writers.push(this);
    this.#done = (async () => {
      for (let n = 0; !this.#stopping; n++) {
        try {
          const value = await write(n);
          this.acknowledged.push({ value, at: performance.now() });
        } catch {
          this.refused++;
        }
        // The pace of the load, not a wait for anything
        await pause(20);
      }
    })();
  }

  /** Resolves once a write has been acknowledged that began after now. */
  async next(withinMs: number): Promise<void> {
    const since = performance.now();
    // The first to be answered may have begun before
    await eventually(() => expect(this.#since(since)).toBeGreaterThan(1), withinMs);
  }

  #since(time: number): number {
    return this.acknowledged.filter(({ at }) => at > time).length;
  }

  stop(): Promise<void> {
    this.#stopping = true;
    return this.#done;
  }
}

const sessionsOf = (broker: ServiceBroker): Sessions => {
  const service: (Service & { sessions?: Sessions }) | undefined = broker.getLocalService('accounts');
  if (!service?.sessions) throw new Error('accounts does not run');
  return service.sessions;
};

/** A ride on the system, and writers of all that is acknowledged as kept. */
async function underLoad(
  running: System,
  provider: ProviderSimulator,
  isDoomed: (key: string) => Promise<boolean>,
) {
  const { broker } = running;
  // What is written must live on the server that will be killed
  let ride = await activeTrip(running);
  while (!(await isDoomed(shardKeys(shardOf(ride.tripId)).stream))) ride = await activeTrip(running);
  const { tripId, driver, rider } = ride;
  let userId = 'usr_0';
  for (let n = 1; !(await isDoomed(`sessions:{${userId}}`)); n++) userId = `usr_${n}`;

  const meta = { user: { id: driver.id, role: 'driver', sessionId: 's' } };
  const watching = await connectSocket(running, rider.token);
  const driving = await connectSocket(running, driver.token);
  sockets.push(watching, driving);
  const seen = new Set<number>();
  watching.on('location', (update) => seen.add(update.timestamp));
  await watching.emitWithAck('trip:join', { tripId });

  const fix = (timestamp: number) => ({ ...aracaju, accuracy: 8, timestamp });
  const base = Date.now() - 600_000;
  const to = newPhone();
  const sessions = new Writer(async () => (await sessionsOf(broker).create(userId, 'rider', 0)).token);
  const backlog = new Writer(async (n) => {
    const timestamp = base + n;
    await broker.call('location.backlog', { id: tripId, updates: [fix(timestamp)] }, { meta });
    return timestamp;
  });
  const messages = new Writer(async (n) => {
    const code = String(100_000 + n);
    await broker.call('notify.send', {
      to: { phone: to },
      template: 'otp',
      data: { code },
      idempotencyKey: `failover-${n}`,
      expiresInMs: 60_000,
    });
    return code;
  });
  const live = new Writer(async () => {
    const timestamp = Date.now();
    const ack = await driving.timeout(3000).emitWithAck('location:update', { tripId, ...fix(timestamp) });
    if (!ack.ok) throw new Error(ack.error.code);
    return timestamp;
  });

  return {
    writers: { sessions, backlog, messages, live },
    seen,
    /** What was acknowledged and is not there; empty, if all is well. */
    async lost() {
      const track = await broker.call<{ properties: { times: number[] } }, object>(
        'location-history.track',
        { id: tripId },
        { meta },
      );
      const kept = new Set(track.properties.times);
      const tokens = await Promise.all(
        sessions.acknowledged.map(({ value }) =>
          sessionsOf(broker)
            .resolve(value)
            .then(
              () => 'ok',
              (error: Error) => error.message,
            ),
        ),
      );
      const texts = provider.outbox({ to }).map(({ text }) => text);
      return {
        sessions: tokens.filter((outcome) => outcome !== 'ok'),
        backlog: backlog.acknowledged.map(({ value }) => value).filter((time) => !kept.has(time)),
        messages: messages.acknowledged
          .map(({ value }) => value)
          .filter((code) => !texts.some((text) => text.includes(code))),
      };
    },
  };
}

const failures = [
  ['is killed', 'Sentinel', startSentinel, 'kill'],
  ['is killed', 'a Cluster', startCluster, 'kill'],
  ['hangs', 'Sentinel', startSentinel, 'hang'],
  ['hangs', 'a Cluster', startCluster, 'hang'],
] as const;

describe.each(failures)('the primary %s, with %s', (_what, _name, startTopology, fail) => {
  test('R8.4 under load: back within 10 s, nothing acknowledged is lost', async () => {
    redis = await startTopology();
    sosRedis = await startTestRedis();
    simulator = await startProviderSimulator({
      twilio: { accountSid: `AC${'0'.repeat(32)}`, authToken: 'development-only' },
    });
    system = await startSystem({
      env: {
        REDIS_URL: redis.url,
        SOS_REDIS_URL: sosRedis.url,
        PROVIDERS_SANDBOX_URL: simulator.url,
      },
    });
    const topology = redis;
    const doomed = await topology.primaryOf('{notify}');
    const load = await underLoad(
      system,
      simulator,
      async (key) => (await topology.primaryOf(key)) === doomed,
    );
    const kinds = Object.values(load.writers);
    for (const writer of kinds)
      await eventually(() => expect(writer.acknowledged.length).toBeGreaterThan(20), 10_000);

    const killedAt = performance.now();
    await topology[fail](doomed);
    for (const writer of kinds) await writer.next(15_000);
    expect(performance.now() - killedAt).toBeLessThan(10_000);
    // Updates reach the rider again by themselves, too
    const reported = Date.now();
    await eventually(() => expect(Math.max(...load.seen)).toBeGreaterThan(reported), 10_000);

    for (const writer of kinds) await writer.stop();
    await eventually(
      async () => expect(await load.lost()).toEqual({ sessions: [], backlog: [], messages: [] }),
      15_000,
    );
  }, 60_000);
});
