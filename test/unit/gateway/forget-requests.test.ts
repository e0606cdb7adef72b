import { createServer, IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { Server } from 'socket.io';
import { io, type Socket } from 'socket.io-client';
import { forgetRequests } from '../../../services/gateway/forget-requests.ts';
import { eventually } from '../../support/eventually.ts';

const http = createServer();
const server = new Server(http, {
  cors: { origin: true },
  allowRequest: ({ headers: { origin } }, done) => done(null, origin !== 'https://evil.example'),
});
let url: string;
const open: Socket[] = [];

beforeAll(async () => {
  server.of('/later').on('connection', () => undefined);
  forgetRequests(http, server);
  await new Promise<void>((resolve) => http.listen(0, '127.0.0.1', resolve));
  url = `http://127.0.0.1:${(http.address() as AddressInfo).port}`;
});
afterAll(async () => {
  for (const socket of open) socket.close();
  await server.close();
});

const client = (path: string, transports: string[], headers: Record<string, string>): Socket => {
  const socket = io(`${url}${path}`, {
    transports,
    extraHeaders: headers,
    reconnection: false,
    forceNew: true,
  });
  socket.on('ask', (answer: (text: string) => void) => answer('answer'));
  open.push(socket);
  return socket;
};

test.each([['websocket'], ['polling'], ['polling', 'websocket']])(
  'R1.1 a connection by %s %s keeps where it comes from, and nothing else of its request',
  async (...transports) => {
    const names = transports.filter((name) => name !== undefined);
    const headers = { 'x-forwarded-for': '203.0.113.7', 'x-long': 'x'.repeat(1000) };
    // The namespace is asked for when the request has long been answered
    const socket = client('/later', names, headers);
    await eventually(() => expect(socket.connected).toBe(true));
    await eventually(() => expect(socket.io.engine.transport.name).toBe(names.at(-1)));
    const there = server.of('/later').sockets.get(socket.id ?? '');
    expect(there?.handshake.headers).toEqual({ 'x-forwarded-for': '203.0.113.7' });
    expect(there?.handshake.address).toContain('127.0.0.1');
    expect(there?.handshake.query).toMatchObject({ EIO: '4' });
    expect(there?.request).not.toBeInstanceOf(IncomingMessage);
    expect(await there?.timeout(5000).emitWithAck('ask')).toBe('answer');
  },
);

test('who comes from elsewhere is still refused', async () => {
  const socket = client('/', ['websocket'], { origin: 'https://evil.example' });
  await new Promise((resolve) => socket.once('connect_error', resolve));
  expect(socket.connected).toBe(false);
});
