/**
 * R3.3, R1.4: everybody presses SOS at once, on open sockets and by REST, through the balancer on two gateways and two apis: is each press
 * accepted, and does anybody lose a connection? The baseline goes straight to the nodes, half to each: what the balancer may cost
 * and must not break.
 */
import { randomUUID } from 'node:crypto';
import { request as httpRequest } from 'node:http';
import { io } from 'socket.io-client';
import { atMost, type Bench, type Figures } from '../support/bench/result.ts';
import { quantile } from '../support/bench/sos-load.ts';
import { aracaju, type ClientSocket, signIn } from '../support/clients.ts';
import { startCluster } from '../support/cluster.ts';
import { eventually } from '../support/eventually.ts';
import { freePort } from '../support/process.ts';

const roles = {
  data: 'accounts,trips,notify,admin,safety,location',
  sos: 'sos',
  'api-1': 'api',
  'api-2': 'api',
  'gateway-1': 'gateway',
  'gateway-2': 'gateway',
};
const signInsAtOnce = 20;
const connectsAtOnce = 50;
/** As long as a phone waits before it presses again, ms. */
const patienceMs = 30_000;
const location = { ...aracaju, accuracy: 8 };

interface Size {
  /** Whose the sockets are, in turns. */
  riders: number;
  socketCount: number;
  pressesEach: number;
  restPresses: number;
}
/** Before anything counts. */
const warmUp: Size = { riders: 200, socketCount: 200, pressesEach: 5, restPresses: 1000 };

/** What became of the presses of one burst. */
interface Burst {
  accepted: number;
  /** By code, status or error. */
  others: Map<string, number>;
  acceptedMs: number[];
  tookMs: number;
}

/** All at once; `press` resolves with null when it was accepted, else with why not. */
async function pressAll(presses: readonly (() => Promise<string | null>)[]): Promise<Burst> {
  const outcome: Burst = { accepted: 0, others: new Map(), acceptedMs: [], tookMs: 0 };
  const began = performance.now();
  await Promise.all(
    presses.map(async (press) => {
      const why = await press();
      if (why !== null) outcome.others.set(why, (outcome.others.get(why) ?? 0) + 1);
      else {
        outcome.accepted++;
        outcome.acceptedMs.push(performance.now() - began);
      }
    }),
  );
  outcome.tookMs = performance.now() - began;
  return outcome;
}

const pressOn = (socket: ClientSocket) => async (): Promise<string | null> => {
  try {
    const ack = await socket.timeout(patienceMs).emitWithAck('sos:trigger', { key: randomUUID(), location });
    return ack.ok ? null : ack.error.code;
  } catch (error) {
    return String(error);
  }
};

/** On a connection of its own, as phones have. */
const pressAt = (apiUrl: string, token: string) => (): Promise<string | null> =>
  new Promise((resolve) => {
    const body = JSON.stringify({ location });
    const headers = {
      authorization: `Bearer ${token}`,
      'content-type': 'application/json',
      'content-length': Buffer.byteLength(body),
    };
    const options = { method: 'POST', agent: false, headers, timeout: patienceMs } as const;
    const call = httpRequest(new URL('/api/v1/sos', apiUrl), options, ({ statusCode }) => {
      resolve(statusCode === 202 ? null : String(statusCode));
      call.destroy();
    });
    call.on('timeout', () => call.destroy(new Error('no answer')));
    call.on('error', (error) => resolve(error.message));
    call.end(body);
  });

const told = ({ others }: Burst) => [...others].map(([why, times]) => `${why} ${times} times`).join(', ');

const notAccepted = ({ others }: Burst): number => [...others.values()].reduce((sum, each) => sum + each, 0);

const figuresOf = (name: string, burst: Burst): Figures => ({
  [`${name}Accepted`]: burst.accepted,
  [`${name}NotAccepted`]: notAccepted(burst),
  [`${name}AcceptedP50Ms`]: quantile(burst.acceptedMs, 0.5),
  [`${name}AcceptedP99Ms`]: quantile(burst.acceptedMs, 0.99),
  [`${name}AcceptedMaxMs`]: quantile(burst.acceptedMs, 1),
  [`${name}PerS`]: burst.accepted / (burst.tookMs / 1000),
});

const bench: Bench = async ({ quick }) => {
  const size: Size = quick
    ? { riders: 500, socketCount: 500, pressesEach: 2, restPresses: 1000 }
    : { riders: 5000, socketCount: 5000, pressesEach: 6, restPresses: 5000 };
  // Each is told of an alert on all sockets that it has
  const crowded: Size = { ...size, riders: size.riders / 125 };
  const ports = { api: await freePort(), socket: await freePort(), metrics: await freePort() };
  const cluster = await startCluster({
    roles,
    redis: 'single',
    ports,
    env: { RATE_LIMIT_PER_USER: '10000000', RATE_LIMIT_PER_IP: '10000000' },
  });
  const sockets: ClientSocket[] = [];
  try {
    const tokens: string[] = [];
    while (tokens.length < size.riders) {
      const riders = await Promise.all(Array.from({ length: signInsAtOnce }, () => signIn(cluster)));
      tokens.push(...riders.map(({ token }) => token));
    }

    const run = async (
      apiUrls: readonly string[],
      socketUrls: readonly string[],
      { riders, socketCount, pressesEach, restPresses }: Size,
    ) => {
      const tokenOf = (n: number) => tokens[n % riders] ?? '';
      const urlOf = (urls: readonly string[], n: number) => urls[n % urls.length] ?? '';
      let drops = 0;
      const own: ClientSocket[] = [];
      for (let n = 0; n < socketCount; n += connectsAtOnce) {
        const batch = Array.from({ length: Math.min(connectsAtOnce, socketCount - n) }, (_, index) => {
          const auth = { token: tokenOf(n + index) };
          const options = { auth, transports: ['websocket'], forceNew: true };
          const socket: ClientSocket = io(urlOf(socketUrls, n + index), options);
          socket.on('disconnect', () => drops++);
          return socket;
        });
        own.push(...batch);
        sockets.push(...batch);
        await eventually(() => {
          if (batch.some(({ connected }) => !connected)) throw new Error('Not all are connected');
        }, 30_000);
      }
      const onSockets = await pressAll(own.flatMap((socket) => Array(pressesEach).fill(pressOn(socket))));
      const byRest = await pressAll(
        Array.from({ length: restPresses }, (_, n) => pressAt(urlOf(apiUrls, n), tokenOf(n))),
      );
      const dropped = drops;
      for (const socket of own) socket.close();
      const figures = { ...figuresOf('sockets', onSockets), ...figuresOf('rest', byRest), drops: dropped };
      const lost = notAccepted(onSockets) + notAccepted(byRest);
      return { figures, lost, dropped, why: [told(onSockets), told(byRest)].filter(Boolean).join('; ') };
    };

    const nodes = [
      [cluster.role('api-1').apiUrl, cluster.role('api-2').apiUrl],
      [cluster.role('gateway-1').socketUrl, cluster.role('gateway-2').socketUrl],
    ] as const;
    await run(...nodes, warmUp);
    const straight = await run(...nodes, size);
    const ours = await run([cluster.apiUrl], [cluster.socketUrl], size);
    const many = await run([cluster.apiUrl], [cluster.socketUrl], crowded);
    const manyFigures = Object.entries(many.figures).map(([name, value]) => [
      `many${name.replace(/^./, (first) => first.toUpperCase())}`,
      value,
    ]);
    const figures: Figures = { ...ours.figures, ...Object.fromEntries(manyFigures) };
    const baseline: Figures = straight.figures;
    const lost = ours.lost + many.lost;
    return {
      name: 'burst',
      lost,
      doubled: 0,
      figures,
      baseline,
      ratio: Object.fromEntries(
        ['socketsPerS', 'restPerS'].map((name) => [name, (figures[name] ?? 0) / (baseline[name] ?? 0)]),
      ),
      targets: [
        atMost('R3.3', 'presses through the balancer that were not accepted', lost, 0),
        atMost('R1.4', 'connections that were cut', ours.dropped, 0),
        atMost('R1.4', 'connections of riders with many sockets that were cut', many.dropped, 0),
      ],
      notes: [
        `${size.socketCount} riders with a socket each press ${size.pressesEach} times at once; then ${size.restPresses} presses by REST at once, a connection each. Two gateways, two apis, everything and the clients on this machine. A rider's further press joins the open alert; each is answered by itself. many…: the same with ${crowded.riders} riders, who have ${size.socketCount / crowded.riders} sockets each.`,
        ...Object.entries({ Ours: ours.why, Baseline: straight.why, 'Many sockets': many.why })
          .filter(([, why]) => why !== '')
          .map(([whose, why]) => `${whose}: ${why}`),
      ],
    };
  } finally {
    for (const socket of sockets) socket.close();
    await cluster.stop();
  }
};

export default bench;
