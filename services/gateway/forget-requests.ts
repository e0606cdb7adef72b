import { IncomingMessage, type Server } from 'node:http';
import type { Server as IoServer } from 'socket.io';
import type { UpgradeListener } from './refuse-handshakes.ts';

interface Connection {
  request: IncomingMessage;
}

/** Of what a client has sent, all that is asked for once it is connected: where a proxy of ours says that it comes from. */
const keptHeaders = ({ headers }: IncomingMessage) => {
  const forwardedFor = headers['x-forwarded-for'];
  return forwardedFor === undefined ? {} : { 'x-forwarded-for': forwardedFor };
};

/** What Engine.IO, ws and Socket.IO read of a request, in an object that costs a tenth of Node's. */
const lightCopy = (request: IncomingMessage, headers: IncomingMessage['headers']): IncomingMessage => {
  const { method, url, socket } = request;
  // Engine.IO's own: the query, when it has parsed it
  const query: unknown = Reflect.get(request, '_query');
  const copy = { method, url, headers, socket, connection: socket, ...(query ? { _query: query } : {}) };
  return copy as unknown as IncomingMessage;
};

/**
 * Engine.IO keeps the HTTP request of a connection as long as that is open, in two places, one of them out of reach: some
 * 3 KB, and all headers that the client and its proxies have sent. So that it has something lighter to keep, it is given a
 * copy, whose headers go once they have been answered. To be called when its handlers are at the server.
 */
export function forgetRequests(server: Server, io: IoServer): void {
  const upgradeHandlers = server.listeners('upgrade') as UpgradeListener[];
  server.removeAllListeners('upgrade');
  server.on('upgrade', (request, socket, head) => {
    const copy = lightCopy(request, request.headers);
    for (const handle of upgradeHandlers) handle(copy, socket, head);
  });
  io.engine.on('headers', (_answer: object, request: IncomingMessage) => {
    // A poll's own request goes with its answer
    if (!(request instanceof IncomingMessage)) Reflect.set(request, 'headers', keptHeaders(request));
  });
  io.engine.on('connection', (connection: Connection) => {
    const { request } = connection;
    if (request instanceof IncomingMessage) connection.request = lightCopy(request, keptHeaders(request));
  });
}
