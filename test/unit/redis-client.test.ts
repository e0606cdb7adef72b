import { once } from 'node:events';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { afterEach, expect, jest, test } from '@jest/globals';
import { Cluster } from 'ioredis';
import { closeConnection, commandConnection, siblingOf, workerConnection } from '../../lib/redis-client.ts';
import { parseRedisUrl } from '../../lib/redis-url.ts';
import { eventually } from '../support/eventually.ts';
import { freePort } from '../support/process.ts';

const sockets = new Set<Socket>();
/** Hears everything and says nothing, as a server that hangs. */
let heard = '';
const silent = createServer((socket) => {
  sockets.add(socket.on('data', (chunk) => (heard += chunk.toString())));
});
afterEach(async () => {
  jest.restoreAllMocks();
  for (const socket of sockets) socket.destroy();
  if (!silent.listening) return;
  silent.close();
  await once(silent, 'close');
});

/** How long the server may say nothing: told from all other timers by its length, ms. */
const silentMs = 600_000;

test('a Cluster connection that is closed while nobody answers leaves no timer behind', async () => {
  silent.listen(0, '127.0.0.1');
  await once(silent, 'listening');
  const { port } = silent.address() as AddressInfo;
  const started = jest.spyOn(globalThis, 'setTimeout');
  const cleared = jest.spyOn(globalThis, 'clearTimeout');

  const connection = workerConnection(
    { topology: 'cluster', nodes: [{ host: '127.0.0.1', port }], tls: false, db: 0, replicas: 0 },
    silentMs,
  );
  connection.on('error', () => undefined);
  // The connection that asks for the slots gives its name first
  await eventually(() => expect(heard).toContain('refresher'));
  closeConnection(connection);

  const timers = started.mock.calls.flatMap(([, ms], n) =>
    ms === silentMs ? [started.mock.results[n]?.value] : [],
  );
  expect(timers.length).toBeGreaterThan(0);
  // Its question is given up after a second
  await eventually(() => expect(cleared.mock.calls.flat()).toEqual(expect.arrayContaining(timers)));
});

test.each(['redis://127.0.0.1:PORT', 'redis-cluster://127.0.0.1:PORT'])(
  '%s: what waits for a connection is refused when it is closed between two attempts',
  async (url) => {
    const parsed = parseRedisUrl(url.replace('PORT', String(await freePort())));
    if ('problem' in parsed) throw new Error(parsed.problem);
    const connection = workerConnection(parsed.target, silentMs);
    connection.on('error', () => undefined);
    const waiting = connection.get('key').then(
      () => 'answered',
      (error: Error) => error.message,
    );
    await new Promise((resolve) => connection.once('reconnecting', resolve));
    closeConnection(connection);
    expect(await waiting).toBe('Connection is closed.');
  },
);

test('a subscription that nobody waits for, as ioredis makes it anew by itself, fails without ending the process', async () => {
  const unhandled = jest.fn();
  process.on('unhandledRejection', unhandled);
  try {
    silent.listen(0, '127.0.0.1');
    await once(silent, 'listening');
    const { port } = silent.address() as AddressInfo;
    const connection = workerConnection(
      { topology: 'single', nodes: [{ host: '127.0.0.1', port }], tls: false, db: 0, replicas: 0 },
      silentMs,
    );
    if (connection instanceof Cluster) throw new Error('It is one server');
    heard = '';
    void connection.subscribe('channel');
    await eventually(() => expect(heard).not.toBe(''));
    const ended = once(connection, 'end');
    closeConnection(connection);
    await ended;
    await new Promise(setImmediate);
    expect(unhandled).not.toHaveBeenCalled();
  } finally {
    process.off('unhandledRejection', unhandled);
  }
});

test('a connection that was closed gets no second one: nobody would close it', async () => {
  const parsed = parseRedisUrl(`redis://127.0.0.1:${await freePort()}`);
  if ('problem' in parsed) throw new Error(parsed.problem);
  const connection = commandConnection(parsed.target);
  connection.on('error', () => undefined);
  closeConnection(connection);
  await expect(siblingOf(connection).ping()).rejects.toThrow('Connection is closed.');
});
