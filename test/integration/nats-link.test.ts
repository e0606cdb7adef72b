import { once } from 'node:events';
import { type AddressInfo, connect as connectTcp, createServer, type Socket } from 'node:net';
import { setTimeout as pause } from 'node:timers/promises';
import { afterEach, describe, expect, test } from '@jest/globals';
import { Encoder } from 'cbor-x';
import * as fc from 'fast-check';
import type { ServiceBroker, ServiceSchema } from 'moleculer';
import { connect } from 'nats';
import { publicError } from '../../lib/errors.ts';
import { healthOf } from '../../lib/health.ts';
import { makeBroker } from '../support/broker.ts';
import { eventually } from '../support/eventually.ts';
import { startNats, type TestNats } from '../support/nats.ts';
import { freePort } from '../support/process.ts';

/** What is open; closed after each test, in this order. */
let brokers: ServiceBroker[] = [];
let nats: TestNats | undefined;
afterEach(async () => {
  await Promise.all(brokers.map((broker) => broker.stop()));
  brokers = [];
  await nats?.stop();
  nats = undefined;
});

/** What a handler waits for before it answers, and how many have begun. */
let held: Promise<void> = Promise.resolve();
let begun = 0;

const answering = (name: string): ServiceSchema => ({
  name,
  actions: {
    [name === 'accounts' ? 'logout' : 'flush']: {
      permissions: 'public',
      async handler() {
        begun++;
        await held;
        return null;
      },
    },
  },
});

/** Two nodes, each with a service that the other one calls. */
function twoNodes(url: string): { left: ServiceBroker; right: ServiceBroker } {
  const left = makeBroker('left', { NATS_URL: url });
  const right = makeBroker('right', { NATS_URL: url });
  left.createService(answering('accounts'));
  right.createService(answering('location'));
  brokers.push(left, right);
  return { left, right };
}

const codeOf = (call: Promise<unknown>) =>
  call.then(
    () => 'ok',
    (error: unknown) => publicError(error).code,
  );
const across = ({ left, right }: ReturnType<typeof twoNodes>) =>
  Promise.all([codeOf(left.call('location.flush')), codeOf(right.call('accounts.logout'))]);
const brokerCheck = async (broker: ServiceBroker) => (await healthOf(broker).report()).checks['broker'];

describe('a stop', () => {
  test('fails no call of a node that is too busy to hear of it', async () => {
    nats = await startNats();
    const [caller, first, second] = ['caller', 'first', 'second'].map((name) =>
      makeBroker(name, { NATS_URL: nats!.url }),
    ) as [ServiceBroker, ServiceBroker, ServiceBroker];
    brokers.push(caller, first, second);
    for (const broker of [first, second]) broker.createService(answering('location'));
    await Promise.all(brokers.map((broker) => broker.start()));
    await eventually(() =>
      expect(caller.registry.getServiceList({}).filter(({ name }) => name === 'location')).toHaveLength(2),
    );
    // It sends, but what comes in waits its turn
    const tx = caller.transit!.tx as unknown as {
      incomingMessage(type: string, bytes: Buffer): Promise<unknown>;
    };
    const incoming = tx.incomingMessage.bind(tx);
    let busy = Promise.resolve();
    tx.incomingMessage = async (type, bytes) => {
      await busy;
      return incoming(type, bytes);
    };
    const stopped = new AbortController();
    const enough = Promise.withResolvers<void>();
    busy = Promise.all([pause(600), enough.promise]).then(() => undefined);
    const stopping = first.stop().finally(() => stopped.abort());
    const codes: Promise<string>[] = [];
    while (!stopped.signal.aborted || codes.length <= 10) {
      codes.push(codeOf(caller.call('location.flush')));
      if (codes.length > 10) enough.resolve();
      await pause(5);
    }
    await stopping;
    expect(codes.length).toBeGreaterThan(10);
    expect(new Set(await Promise.all(codes))).toEqual(new Set(['ok']));
  }, 20_000);

  test('waits for no node that hangs for longer than a second', async () => {
    nats = await startNats();
    const { left, right } = twoNodes(nats.url);
    await Promise.all(brokers.map((broker) => broker.start()));
    await eventually(async () => expect(await across({ left, right })).toEqual(['ok', 'ok']));
    const tx = right.transit!.tx as unknown as { incomingMessage(): Promise<unknown> };
    tx.incomingMessage = () => new Promise(() => {});
    const began = performance.now();
    await left.stop();
    const took = performance.now() - began;
    expect(took).toBeGreaterThan(900);
    expect(took).toBeLessThan(4000);
  });
});

describe('NATS is away', () => {
  test('at the start: services start, calls to others fail at once, and both ways work once it comes', async () => {
    const port = await freePort();
    const nodes = twoNodes(`nats://127.0.0.1:${port}`);
    const since = performance.now();
    await Promise.all(brokers.map((broker) => broker.start()));
    expect(performance.now() - since).toBeLessThan(4000);
    expect(await healthOf(nodes.left).report()).toMatchObject({
      ready: true,
      checks: { broker: 'unreachable' },
    });
    expect(await codeOf(nodes.left.call('accounts.logout'))).toBe('ok');
    expect(await across(nodes)).toEqual(['UNAVAILABLE', 'UNAVAILABLE']);

    nats = await startNats(port);
    await eventually(async () => expect(await across(nodes)).toEqual(['ok', 'ok']), 8000);
    expect(await brokerCheck(nodes.left)).toBe('ok');
  }, 30_000);

  test('for seconds: local calls go on, others fail at once, an event is only lost, and all comes back', async () => {
    nats = await startNats();
    const nodes = twoNodes(nats.url);
    await Promise.all(brokers.map((broker) => broker.start()));
    await eventually(async () => expect(await across(nodes)).toEqual(['ok', 'ok']));

    await nats.stop();
    await eventually(async () => expect(await brokerCheck(nodes.left)).toBe('unreachable'));
    const since = performance.now();
    expect(await codeOf(nodes.left.call('accounts.logout'))).toBe('ok');
    expect(await across(nodes)).toEqual(['UNAVAILABLE', 'UNAVAILABLE']);
    await nodes.left.emit('contacts.changed', { userId: 'usr_a' });
    expect(performance.now() - since).toBeLessThan(2000);
    // Long enough for each to take the other for dead
    await eventually(() => expect(nodes.left.registry.nodes.get('right')?.available).toBe(false), 12_000);

    nats = await startNats(Number(new URL(nats.url).port));
    await eventually(async () => expect(await across(nodes)).toEqual(['ok', 'ok']), 8000);
    expect(await brokerCheck(nodes.right)).toBe('ok');
  }, 40_000);

  test('for a moment: an answer that was ready meanwhile reaches its caller', async () => {
    nats = await startNats();
    const nodes = twoNodes(nats.url);
    await Promise.all(brokers.map((broker) => broker.start()));
    await eventually(async () => expect(await across(nodes)).toEqual(['ok', 'ok']));

    let release = () => {};
    held = new Promise((resolve) => (release = resolve));
    begun = 0;
    // The caller's patience is not what this is about
    const answer = codeOf(nodes.left.call('location.flush', {}, { timeout: 20_000 }));
    await eventually(() => expect(begun).toBe(1));
    await nats.stop();
    // An answer into a connection that is just being lost is lost with it
    await eventually(async () => expect(await brokerCheck(nodes.right)).toBe('unreachable'));
    release();
    nats = await startNats(Number(new URL(nats.url).port));
    expect(await answer).toBe('ok');
  }, 30_000);

  test.each(['before the start', 'after the start'])(
    '%s: the stop does not wait for it',
    async (when) => {
      const port = await freePort();
      if (when === 'after the start') nats = await startNats(port);
      const broker = makeBroker('alone', { NATS_URL: `nats://127.0.0.1:${port}` });
      brokers.push(broker);
      await broker.start();
      await nats?.stop();
      await eventually(async () => expect(await brokerCheck(broker)).toBe('unreachable'));
      const since = performance.now();
      await broker.stop();
      expect(performance.now() - since).toBeLessThan(3000);
    },
    20_000,
  );
});

describe('a node whose connection is lost', () => {
  let line: Line | undefined;
  afterEach(async () => {
    await line?.cut();
    line = undefined;
    held = Promise.resolve();
  });

  /** A line to NATS that can be cut, as a process that dies cuts its own. */
  interface Line {
    url: string;
    cut(): Promise<void>;
    mend(): Promise<void>;
  }

  async function lineTo(url: string): Promise<Line> {
    const { hostname, port } = new URL(url);
    const sockets = new Set<Socket>();
    const relay = createServer((near) => {
      const far = connectTcp(Number(port), hostname);
      for (const [one, other] of [
        [near, far],
        [far, near],
      ] as const) {
        sockets.add(one);
        one.on('error', () => undefined);
        one.on('close', () => other.destroy());
        one.pipe(other);
      }
    });
    const listen = (on: number) => once(relay.listen(on, '127.0.0.1'), 'listening');
    await listen(0);
    const { port: own } = relay.address() as AddressInfo;
    return {
      url: `nats://127.0.0.1:${own}`,
      async cut() {
        if (!relay.listening) return;
        const closed = once(relay, 'close');
        relay.close();
        for (const socket of sockets) socket.destroy();
        sockets.clear();
        await closed;
      },
      mend: async () => void (await listen(own)),
    };
  }

  /** `left` calls `right`, whose line it is. */
  async function twoNodesOnALine() {
    nats = await startNats();
    line = await lineTo(nats.url);
    const [left, right] = [
      makeBroker('left', { NATS_URL: nats.url }),
      makeBroker('right', { NATS_URL: line.url }),
    ];
    right.createService(answering('location'));
    brokers.push(left, right);
    await Promise.all(brokers.map((broker) => broker.start()));
    // No time of the caller's ends before that of the test
    const flush = () => codeOf(left.call('location.flush', {}, { timeout: 60_000 }));
    await eventually(async () => expect(await flush()).toBe('ok'));
    const { promise, resolve: release } = Promise.withResolvers<void>();
    held = promise;
    begun = 0;
    const answer = flush();
    await eventually(() => expect(begun).toBe(1));
    await line.cut();
    await eventually(async () => expect(await brokerCheck(right)).toBe('unreachable'));
    return { line, flush, answer, release, left };
  }

  /** Two nodes with this service, and who calls them; the first one's line can be cut. */
  async function callerOfTwo(schema: ServiceSchema) {
    nats = await startNats();
    line = await lineTo(nats.url);
    const [caller, first, second] = [
      makeBroker('caller', { NATS_URL: nats.url }),
      makeBroker('first', { NATS_URL: line.url }),
      makeBroker('second', { NATS_URL: nats.url }),
    ];
    brokers.push(caller, first, second);
    for (const broker of [first, second]) broker.createService(schema);
    await Promise.all(brokers.map((broker) => broker.start()));
    const known = () =>
      caller.registry.getServiceList({ onlyAvailable: true }).filter(({ name }) => name === schema.name)
        .length;
    await eventually(() => expect(known()).toBe(2));
    begun = 0;
    await line.cut();
    await eventually(async () => expect(await brokerCheck(first)).toBe('unreachable'));
    return { caller, known };
  }

  test('+ gets no call: each goes to another node at once, whatever it does', async () => {
    const { caller, known } = await callerOfTwo(answering('accounts'));
    const logout = () => codeOf(caller.call('accounts.logout', {}, { timeout: 60_000 }));
    expect(new Set(await Promise.all(Array.from({ length: 40 }, logout)))).toEqual(new Set(['ok']));
    expect(begun).toBe(40);
    expect(known()).toBe(1);
    const undelivered = caller.metrics.getMetric('broker.undelivered.total')?.snapshot();
    expect(undelivered).toEqual([expect.objectContaining({ labels: { type: 'REQ' } })]);
    await line?.mend();
    await eventually(() => expect(known()).toBe(2), 10_000);
  }, 30_000);

  test('+ gets no event that another node of its group can take', async () => {
    const heard: string[] = [];
    const { caller } = await callerOfTwo({
      name: 'notify',
      events: {
        'contacts.changed': (ctx: { params: { userId: string } }) => void heard.push(ctx.params.userId),
      },
    });
    const users = Array.from({ length: 40 }, (_, n) => `usr_${n}`);
    for (const userId of users) await caller.emit('contacts.changed', { userId });
    await eventually(() => expect(heard.toSorted()).toEqual(users.toSorted()));
  }, 30_000);

  test('tells its caller what it was working on, when it is back in time', async () => {
    const { flush, answer, release, left } = await twoNodesOnALine();
    // There is no other node that could be asked
    expect(await flush()).toBe('UNAVAILABLE');
    await line?.mend();
    await eventually(() => expect(left.registry.nodes.get('right')?.available).toBe(true), 10_000);
    release();
    expect(await answer).toBe('ok');
  }, 30_000);

  test('owes nobody an answer when it does not come back', async () => {
    const { flush, answer, release } = await twoNodesOnALine();
    expect(await flush()).toBe('UNAVAILABLE');
    expect(await answer).toBe('UNAVAILABLE');
    release();
  }, 30_000);
});

describe('garbage on NATS', () => {
  /** All that nodes listen to (MOL-<namespace>.<type>[.<node>]; B: to any one that has the action, or hears the event). */
  const types = ['REQ', 'RES', 'EVENT', 'INFO', 'DISCOVER', 'DISCONNECT', 'HEARTBEAT', 'PING', 'PONG'];
  const subjects = (namespace: string) =>
    [
      ...types.flatMap((type) => [type, `${type}.left`, `${type}.right`]),
      'REQB.location.flush',
      'REQB.accounts.logout',
    ].map((rest) => `MOL-${namespace}.${rest}`);
  const cbor = new Encoder({ useRecords: false });
  const fields =
    'ver sender id action event data params meta success error services seq instanceID groups stream level time arrived'.split(
      ' ',
    );
  const believable = fc.oneof(
    fc.constantFrom(
      '5',
      'left',
      'right',
      'ghost',
      'location.flush',
      'accounts.logout',
      'trip.ended',
      '',
      'a b',
      '>',
    ),
    fc.anything({ maxDepth: 2 }),
  );
  const shaped = fc
    .dictionary(fc.constantFrom(...fields), believable, { maxKeys: fields.length })
    .chain((packet) => fc.boolean().map((right) => (right ? { ...packet, ver: '5' } : packet)))
    .map((packet): Uint8Array => cbor.encode(packet));
  const garbage = fc.oneof(
    fc.uint8Array({ maxLength: 300 }),
    shaped,
    shaped.chain((bytes) => fc.nat(bytes.length).map((length) => bytes.subarray(0, length))),
  );

  test('R2 + is dropped and counted, a few lines mention it, and calls and events go on', async () => {
    nats = await startNats();
    const nodes = twoNodes(nats.url);
    await Promise.all(brokers.map((broker) => broker.start()));
    await eventually(async () => expect(await across(nodes)).toEqual(['ok', 'ok']));
    const lines: unknown[] = [];
    for (const { transit } of brokers)
      for (const level of ['warn', 'error'] as const)
        transit!.logger[level] = (line) => void lines.push(line);
    const unhandled: unknown[] = [];
    const onUnhandled = (error: unknown) => void unhandled.push(error);
    process.on('unhandledRejection', onUnhandled);

    const vandal = await connect({ servers: nats.url.slice('nats://'.length) });
    const all = subjects(nodes.left.namespace);
    const thrown = fc.sample(garbage, { numRuns: 200 * all.length, seed: 1 });
    for (const [n, bytes] of thrown.entries()) vandal.publish(all[n % all.length] ?? '', bytes);
    vandal.publish(all[0] ?? '', new Uint8Array(1_000_000));
    await vandal.drain();

    const refused = ({ metrics }: ServiceBroker) =>
      metrics
        .list({ includes: 'broker.packets.refused.total' })
        .flatMap(({ values }) => [...values.values()] as { value: number }[])
        .reduce((sum, { value }) => sum + value, 0);
    // Right ones among them are answered, to whoever they say has asked
    await eventually(() => {
      for (const broker of brokers) expect(refused(broker)).toBeGreaterThan(1000);
    });
    await eventually(async () => expect(await across(nodes)).toEqual(['ok', 'ok']), 10_000);
    process.off('unhandledRejection', onUnhandled);
    expect(unhandled).toEqual([]);
    expect(lines.length).toBeLessThan(20);
  }, 30_000);
});
