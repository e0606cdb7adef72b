import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { expect, test } from '@jest/globals';
import * as fc from 'fast-check';
import { Server } from 'socket.io';
import { io } from 'socket.io-client';
import { letClientsGo, spreadTimes } from '../../../services/gateway/let-clients-go.ts';
import { eventually } from '../../support/eventually.ts';

test('R1.2 the times of clients are spread evenly: in no part of the time come more than their share and one', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 500 }),
      fc.integer({ min: 1, max: 60_000 }),
      fc.infiniteStream(fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true })),
      (count, spreadMs, chances) => {
        const times = spreadTimes(count, spreadMs, () => Number(chances.next().value));
        expect(times).toHaveLength(count);
        for (const part of [0.25, 0.5, 0.75, 1]) {
          const early = times.filter((time) => time < part * spreadMs).length;
          expect(Math.abs(early - part * count)).toBeLessThanOrEqual(1);
        }
      },
    ),
  );
});

test('R1.2 who does not go by itself is cut off, in a way from which it comes back by itself', async () => {
  const http = createServer();
  const server = new Server(http);
  await new Promise<void>((resolve) => http.listen(0, '127.0.0.1', resolve));
  const url = `http://127.0.0.1:${(http.address() as AddressInfo).port}`;
  const namespaces = [server.of('/'), server.of('/admin')];
  const clients = ['websocket', 'polling', 'websocket'].map((transport) =>
    io(url, { transports: [transport], forceNew: true, reconnectionDelay: 10 }),
  );
  // A second namespace over the first one's connection
  const second = clients[0]?.io.socket('/admin', {});
  second?.connect();
  const times: number[] = [];
  const reasons: string[] = [];
  for (const client of [...clients, ...(second ? [second] : [])]) {
    client.on('server:drain', ({ reconnectInMs }: { reconnectInMs: number }) => times.push(reconnectInMs));
    client.on('disconnect', (reason) => reasons.push(reason));
  }
  try {
    await eventually(() => expect([...clients, second].every((client) => client?.connected)).toBe(true));
    await letClientsGo(server, namespaces, { spreadMs: 30, random: () => 0.5 });
    await eventually(() => expect(reasons).toHaveLength(4));
    // A connection has one time, whatever it carries
    expect(times.toSorted((a, b) => a - b)).toEqual([5, 5, 15, 25]);
    expect(new Set(reasons)).toEqual(new Set(['transport close']));
    await eventually(() => expect(clients.every((client) => client.connected)).toBe(true));
  } finally {
    second?.close();
    for (const client of clients) client.close();
    // One that polls says goodbye with a request: it must not meet a server that is gone
    await eventually(() => expect(server.engine.clientsCount).toBe(0));
    await server.close();
  }
});

test('nobody to let go of takes no time', async () => {
  const server = new Server(createServer());
  await expect(letClientsGo(server, [server.of('/')], { spreadMs: 60_000 })).resolves.toBeUndefined();
  await server.close();
});
