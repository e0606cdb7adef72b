import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { signIn } from '../support/clients.ts';
import { type Cluster, startCluster } from '../support/cluster.ts';
import { eventually } from '../support/eventually.ts';
import { freePort } from '../support/process.ts';
import { createApi } from '../support/simulate/api.ts';
import { systemClock } from '../support/simulate/clock.ts';
import { type Progress, type Summary, simulate } from '../support/simulate/run.ts';
import { connectLine } from '../support/simulate/sockets.ts';
import { loadTracks } from '../support/simulate/traces.ts';

const roles = {
  data: 'accounts,trips,notify,admin,sos,safety',
  'location-1': 'location',
  'location-2': 'location',
  'api-1': 'api',
  'gateway-1': 'gateway',
  'gateway-2': 'gateway',
};
const trips = 60;

let cluster: Cluster;

beforeAll(async () => {
  const ports = { api: await freePort(), socket: await freePort(), metrics: await freePort() };
  cluster = await startCluster({
    roles,
    redis: 'single',
    ports,
    // Other tests on the same cores must not make a door refuse what these ask
    env: { RATE_LIMIT_PER_USER: '100000', SHED_WHEN_LATE_MS: '10000' },
  });
  // The first moments after a start: not every route is known yet
  await eventually(() => signIn(cluster, '+919800000000'), 20_000);
}, 90_000);
afterAll(() => cluster?.stop(), 30_000);

/**
 * Phones that report every 2.5 s, two or three of them in every 100 ms; each position is a tick's only one of its trip, so that none may be
 * missing. Once all drive a process is killed; they drive on until each has reported thrice more.
 */
async function driveWhileOneDies(run: number, name: keyof typeof roles): Promise<Summary> {
  const interrupt = new AbortController();
  let progress: Progress | undefined;
  const summary = simulate(
    {
      trips,
      speedup: 2,
      watchers: 1,
      batchWindowMs: 1200,
      run,
      tracks: await loadTracks(),
      interrupt: interrupt.signal,
      onProgress: (latest) => (progress = latest),
    },
    {
      api: createApi({ url: cluster.apiUrl, clock: systemClock, fetch }),
      clock: systemClock,
      connectDriver: (token) => connectLine(cluster.socketUrl, token, systemClock),
      connectWatcher: (token) => connectLine(cluster.socketUrl, token, systemClock),
    },
  );
  const delivered = () => (progress?.phase === 'driving' ? progress.counts.delivered : 0);
  const endedEarly = summary.then(({ problems }) => {
    throw new Error(`It ended before its time: ${problems.join('; ')}`);
  });
  /** Resolves when so many positions more have come. */
  const come = (more: number, withinMs: number) => {
    const before = delivered();
    return Promise.race([
      endedEarly,
      eventually(() => expect(delivered()).toBeGreaterThan(before + more), withinMs),
    ]);
  };
  try {
    await come(2 * trips, 60_000);
    await cluster.role(name).kill();
    await come(3 * trips, 30_000);
  } finally {
    interrupt.abort();
  }
  return summary;
}

describe('a process on the way of positions is killed while many drive', () => {
  test('R2.1 a location process: every position that was acknowledged comes through another one, and trips can be ended', async () => {
    const { ok, problems, counts } = await driveWhileOneDies(1, 'location-1');
    expect({ ok, problems }).toEqual({ ok: true, problems: [] });
    expect(counts.delivered).toBeGreaterThan(5 * trips);
  }, 120_000);

  test('R1.2 R2.1 a gateway: phones send again what it had acknowledged last, and every position comes through the other one', async () => {
    const { ok, problems, reconnects } = await driveWhileOneDies(2, 'gateway-1');
    expect({ ok, problems }).toEqual({ ok: true, problems: [] });
    expect(reconnects).toBeGreaterThan(trips / 2);
  }, 120_000);
});
