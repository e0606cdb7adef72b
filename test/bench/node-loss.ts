/**
 * R11.5: what calls meet when one of two processes that can take them is lost: killed, or frozen as a machine that vanishes. Real
 * role processes over NATS. The baseline is the same caller going by Moleculer alone: nodes by turns until their heartbeats
 * are missed, and sent again only what surely did not begin. Both call at the same time, and lose the same process.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ServiceBroker } from 'moleculer';
import { loadConfig } from '../../lib/config.ts';
import { neverBegan } from '../../lib/errors.ts';
import { brokerOptions } from '../../moleculer.config.ts';
import { callTimes } from '../support/bench/calls.ts';
import { atMost, type Bench, type Figures } from '../support/bench/result.ts';
import { makeBroker } from '../support/broker.ts';
import { eventually } from '../support/eventually.ts';
import { startNats } from '../support/nats.ts';
import { type RoleProcess, startRole, untilReady } from '../support/process.ts';
import { startTestRedis } from '../support/redis.ts';
import { spawnAnnounced } from '../support/spawn.ts';

const services = 'accounts,trips';
const perS = 50;
/** One that reads, and one that changes something (and would do no harm twice, which nobody knows). */
const calls = {
  Reads: ['accounts.recipients', { userIds: ['usr_nobody'] }],
  Writes: ['accounts.dropPushToken', { userId: 'usr_nobody', token: 'none' }],
} as const;

const makePlain = (env: Record<string, string>): ServiceBroker => {
  const { retryPolicy, ...options } = brokerOptions(
    loadConfig({ NODE_ENV: 'test', LOG_LEVEL: 'fatal', LOG_FORMAT: 'json', NODE_ID: 'plain', ...env }),
  );
  return new ServiceBroker({
    ...options,
    middlewares: [],
    registry: { strategy: 'RoundRobin' },
    retryPolicy: { ...retryPolicy, check: neverBegan },
    skipProcessEventRegistration: true,
  });
};

/** For `forS` seconds, from now: how many calls of each kind failed, and how long they took in the end. */
async function callAll(broker: ServiceBroker, name: string, forS: number): Promise<Figures> {
  const parts = Object.entries(calls).map(async ([kind, [action, params]]) => {
    let failed = 0;
    const times = await callTimes(forS * perS, perS, async () => {
      await broker.call(action, params).catch(() => failed++);
    });
    return { [`${name}${kind}Failed`]: failed, [`${name}${kind}MaxMs`]: times.total().max ?? Number.NaN };
  });
  return Object.assign({}, ...(await Promise.all(parts))) as Figures;
}

const bench: Bench = async ({ quick }) => {
  const [killedS, frozenS] = quick ? [2, 5] : [8, 8];
  const closers: (() => Promise<unknown>)[] = [];
  const keep = <T extends { stop(): Promise<unknown> }>(one: T): T => {
    closers.push(() => one.stop());
    return one;
  };
  try {
    const root = await mkdtemp(join(tmpdir(), 'ride-loss-'));
    closers.push(() => rm(root, { recursive: true, force: true }));
    const env = {
      NAMESPACE: root.slice(-6),
      NATS_URL: keep(await startNats()).url,
      REDIS_URL: keep(await startTestRedis()).url,
      MONGO_URI: keep(await spawnAnnounced(['test/support/mongo-simulator/main.ts'])).line,
      PROVIDERS_SANDBOX_URL: keep(await spawnAnnounced(['bin/providers.ts'])).line,
    };
    const start = async (name: string): Promise<RoleProcess> => {
      const role = keep(await startRole(services, join(root, name), { ...env, NODE_ID: name }));
      await untilReady(role);
      return role;
    };
    const [killed, frozen] = [await start('killed'), await start('frozen')];
    const callers = [makeBroker('ours', env), makePlain(env)] as const;
    for (const broker of callers) {
      await broker.start();
      keep(broker);
    }
    const bothKnown = () =>
      eventually(() => {
        for (const { registry } of callers)
          for (const [action] of Object.values(calls))
            if (
              registry.getActionEndpoints(action)?.endpoints.filter(({ isAvailable }) => isAvailable)
                .length !== 2
            )
              throw new Error('Not all know both');
      }, 20_000);
    const during = (name: string, forS: number) =>
      Promise.all(callers.map((broker) => callAll(broker, name, forS)));

    await bothKnown();
    await during('warm', 1);
    await killed.kill();
    const afterKill = await during('killed', killedS);
    await start('third');
    await bothKnown();
    frozen.child.kill('SIGSTOP');
    const afterFreeze = await during('frozen', frozenS).finally(() => frozen.child.kill('SIGCONT'));

    const [ours = {}, baseline = {}] = afterKill.map((figures, n) => ({ ...figures, ...afterFreeze[n] }));
    const failed = (name: string) => ours[`${name}Failed`] ?? Number.NaN;
    return {
      name: 'node-loss',
      lost: 0,
      doubled: 0,
      figures: ours,
      baseline,
      ratio: {},
      targets: [
        atMost(
          'R11.5',
          'calls that failed after one was killed',
          failed('killedReads') + failed('killedWrites'),
          0,
        ),
        atMost('R11.5', 'reads that failed after one was frozen', failed('frozenReads'), 0),
      ],
      notes: [
        `Two processes of ${services}; ${perS} reads and as many writes a second by each caller, for ${killedS} s from a SIGKILL on and for ${frozenS} s from a SIGSTOP on. A frozen one closes no connection: whether it did what it was asked nobody knows, so a write is not asked of another.`,
      ],
    };
  } finally {
    for (const close of closers.toReversed())
      await close().catch((error: unknown) => process.stderr.write(`${String(error)}\n`));
  }
};

export default bench;
