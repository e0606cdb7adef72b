/**
 * What an acknowledged SOS survives: each scenario presses, breaks something at the worst moment, and counts what the
 * raiser, the admins and the contacts got (R3, "accepted means durable").
 */
import { setTimeout as pause } from 'node:timers/promises';
import { doneAt, judge, resentBy, toldAt } from '../support/chaos/judge.ts';
import { type Alert, type Person, pressByRest, pressBySocket, signUp } from '../support/chaos/people.ts';
import { median, type Round, type Row } from '../support/chaos/result.ts';
import { type WorkerName, World, workers } from '../support/chaos/world.ts';
import { type AdminSocket, connectAdmin, connectSocket, request, signIn } from '../support/clients.ts';
import { eventually } from '../support/eventually.ts';

/** What a round has at hand. */
interface Stage {
  world: World;
  people: Person[];
  admin: { token: string };
  n: number;
}

/** What a round did: its alerts, when the clock for `done` began (ms), and when they were done if that is told otherwise. */
interface Played {
  alerts: Alert[];
  since: number;
  doneAt?: number;
}

interface Scenario {
  name: string;
  what: string;
  topology: 'single' | 'sentinel';
  doneLimitMs?: number;
  ackLimitMs?: number;
  /** Nobody dies without a word: nothing has to be sent again. */
  resendsNothing?: true;
  /** One round; it brings back what it broke. */
  play(stage: Stage): Promise<Played>;
}

const doneLimitMs = 5000;
/** One press; and one among 50 at once, with all processes of the run on one machine, ms. */
const ackLimitMs = 500;
const burstAckLimitMs = 2000;
/** Where a replica is asked too. */
const replicaAckLimitMs = 1000;
/** Another Redis takes over within 10 s (R8.4). */
const failoverLimitMs = 10_000;
const stopLimitMs = 3500;
/** A door texts contacts itself after so long, ms. */
const ownTextAfterMs = 10_000;
/** Whatever would come twice has come by then: lock, stalled check and sweep are over, ms. */
const settleMs = 6000;
/** Longer than any lock of a job lasts, ms. */
const fullForMs = 12_000;

const personOf = ({ people, n }: Stage, k = 0): Person => {
  const person = people[(n + k) % people.length];
  if (!person) throw new Error('Nobody has signed up');
  return person;
};
const other = (name: WorkerName): WorkerName => (name === 'sos1' ? 'sos2' : 'sos1');
/** Which worker gets a job is chance, so they take turns. */
const turn = ({ n }: Stage): WorkerName => workers[n % 2] ?? 'sos1';

/** The moment of a kill, and its end. */
interface Kill {
  at: number;
  ended: Promise<void>;
}
const killNow = (kill: () => Promise<void>): Kill => ({ at: Date.now(), ended: kill() });

/** Presses, and kills in the very turn in which the acknowledgement is seen. */
async function pressThenKill(
  stage: Stage,
  kill: () => Promise<void>,
): Promise<{ alert: Alert; killed: Kill }> {
  let killed: Kill | undefined;
  const alert = await pressByRest(stage.world.doors, personOf(stage), () => {
    killed = killNow(kill);
  });
  if (!killed) throw new Error('Nothing was killed');
  return { alert, killed };
}

/** A worker is killed at a moment of its own request to a provider. */
async function killAtProvider(stage: Stage, direction: 'request' | 'answer'): Promise<Played> {
  const { world } = stage;
  let killed: (Kill & { name: WorkerName }) | undefined;
  for (const name of workers)
    world.taps[name].cutAt(direction, () => {
      world.taps[other(name)].open();
      killed = { name, ...killNow(() => world.kill(name)) };
    });
  const alert = await pressByRest(world.doors, personOf(stage));
  const { name, at, ended } = await eventually(() => {
    if (!killed) throw new Error('No worker has asked a provider');
    return killed;
  }, 10_000);
  await ended;
  const done = await doneAt(world, [alert]);
  world.taps[name].open();
  await world.restart(name);
  return { alerts: [alert], since: at, doneAt: done };
}

/** The doors know each other's services and sessions can be looked up: all that was dead is back. */
const wholeAgain = ({ world, admin }: Stage): Promise<void> =>
  eventually(async () => {
    const { status } = await request(world.doors, 'GET', '/api/v1/admin/events?limit=1', {
      token: admin.token,
    });
    if (status !== 200) throw new Error(`GET /admin/events says ${status}`);
  }, 30_000);

/** Presses by REST and by socket, with a dashboard that watches, while `broken` is dead; the dashboard must see it. */
async function pressWhileDead(
  stage: Stage,
  broken: { kill: () => Promise<void>; revive: () => Promise<void> },
): Promise<Played> {
  const { world, admin } = stage;
  const [first, second] = [personOf(stage), personOf(stage, 1)];
  // What the round before broke may just be coming back to the gateway
  const watching: AdminSocket = await eventually(() => connectAdmin(world.doors, admin.token), 20_000);
  const socket = await connectSocket(world.doors, second.token);
  try {
    const seen = new Set<unknown>();
    watching.on('events', (events) => {
      for (const { kind, data } of events) if (kind === 'sos.triggered') seen.add(data.alertId);
    });
    await watching.emitWithAck('subscribe', {});
    await broken.kill();
    const since = Date.now();
    const alerts = [await pressByRest(world.doors, first), await pressBySocket(socket, second)];
    const done = await doneAt(world, alerts);
    await eventually(() => {
      if (alerts.some(({ alertId }) => !seen.has(alertId)))
        throw new Error('An open dashboard has not seen it');
    });
    await broken.revive();
    await wholeAgain(stage);
    return { alerts, since, doneAt: done };
  } finally {
    watching.close();
    socket.close();
  }
}

const nats = ({ world }: Stage) => ({ kill: () => world.killNats(), revive: () => world.startNats() });
const mainRedis = ({ world: { mainRedis: redis } }: Stage) => ({
  kill: () => redis.kill(redis.ports[0] ?? 0),
  revive: () => redis.revive(redis.ports[0] ?? 0),
});
const db = ({ world: { mongo } }: Stage) => ({ kill: () => mongo.halt(), revive: () => mongo.resume() });
const allThree = (stage: Stage) => {
  const parts = [nats(stage), mainRedis(stage), db(stage)];
  return {
    kill: async () => void (await Promise.all(parts.map((part) => part.kill()))),
    revive: async () => void (await Promise.all(parts.map((part) => part.revive()))),
  };
};

/** A door that starts with everything dead but the SOS Redis takes a press. */
async function doorStartsAlone(stage: Stage): Promise<Played> {
  const { world } = stage;
  const broken = allThree(stage);
  await broken.kill();
  await world.kill('api');
  await world.spawn('api');
  const alert = await eventually(() => pressByRest(world.doors, personOf(stage)), 20_000);
  const done = await doneAt(world, [alert]);
  await broken.revive();
  await wholeAgain(stage);
  return { alerts: [alert], since: alert.ackedAt, doneAt: done };
}

/** A door that starts while everything hangs, the SOS Redis too, takes a press. */
async function doorStartsAmongHung(stage: Stage): Promise<Played> {
  const { world } = stage;
  const { mainRedis: main, sosRedis, mongo } = world;
  const mainPort = main.ports[0] ?? 0;
  main.hang(mainPort);
  sosRedis.hang(sosPort(stage));
  mongo.delay(Number.POSITIVE_INFINITY);
  await world.killNats();
  await world.kill('api');
  await world.spawn('api');
  const alert = await eventually(() => pressByRest(world.doors, personOf(stage)), 20_000);
  sosRedis.wake(sosPort(stage));
  const since = Date.now();
  const done = await doneAt(world, [alert]);
  main.wake(mainPort);
  mongo.delay(0);
  await world.startNats();
  await wholeAgain(stage);
  return { alerts: [alert], since, doneAt: done };
}

/** The raiser can see a press that only the door's journal has. */
async function seeOwn({ world }: Stage, { alertId, person }: Alert): Promise<void> {
  const { status, body } = await request(world.doors, 'GET', `/api/v1/sos/${alertId}`, {
    token: person.token,
  });
  if (status !== 200 || body.status !== 'active') throw new Error(`GET /sos/:id says ${status}`);
}

/** The SOS Redis is away for longer than contacts can wait. */
async function withoutSosRedis(
  stage: Stage,
  broken: { kill(): Promise<void>; revive(): Promise<void> },
): Promise<Played> {
  const { world } = stage;
  await broken.kill();
  const alerts: Alert[] = [];
  for (let k = 0; k < 3; k++) alerts.push(await pressByRest(world.doors, personOf(stage, k)));
  for (const alert of alerts) await seeOwn(stage, alert);
  const told = await toldAt(world, alerts);
  await broken.revive();
  await doneAt(world, alerts);
  return { alerts, since: (alerts[0]?.ackedAt ?? 0) + ownTextAfterMs, doneAt: told };
}

const setMaxMemory = async ({ world }: Stage, bytes: string) =>
  void (await (await world.reader()).config('SET', 'maxmemory', bytes));

const sosPort = ({ world: { sosRedis } }: Stage) => sosRedis.ports[0] ?? 0;

/** Many press at once, and `kill` comes in the middle of it. Only who was answered counts. */
async function burst(
  stage: Stage,
  kill: () => Promise<void>,
  presses = 50,
): Promise<{ alerts: Alert[]; killed: Kill }> {
  const alerts: Alert[] = [];
  let killed: Kill | undefined;
  await Promise.allSettled(
    Array.from({ length: presses }, async (_, k) => {
      alerts.push(
        await pressByRest(stage.world.doors, personOf(stage, k), () => {
          if (alerts.length === Math.floor(presses / 2)) killed ??= killNow(kill);
        }),
      );
    }),
  );
  if (!killed) throw new Error(`Only ${alerts.length} of ${presses} were answered before the kill`);
  return { alerts, killed };
}

const scenarios: Scenario[] = [
  {
    name: 'api',
    what: 'the api is killed at the acknowledgement',
    topology: 'single',
    async play(stage) {
      const { alert, killed } = await pressThenKill(stage, () => stage.world.kill('api'));
      await killed.ended;
      const done = await doneAt(stage.world, [alert]);
      await stage.world.restart('api');
      return { alerts: [alert], since: killed.at, doneAt: done };
    },
  },
  {
    name: 'gateway',
    what: 'the gateway is killed at the acknowledgement',
    topology: 'single',
    async play(stage) {
      const { world } = stage;
      const person = personOf(stage);
      const socket = await connectSocket(world.doors, person.token);
      let killed: Kill | undefined;
      const alert = await pressBySocket(socket, person, () => {
        killed = killNow(() => world.kill('gateway'));
      });
      socket.close();
      await killed?.ended;
      const done = await doneAt(world, [alert]);
      await world.restart('gateway');
      return { alerts: [alert], since: killed?.at ?? 0, doneAt: done };
    },
  },
  {
    name: 'worker',
    what: 'one of two workers is killed at the acknowledgement',
    topology: 'single',
    async play(stage) {
      const name = turn(stage);
      const { alert, killed } = await pressThenKill(stage, () => stage.world.kill(name));
      await killed.ended;
      const done = await doneAt(stage.world, [alert]);
      await stage.world.restart(name);
      return { alerts: [alert], since: killed.at, doneAt: done };
    },
  },
  {
    name: 'worker-claimed',
    what: 'a worker is killed with a message claimed that the provider has not got',
    topology: 'single',
    play: (stage) => killAtProvider(stage, 'request'),
  },
  {
    name: 'worker-sent',
    what: 'a worker is killed when the provider has the message and nobody knows it',
    topology: 'single',
    play: (stage) => killAtProvider(stage, 'answer'),
  },
  {
    name: 'sos-redis',
    what: 'the SOS Redis is killed at the acknowledgement and started again; from its start',
    topology: 'single',
    async play(stage) {
      const { sosRedis } = stage.world;
      const { alert, killed } = await pressThenKill(stage, () => sosRedis.kill(sosPort(stage)));
      await killed.ended;
      await sosRedis.revive(sosPort(stage));
      return { alerts: [alert], since: Date.now() };
    },
  },
  {
    name: 'nats',
    what: 'NATS is dead at the press',
    topology: 'single',
    play: (stage) => pressWhileDead(stage, nats(stage)),
  },
  {
    name: 'main-redis',
    what: 'the main Redis is dead at the press',
    topology: 'single',
    play: (stage) => pressWhileDead(stage, mainRedis(stage)),
  },
  {
    name: 'db',
    what: 'the database is dead at the press',
    topology: 'single',
    play: (stage) => pressWhileDead(stage, db(stage)),
  },
  {
    name: 'all-three',
    what: 'NATS, main Redis and database are dead at the press',
    topology: 'single',
    play: (stage) => pressWhileDead(stage, allThree(stage)),
  },
  {
    name: 'door-alone',
    what: 'the api starts while those three are dead; from the press',
    topology: 'single',
    play: doorStartsAlone,
  },
  {
    name: 'door-among-hung',
    what: 'the api starts while both Redis, the database and NATS are dead or hang; from the return of the SOS Redis',
    topology: 'single',
    play: doorStartsAmongHung,
  },
  {
    name: 'sos-redis-dead',
    what: 'the SOS Redis is dead for longer than 10 s: the door texts; from 10 s after the press',
    topology: 'single',
    play: (stage) =>
      withoutSosRedis(stage, {
        kill: () => stage.world.sosRedis.kill(sosPort(stage)),
        revive: () => stage.world.sosRedis.revive(sosPort(stage)),
      }),
  },
  {
    name: 'sos-redis-hung',
    what: 'the same with a SOS Redis that hangs',
    topology: 'single',
    play: (stage) =>
      withoutSosRedis(stage, {
        kill: async () => stage.world.sosRedis.hang(sosPort(stage)),
        revive: async () => stage.world.sosRedis.wake(sosPort(stage)),
      }),
  },
  {
    name: 'sos-redis-full',
    what: 'the same with a SOS Redis that has no memory left (maxmemory)',
    topology: 'single',
    play: (stage) =>
      withoutSosRedis(stage, {
        kill: () => setMaxMemory(stage, '1mb'),
        revive: () => setMaxMemory(stage, '0'),
      }),
  },
  {
    name: 'sos-redis-fills',
    what: 'the SOS Redis has no memory left at the acknowledgement, for 12 s; from then on',
    topology: 'single',
    async play(stage) {
      const { alert, killed } = await pressThenKill(stage, () => setMaxMemory(stage, '1mb'));
      await killed.ended;
      await pause(fullForMs);
      await setMaxMemory(stage, '0');
      return { alerts: [alert], since: Date.now() };
    },
  },
  {
    name: 'door-journal',
    what: 'the SOS Redis is dead, the api is killed with the press in its journal and started again; from the return of Redis',
    topology: 'single',
    async play(stage) {
      const { world } = stage;
      await world.sosRedis.kill(sosPort(stage));
      const { alert, killed } = await pressThenKill(stage, () => world.kill('api'));
      await killed.ended;
      await world.restart('api');
      await seeOwn(stage, alert);
      await world.sosRedis.revive(sosPort(stage));
      return { alerts: [alert], since: Date.now() };
    },
  },
  {
    name: 'burst-worker',
    ackLimitMs: burstAckLimitMs,
    what: '50 press at once, a worker is killed in the middle',
    topology: 'single',
    async play(stage) {
      const name = turn(stage);
      const { alerts, killed } = await burst(stage, () => stage.world.kill(name));
      await killed.ended;
      const done = await doneAt(stage.world, alerts);
      await stage.world.restart(name);
      return { alerts, since: killed.at, doneAt: done };
    },
  },
  {
    name: 'burst-worker-stop',
    ackLimitMs: burstAckLimitMs,
    // What a worker leaves without an outcome is taken up after 4 s at the earliest
    doneLimitMs: stopLimitMs,
    resendsNothing: true,
    what: '50 press at once, providers take 300 ms, a worker is told to stop in the middle (SIGTERM)',
    topology: 'single',
    async play(stage) {
      const { world } = stage;
      const name = turn(stage);
      world.simulator.fail('twilio', { kind: 'slow', delayMs: 300 });
      try {
        const { alerts, killed } = await burst(stage, () => world.terminate(name));
        const done = await doneAt(world, alerts);
        await killed.ended;
        await world.restart(name);
        return { alerts, since: killed.at, doneAt: done };
      } finally {
        world.simulator.clear('twilio');
      }
    },
  },
  {
    name: 'burst-api',
    ackLimitMs: burstAckLimitMs,
    what: '50 press at once, the api is killed in the middle; those that were answered count',
    topology: 'single',
    async play(stage) {
      const { alerts, killed } = await burst(stage, () => stage.world.kill('api'));
      await killed.ended;
      const done = await doneAt(stage.world, alerts);
      await stage.world.restart('api');
      return { alerts, since: killed.at, doneAt: done };
    },
  },
  {
    name: 'burst-api-stop',
    ackLimitMs: burstAckLimitMs,
    doneLimitMs: stopLimitMs,
    resendsNothing: true,
    what: '50 press at once, the api is told to stop in the middle (SIGTERM); those that were answered count',
    topology: 'single',
    async play(stage) {
      const { world } = stage;
      const { alerts, killed } = await burst(stage, () => world.terminate('api'));
      const done = await doneAt(world, alerts);
      await killed.ended;
      await world.restart('api');
      return { alerts, since: killed.at, doneAt: done };
    },
  },
  {
    name: 'burst-sos-redis',
    ackLimitMs: burstAckLimitMs,
    what: '50 press at once, the SOS Redis is killed in the middle and started again; from its start',
    topology: 'single',
    async play(stage) {
      const { sosRedis } = stage.world;
      const { alerts, killed } = await burst(stage, () => sosRedis.kill(sosPort(stage)));
      await killed.ended;
      await sosRedis.revive(sosPort(stage));
      return { alerts, since: Date.now() };
    },
  },
  {
    name: 'sentinel',
    ackLimitMs: replicaAckLimitMs,
    what: 'the primary of the SOS Redis is killed at the acknowledgement, another press follows; its replica takes over',
    topology: 'sentinel',
    doneLimitMs: failoverLimitMs + doneLimitMs,
    play: (stage) => failover(stage, killed(stage), (lose) => pressBeforeAndAfter(stage, lose)),
  },
  {
    name: 'sentinel-hung',
    ackLimitMs: replicaAckLimitMs,
    what: 'the same with a primary that hangs, and comes back when another has taken over',
    topology: 'sentinel',
    doneLimitMs: failoverLimitMs + doneLimitMs,
    play: (stage) => failover(stage, hung(stage), (lose) => pressBeforeAndAfter(stage, lose)),
  },
  {
    name: 'burst-sentinel',
    ackLimitMs: burstAckLimitMs,
    what: '50 press at once, the primary is killed in the middle; its replica takes over',
    topology: 'sentinel',
    doneLimitMs: failoverLimitMs + doneLimitMs,
    play: (stage) => failover(stage, killed(stage), (lose) => burst(stage, lose)),
  },
];

/** Loses the primary and gives it back, as a replica of the one that took over. */
interface Loss {
  lose: (port: number) => Promise<void>;
  giveBack: (port: number) => Promise<void>;
}
const killed = ({ world: { sosRedis } }: Stage): Loss => ({
  lose: (port) => sosRedis.kill(port),
  giveBack: (port) => sosRedis.revive(port),
});
const hung = ({ world: { sosRedis } }: Stage): Loss => ({
  lose: async (port) => sosRedis.hang(port),
  giveBack: async (port) => sosRedis.wake(port),
});

/** `press` loses the primary when it calls back; its replica takes over. */
async function failover(
  { world: { sosRedis }, world }: Stage,
  { lose, giveBack }: Loss,
  press: (lose: () => Promise<void>) => Promise<{ alerts: Alert[]; killed: Kill }>,
): Promise<Played> {
  const primary = await sosRedis.primaryOf('');
  const { alerts, killed: lost } = await press(() => lose(primary));
  await lost.ended;
  await eventually(async () => {
    if ((await sosRedis.primaryOf('')) === primary) throw new Error('Nobody has taken over');
  }, failoverLimitMs);
  const done = await doneAt(world, alerts);
  await giveBack(primary);
  await eventually(async () => {
    const [role, , replicas] = await (await world.reader()).role();
    if (role !== 'master' || !Array.isArray(replicas) || replicas.length !== 1)
      throw new Error('The old primary does not follow the new one yet');
  }, 20_000);
  return { alerts, since: lost.at, doneAt: done };
}

/** One press just before the loss, and one while nobody has taken over. */
async function pressBeforeAndAfter(stage: Stage, lose: () => Promise<void>) {
  const before = await pressThenKill(stage, lose);
  const after = await pressByRest(stage.world.doors, personOf(stage, 1));
  return { alerts: [before.alert, after], killed: before.killed };
}

export const scenarioNames = scenarios.map(({ name }) => name);

export interface ChaosOptions {
  rounds: number;
  /** All of them when none is named. */
  only?: readonly string[];
  /** Told after each round; `problem` when it failed, with what the processes wrote. */
  onRound?: (scenario: string, n: number, problem: string | null) => void;
}

/** A world with people in it. */
async function startStage(topology: Scenario['topology']): Promise<Omit<Stage, 'n'>> {
  const world = await World.start(topology);
  try {
    const people = await signUp(world.doors, 20);
    const admin = await signIn(world.doors, '+919800000000');
    return { world, people, admin };
  } catch (error) {
    process.stderr.write(`${world.outputs()}\n`);
    await world.stop();
    throw error;
  }
}

/** What a scenario's rounds have come to so far. */
interface Tally {
  scenario: Scenario;
  rounds: Round[];
  failed: number;
  lost: number;
  doubled: number;
  problems: string[];
  /** Alerts of the world that runs, not yet judged. */
  alerts: Alert[];
}

/** Looks at every alert of a world, once whatever would come twice has come. */
async function settle(world: World, tallies: readonly Tally[]): Promise<void> {
  if (tallies.every(({ alerts }) => alerts.length === 0)) return;
  await pause(settleMs);
  for (const tally of tallies) {
    const verdict = await judge(world, tally.alerts.splice(0));
    tally.lost += verdict.lost;
    tally.doubled += verdict.doubled;
    tally.problems.push(...verdict.problems);
  }
}

/** Runs the scenarios, each so many rounds; after one that failed it goes on in a new world. */
export async function sosChaos({ rounds, only = [], onRound }: ChaosOptions): Promise<Row[]> {
  const chosen = scenarios.filter(({ name }) => only.length === 0 || only.includes(name));
  const tallies = chosen.map((scenario): Tally => {
    return { scenario, rounds: [], failed: 0, lost: 0, doubled: 0, problems: [], alerts: [] };
  });
  for (const topology of ['single', 'sentinel'] as const) {
    const here = tallies.filter(({ scenario }) => scenario.topology === topology);
    if (here.length === 0) continue;
    let stage = await startStage(topology);
    try {
      for (const tally of here) {
        const { name } = tally.scenario;
        for (let n = 0; n < rounds; n++) {
          try {
            const { round, alerts } = await playRound(tally.scenario, { ...stage, n });
            tally.rounds.push(round);
            tally.alerts.push(...alerts);
            onRound?.(name, n, null);
          } catch (error) {
            tally.failed++;
            tally.problems.push(`round ${n}: ${error instanceof Error ? error.message : String(error)}`);
            onRound?.(name, n, `${String(error)}\n${stage.world.outputs()}`);
            await settle(stage.world, here).catch((trouble: unknown) => tally.problems.push(String(trouble)));
            await stage.world.stop();
            stage = await startStage(topology);
          }
        }
      }
      await settle(stage.world, here);
    } finally {
      await stage.world.stop();
    }
  }
  return tallies.map(rowOf);
}

async function playRound(scenario: Scenario, stage: Stage): Promise<{ round: Round; alerts: Alert[] }> {
  const before = await resentBy(stage.world);
  const { alerts, since, doneAt: told } = await scenario.play(stage);
  const done = told ?? (await doneAt(stage.world, alerts));
  const after = await resentBy(stage.world);
  const resent = [...after].reduce((sum, [name, count]) => sum + count - (before.get(name) ?? 0), 0);
  if (scenario.resendsNothing && resent > 0) throw new Error(`${resent} messages were sent again`);
  const ackMs = Math.max(...alerts.map((alert) => alert.ackMs));
  return { round: { resent, doneMs: Math.max(0, done - since), ackMs }, alerts };
}

function rowOf({ scenario, rounds, failed, lost, doubled, problems }: Tally): Row {
  const done = rounds.map(({ doneMs }) => doneMs);
  const resent = rounds.reduce((sum, round) => sum + round.resent, 0);
  return {
    name: scenario.name,
    what: scenario.what,
    rounds: rounds.length + failed,
    failed,
    lost,
    // What was sent again because nobody could know is told apart
    doubled: Math.max(0, doubled - resent),
    resent,
    doneP50Ms: median(done),
    doneMaxMs: Math.max(0, ...done),
    ackMaxMs: Math.max(0, ...rounds.map(({ ackMs }) => ackMs)),
    doneLimitMs: scenario.doneLimitMs ?? doneLimitMs,
    ackLimitMs: scenario.ackLimitMs ?? ackLimitMs,
    problems,
  };
}
