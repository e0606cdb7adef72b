import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import * as fc from 'fast-check';
import { Server } from 'socket.io';
import {
  clientFrame,
  comeBackAfterMs,
  type LeanSocket,
  openLean,
  serverFrame,
} from '../../support/bench/lean-socket.ts';
import { eventually } from '../../support/eventually.ts';

describe('frames', () => {
  /** A server's frame is a client's without a mask. */
  const unmasked = (frame: Buffer, length: number): Buffer => {
    const head = Buffer.from(frame.subarray(0, frame.length - length - 4));
    head[1] = (head[1] ?? 0) & 0x7f;
    return Buffer.concat([head, frame.subarray(frame.length - length)]);
  };

  test('of every length come back as they were, with what is behind them, and not before they are whole', () => {
    const sizes = fc.oneof(fc.nat(300), fc.constantFrom(0, 125, 126, 65_535, 65_536));
    fc.assert(
      fc.property(sizes, fc.uint8Array({ maxLength: 20 }), (length, behind) => {
        const payload = Buffer.alloc(length, 'x');
        const frame = unmasked(clientFrame(1, payload), length);
        expect(serverFrame(frame.subarray(0, frame.length - 1))).toBeNull();
        const read = serverFrame(Buffer.concat([frame, behind]));
        expect([read?.opcode, read?.payload.equals(payload)]).toEqual([1, true]);
        expect(read?.rest).toEqual(Buffer.from(behind));
      }),
    );
  });
});

test('it comes back after 0.5 to 1.5 s, later after each failure, and within 5 s', () => {
  expect([comeBackAfterMs(0, 0), comeBackAfterMs(0, 1)]).toEqual([500, 1500]);
  expect([comeBackAfterMs(1, 0), comeBackAfterMs(1, 1)]).toEqual([1000, 3000]);
  expect(comeBackAfterMs(10, 0.5)).toBe(5000);
});

describe('with a real server', () => {
  const http = createServer();
  const io = new Server(http, { pingInterval: 30, pingTimeout: 300 });
  let url: string;
  const open: LeanSocket[] = [];

  beforeAll(async () => {
    io.use((socket, next) => {
      next(
        socket.handshake.auth['token'] === 'good'
          ? undefined
          : Object.assign(new Error('No'), { data: { code: 'UNAUTHENTICATED' } }),
      );
    });
    io.on('connection', (socket) => {
      socket.on('echo', (payload: unknown, answer: (payload: unknown) => void) => answer(payload));
      socket.on('tell', (payload: unknown) => socket.emit('told', payload));
    });
    await new Promise<void>((resolve) => http.listen(0, '127.0.0.1', resolve));
    url = `http://127.0.0.1:${(http.address() as AddressInfo).port}`;
  });
  afterAll(async () => {
    for (const socket of open) socket.drop();
    await io.close();
  });

  const connected = (onEvent?: (name: string, payload: unknown) => void, onEnd = (_why: string) => {}) =>
    new Promise<LeanSocket>((resolve) => {
      const socket = openLean({
        url,
        auth: { token: 'good' },
        onConnect: () => resolve(socket),
        onEnd,
        ...(onEvent ? { onEvent } : {}),
      });
      open.push(socket);
    });

  test('it connects, asks, hears events of any size, and stays while it answers pings', async () => {
    const heard: unknown[] = [];
    let ended = '';
    const socket = await connected(
      (name, payload) => heard.push([name, payload]),
      (why) => (ended = why),
    );
    const { conn } = [...io.sockets.sockets.values()].at(-1) ?? {};
    let pongs = 0;
    conn?.on('packet', ({ type }: { type: string }) => type === 'pong' && pongs++);
    expect(await Promise.all([socket.ask('echo', { n: 1 }), socket.ask('echo', 'ü')])).toEqual([
      { n: 1 },
      'ü',
    ]);
    const long = 'x'.repeat(100_000);
    socket.send(`42${JSON.stringify(['tell', long])}`);
    await eventually(() => expect(heard).toEqual([['told', long]]));
    await eventually(() => expect(pongs).toBeGreaterThan(2));
    expect(ended).toBe('');
  });

  test('it says why it was refused, and that its connection was cut', async () => {
    const refused = await new Promise((onEnd) => {
      openLean({ url, auth: {}, onConnect: () => onEnd('connected'), onEnd });
    });
    expect(refused).toBe('UNAUTHENTICATED');
    const cut = new Promise((onEnd) => void connected(undefined, onEnd));
    await eventually(() => expect(io.sockets.sockets.size).toBe(2));
    [...io.sockets.sockets.values()].at(-1)?.disconnect(true);
    expect(await cut).toBe('io server disconnect');
    const nobody = await new Promise((onEnd) => {
      openLean({ url: 'http://127.0.0.1:1', auth: {}, onConnect: () => onEnd('connected'), onEnd });
    });
    expect(nobody).toContain('ECONNREFUSED');
  });
});
