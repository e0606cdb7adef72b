import { describe, expect, test } from '@jest/globals';
import { type Progress, type RunOptions, type Summary, simulate } from '../../support/simulate/run.ts';
import type { Track } from '../../support/simulate/traces.ts';
import { type Behaviour, FakeServer } from './fake-server.ts';
import { ManualClock } from './manual-clock.ts';

/** A drive north at 10 m/s, a point every 6 s; an index in `outliers` is 11 km off. */
function track(id: string, points: number, outliers: number[] = []): Track {
  return {
    id,
    points: Array.from({ length: points }, (_, index) => ({
      timeMs: 1_400_000_000_000 + index * 6000,
      lat: -10.9 + index * 0.00054 + (outliers.includes(index) ? 0.1 : 0),
      lng: -37,
      speed: 10,
      heading: 0,
    })),
  };
}

interface Scene {
  clock: ManualClock;
  server: FakeServer;
  interrupt: AbortController;
  progress: Progress[];
  summary: Promise<Summary>;
}

function start(options: Partial<RunOptions> = {}, behaviour: Behaviour = {}): Scene {
  const clock = new ManualClock();
  const server = new FakeServer(clock, behaviour);
  const interrupt = new AbortController();
  const progress: Progress[] = [];
  const summary = simulate(
    {
      trips: 2,
      speedup: 10,
      watchers: 1,
      batchWindowMs: 1200,
      run: 1,
      tracks: [track('a', 40), track('b', 30)],
      interrupt: interrupt.signal,
      onProgress: (line) => progress.push(line),
      ...options,
    },
    { api: server.api, clock, connectDriver: server.connect, connectWatcher: server.connect },
  );
  return { clock, server, interrupt, progress, summary };
}

/** Runs to the end, and checks that nothing is left running. */
async function finish({ clock, server, summary }: Scene): Promise<Summary> {
  const result = await clock.until(summary);
  server.stop();
  expect(clock.pending).toBe(0);
  expect(server.lines.every(({ closed }) => closed)).toBe(true);
  return result;
}

async function run(options: Partial<RunOptions> = {}, behaviour: Behaviour = {}): Promise<Summary> {
  return finish(start(options, behaviour));
}

describe('a run', () => {
  test('accounts for every update of a server that keeps its promises', async () => {
    const scene = start();
    const { ok, problems, counts, screenMs } = await finish(scene);
    expect({ ok, problems }).toEqual({ ok: true, problems: [] });
    expect(counts).toMatchObject({ sent: 70, acknowledged: 70, lost: 0, unanswered: 0, inFlight: 0 });
    expect(counts.delivered + counts.superseded).toBe(70);
    expect(counts.superseded).toBeGreaterThan(0);
    expect(screenMs.max).toBeLessThanOrEqual(1000);
    expect(scene.server.steps.filter((step) => step.startsWith('end'))).toHaveLength(2);
    expect(scene.progress.map(({ phase }) => phase)).toContain('driving');
  });

  test('sends the spacing of the recording, however fast, and nothing from the future', async () => {
    const scene = start({ trips: 1 });
    await finish(scene);
    const times = scene.server.reports.map(({ timestamp }) => timestamp);
    expect(times.every((time, index) => index === 0 || time - (times[index - 1] ?? 0) === 6000)).toBe(true);
    expect(Math.max(...times)).toBeLessThanOrEqual(scene.clock.epochNow());
  });

  test('counts copies of each watcher', async () => {
    const { ok, counts } = await run({ trips: 1, watchers: 3 });
    expect(ok).toBe(true);
    expect(counts.delivered + counts.superseded).toBe(3 * 40);
  });

  test('reuses the drives with new people when there are more trips', async () => {
    const scene = start({ trips: 5 });
    const { ok, counts } = await finish(scene);
    expect(ok).toBe(true);
    expect(counts.sent).toBe(40 + 30 + 40 + 30 + 40);
    expect(new Set(scene.server.lines.map(({ token }) => token)).size).toBe(10);
  });

  test('fails when a batch in the middle of a drive is lost', async () => {
    const { ok, counts } = await run({ trips: 1 }, { loseTicks: [8] });
    expect(ok).toBe(false);
    expect(counts.lost).toBeGreaterThan(0);
  });

  test('waits for the last update as long as the batch window allows', async () => {
    const late = (batchWindowMs: number) =>
      run({ trips: 1, tracks: [track('short', 1)], batchWindowMs }, { stalledTicks: 7 });
    expect((await late(10_000)).counts).toMatchObject({ delivered: 1, lost: 0 });
    expect((await late(1200)).counts).toMatchObject({ delivered: 0, lost: 1 });
  });

  test('fails when the last update does not arrive, and still ends the trip', async () => {
    const scene = start({ trips: 1, tracks: [track('short', 1)] }, { loseTicks: [1, 2] });
    const { problems } = await finish(scene);
    expect(problems).toEqual(['1 acknowledged but lost']);
    expect(scene.server.steps.at(-1)).toMatch(/^end /);
  });

  test('fails when updates come twice', async () => {
    const { ok, counts } = await run({}, { double: true });
    expect(ok).toBe(false);
    expect(counts.doubled).toBe(counts.delivered);
  });

  test('fails when updates of another trip come', async () => {
    const { ok, counts } = await run({}, { leak: true });
    expect(ok).toBe(false);
    expect(counts.misdelivered).toBeGreaterThan(0);
  });

  test('fails when nothing is acknowledged', async () => {
    const { ok, counts } = await run({ trips: 1 }, { mute: true });
    expect(ok).toBe(false);
    expect(counts.unanswered).toBeGreaterThan(0);
    expect(counts.superseded).toBe(0);
  });

  test('takes the refusal of a jump that the rule wants refused, and of no other point', async () => {
    const tracks = [track('jumpy', 40, [20])];
    const jump = (lat: number) => ({
      refuse: (report: { lat: number }) => (report.lat > lat ? 'LOCATION_JUMP' : null),
    });
    const rightly = await run({ trips: 1, tracks }, jump(-10.85));
    expect(rightly.ok).toBe(true);
    expect(rightly.counts).toMatchObject({ refused: { LOCATION_JUMP: 1 }, refusedExpected: 1 });
    const wrongly = await run({ trips: 1, tracks }, jump(-10.88));
    expect(wrongly.ok).toBe(false);
    expect(wrongly.counts.refusedUnexpected).toBeGreaterThan(0);
  });

  test('fails when a point is refused for another reason, though it is a jump', async () => {
    const tracks = [track('jumpy', 40, [20])];
    const behaviour = { refuse: ({ lat }: { lat: number }) => (lat > -10.85 ? 'RATE_LIMITED' : null) };
    const { problems } = await run({ trips: 1, tracks }, behaviour);
    expect(problems).toEqual(['1 refused that should not be']);
  });

  test('catches up after the rider was away, and sends again what the driver held back', async () => {
    const scene = start({ trips: 1 });
    await scene.clock.advance(6000);
    for (const line of scene.server.lines) line.drop();
    await scene.clock.advance(5500);
    for (const line of scene.server.lines) line.restore();
    const { ok, problems, counts, reconnects } = await finish(scene);
    expect({ ok, problems }).toEqual({ ok: true, problems: [] });
    expect(counts.acknowledged).toBe(40);
    expect(reconnects).toBe(2);
  });

  test.each([6700, 7100, 7500, 7900])(
    'sends again what a server that was killed had acknowledged and not published, and nothing is lost (%i ms)',
    async (killedAt) => {
      const scene = start({ trips: 2 });
      await scene.clock.advance(killedAt);
      scene.server.die();
      await scene.clock.advance(2500);
      for (const line of scene.server.lines) line.restore();
      const { ok, problems, counts } = await finish(scene);
      expect({ ok, problems }).toEqual({ ok: true, problems: [] });
      expect(counts.acknowledged).toBe(70);
    },
  );

  test('counts what only the re-join brought as delivered', async () => {
    const scene = start({ trips: 1 });
    await scene.clock.advance(6000);
    const rider = scene.server.lines[1];
    rider?.drop();
    await scene.clock.advance(5500);
    rider?.restore();
    const { ok, problems, counts } = await finish(scene);
    expect({ ok, problems }).toEqual({ ok: true, problems: [] });
    expect(counts.delivered + counts.superseded).toBe(40);
  });

  test('ends all trips soon after an interrupt, without losing what was under way', async () => {
    const scene = start({ trips: 2 });
    await scene.clock.advance(7300);
    scene.interrupt.abort();
    const interruptedAt = scene.clock.now();
    const { ok, interrupted, counts } = await finish(scene);
    expect({ ok, interrupted }).toEqual({ ok: true, interrupted: true });
    expect(counts.sent).toBeLessThan(70);
    expect(scene.clock.now() - interruptedAt).toBeLessThanOrEqual(2050);
    expect(scene.server.steps.filter((step) => step.startsWith('end'))).toHaveLength(2);
  });

  test('gives up on a server that does not answer 5 s after an interrupt', async () => {
    const scene = start({ trips: 1 });
    scene.server.api.move = (_token, _tripId, step, signal) =>
      step === 'start'
        ? Promise.resolve()
        : new Promise((_, reject) => signal?.addEventListener('abort', () => reject(new Error('too late'))));
    await scene.clock.advance(7300);
    scene.interrupt.abort();
    const { ok, problems } = await finish(scene);
    expect(ok).toBe(false);
    expect(problems.join()).toMatch(/could not be ended: too late/);
    expect(scene.clock.now()).toBeLessThanOrEqual(12_300);
  });

  test('fails when the set-up fails, says why once, and ends what had begun', async () => {
    const scene = start({ trips: 12 });
    let bookings = 0;
    scene.server.api.book = async (token) => {
      bookings += 1;
      if (bookings === 11) throw new Error('409 OWN_BOOKING');
      return token;
    };
    const { ok, problems, counts } = await finish(scene);
    expect(ok).toBe(false);
    expect(problems).toEqual([expect.stringMatching(/^set-up of trip \d+ failed: 409 OWN_BOOKING$/)]);
    expect(counts.sent).toBe(0);
    const started = scene.server.steps.filter((step) => step.startsWith('start'));
    const ended = scene.server.steps.filter((step) => step.startsWith('end'));
    expect(ended).toHaveLength(started.length);
  });

  test('fails when the socket door does not let in', async () => {
    const scene = start({ trips: 1 });
    const connect = scene.server.connect;
    const summary = simulate(
      {
        trips: 1,
        speedup: 10,
        watchers: 1,
        batchWindowMs: 1200,
        run: 1,
        tracks: [track('a', 3)],
        interrupt: new AbortController().signal,
        onProgress: () => {},
      },
      {
        api: scene.server.api,
        clock: scene.clock,
        connectWatcher: connect,
        connectDriver: (token) => {
          const line = connect(token);
          line.restore = () => {};
          return line;
        },
      },
    );
    const { problems } = await scene.clock.until(summary);
    expect(problems.join()).toMatch(/the driver could not connect or join in 15 s/);
    await finish(scene);
  });
});
