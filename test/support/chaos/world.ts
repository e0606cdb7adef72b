/** A system of real processes as production has it, each part of which can be killed, hung and brought back. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Redis } from 'ioredis';
import { type ProviderSimulator, startProviderSimulator } from '../../../lib/standins/providers.ts';
import type { Doors } from '../clients.ts';
import { type MongoSimulator, startMongoSimulator } from '../mongo-simulator/index.ts';
import { startNats, type TestNats } from '../nats.ts';
import { freePort, type RoleEnvironment, type RoleProcess, startRole, untilReady } from '../process.ts';
import { type RedisTopology, startSentinel, startSingle } from '../redis-topology.ts';
import { startTap, type Tap } from './tap.ts';

const services = {
  data: 'accounts,trips,notify,admin',
  api: 'api',
  gateway: 'gateway',
  sos1: 'sos',
  sos2: 'sos',
};
export type RoleName = keyof typeof services;
export const workers = ['sos1', 'sos2'] as const;
export type WorkerName = (typeof workers)[number];

const twilio = { accountSid: 'AC00000000000000000000000000000000', authToken: 'development-only' };
const isWorker = (name: RoleName): name is WorkerName => name === 'sos1' || name === 'sos2';
/** On a busy machine all of them start at once, ms. */
const readyWithinMs = 60_000;
/** As docs/running-in-production.md asks of it. */
const sosRedisOptions = { appendfsync: 'always' };

export class World {
  readonly simulator: ProviderSimulator;
  readonly mongo: MongoSimulator;
  readonly mainRedis: RedisTopology;
  readonly sosRedis: RedisTopology;
  /** Between each worker and the providers. */
  readonly taps: Record<WorkerName, Tap>;
  readonly #natsPort: number;
  readonly #root: string;
  readonly #roles = new Map<RoleName, RoleProcess>();
  #nats: TestNats | undefined;
  #reader: Redis | undefined;

  private constructor(
    parts: Pick<World, 'simulator' | 'mongo' | 'mainRedis' | 'sosRedis' | 'taps'>,
    root: string,
    natsPort: number,
  ) {
    this.simulator = parts.simulator;
    this.mongo = parts.mongo;
    this.mainRedis = parts.mainRedis;
    this.sosRedis = parts.sosRedis;
    this.taps = parts.taps;
    this.#root = root;
    this.#natsPort = natsPort;
  }

  /** Everything up and ready. The SOS Redis is one server, or a primary and a replica with Sentinels. */
  static async start(topology: 'single' | 'sentinel'): Promise<World> {
    const stops: (() => Promise<void>)[] = [];
    try {
      const simulator = await startProviderSimulator({ twilio, maxMessages: 1_000_000 });
      stops.push(() => simulator.stop());
      const mongo = await startMongoSimulator();
      stops.push(() => mongo.stop());
      const mainRedis = await startSingle();
      stops.push(() => mainRedis.stop());
      const startSos = topology === 'single' ? startSingle : startSentinel;
      const sosRedis = await startSos(sosRedisOptions);
      stops.push(() => sosRedis.stop());
      const taps = { sos1: await startTap(simulator.url), sos2: await startTap(simulator.url) };
      stops.push(
        () => taps.sos1.stop(),
        () => taps.sos2.stop(),
      );
      const root = await mkdtemp(join(tmpdir(), 'ride-chaos-'));
      const world = new World({ simulator, mongo, mainRedis, sosRedis, taps }, root, await freePort());
      stops.length = 0;
      stops.push(() => world.stop());
      await world.startNats();
      const names = Object.keys(services) as RoleName[];
      await Promise.all(names.map((name) => world.spawn(name)));
      await Promise.all(names.map((name) => world.untilReady(name)));
      return world;
    } catch (error) {
      for (const stop of stops.toReversed()) await stop();
      throw error;
    }
  }

  get doors(): Doors {
    return { apiUrl: this.role('api').apiUrl, socketUrl: this.role('gateway').socketUrl };
  }

  role(name: RoleName): RoleProcess {
    const role = this.#roles.get(name);
    if (!role) throw new Error(`${name} does not run`);
    return role;
  }

  /** Starts a role with the directory that it had; does not wait. */
  async spawn(name: RoleName): Promise<void> {
    const env: RoleEnvironment = {
      NAMESPACE: this.#root.slice(-6),
      NODE_ID: `${name}-${this.#root.slice(-6)}`,
      NATS_URL: `nats://127.0.0.1:${this.#natsPort}`,
      REDIS_URL: this.mainRedis.url,
      SOS_REDIS_URL: this.sosRedis.url,
      MONGO_URI: this.mongo.uri,
      PROVIDERS_SANDBOX_URL: isWorker(name) ? this.taps[name].url : this.simulator.url,
      RATE_LIMIT_PER_USER: '1000000',
      // Alerts of a run stay open: who is on call is not what it is about
      SOS_ESCALATE_AFTER_MS: '3600000',
      // Twenty people press all of a run
      SOS_ALERTS_PER_USER: '1000000',
      LOG_LEVEL: 'warn',
    };
    this.#roles.set(name, await startRole(services[name], join(this.#root, name), env));
  }

  untilReady(name: RoleName): Promise<void> {
    return untilReady(this.role(name), readyWithinMs);
  }

  /** SIGKILL, sent before this returns; resolves when the process has ended. */
  async kill(name: RoleName): Promise<void> {
    await this.role(name).kill();
  }

  /** SIGTERM, sent before this returns; resolves when the process has ended as it should, and rejects if it does not. */
  async terminate(name: RoleName): Promise<void> {
    const code = await this.role(name).stop();
    if (code !== 0) throw new Error(`${name} stopped with ${code}`);
  }

  /** Starts a role that has ended again; resolves when it takes traffic. */
  async restart(name: RoleName): Promise<void> {
    await this.spawn(name);
    await this.untilReady(name);
  }

  async startNats(): Promise<void> {
    this.#nats = await startNats(this.#natsPort);
  }

  async killNats(): Promise<void> {
    await this.#nats?.stop();
    this.#nats = undefined;
  }

  /** A connection of our own to whoever is the primary of the SOS Redis now. */
  async reader(): Promise<Redis> {
    const port = await this.sosRedis.primaryOf('');
    if (this.#reader?.options.port !== port) {
      this.#reader?.disconnect();
      this.#reader = this.sosRedis.connect(port);
    }
    return this.#reader;
  }

  /** What the processes have written, the last of each; nothing in there is secret (lib/redact.ts). */
  outputs(): string {
    return [...this.#roles]
      .map(([name, role]) => `--- ${name}\n${role.output().split('\n').slice(-40).join('\n')}`)
      .join('\n');
  }

  async stop(): Promise<void> {
    this.#reader?.disconnect();
    const stops = [...this.#roles.values()].map((role) => role.kill());
    await Promise.allSettled(stops);
    await this.killNats();
    await Promise.allSettled([this.taps.sos1.stop(), this.taps.sos2.stop()]);
    await this.simulator.stop();
    await this.mongo.stop();
    await this.mainRedis.stop();
    await this.sosRedis.stop();
    await rm(this.#root, { recursive: true, force: true });
  }
}
