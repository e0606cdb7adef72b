/** What a socket door does when it takes nobody more: answers before Socket.IO has made anything of the request. */
import type { IncomingMessage, RequestListener, Server } from 'node:http';
import type { Duplex } from 'node:stream';
import { AppError, publicError } from '../../lib/errors.ts';
import { vacancyPath } from './balancer-checks.ts';

/** `full`: as many connections as the node may have. `draining`: it is about to stop. */
export type Refusal = 'full' | 'draining';

/** What a server has listen to its `upgrade`. */
export type UpgradeListener = (request: IncomingMessage, socket: Duplex, head: Buffer) => void;

const retryAfterS = 2;
const body = JSON.stringify({ error: publicError(new AppError('UNAVAILABLE', { retryAfterS })) });
const headers = {
  'Content-Type': 'application/json; charset=utf-8',
  'Content-Length': String(Buffer.byteLength(body)),
  'Retry-After': String(retryAfterS),
  Connection: 'close',
};
const rawRefusal = [
  'HTTP/1.1 503 Service Unavailable',
  ...Object.entries(headers).map(([name, value]) => `${name}: ${value}`),
  '',
  body,
].join('\r\n');

/** Asks for a new connection; what belongs to an open one names it by `sid` (Engine.IO protocol 4). */
const isHandshake = ({ method, url = '' }: IncomingMessage): boolean =>
  method === 'GET' && url.startsWith('/socket.io/') && !/[?&]sid=/.test(url);

/**
 * Puts itself before the server's own handlers, which must be there already. While `reason` names one, a handshake (of
 * polling and of WebSocket alike) is a 503 with Retry-After, which a balancer takes to another node; open connections
 * notice nothing. `onRefused` is for counting.
 */
export function refuseHandshakes(
  server: Server,
  reason: () => Refusal | null,
  onRefused: (reason: Refusal) => void,
): void {
  const refuses = (request: IncomingMessage): boolean => {
    const refusal = isHandshake(request) ? reason() : null;
    if (refusal) onRefused(refusal);
    return refusal !== null;
  };
  const requestHandlers = server.listeners('request') as RequestListener[];
  server.removeAllListeners('request');
  server.on('request', (request, response) => {
    if (request.url === vacancyPath && !reason()) response.writeHead(204).end();
    else if (request.url === vacancyPath || refuses(request)) response.writeHead(503, headers).end(body);
    else for (const handle of requestHandlers) handle(request, response);
  });
  const upgradeHandlers = server.listeners('upgrade') as UpgradeListener[];
  server.removeAllListeners('upgrade');
  server.on('upgrade', (request, socket, head) => {
    if (!refuses(request)) {
      for (const handle of upgradeHandlers) handle(request, socket, head);
      return;
    }
    // Who has gone already needs no answer
    socket.on('error', () => socket.destroy());
    socket.end(rawRefusal);
  });
}

/** Files that a process needs besides its clients' sockets: stores, modules, logs, and handshakes that are refused. */
const reservedFiles = 500;

/**
 * How many connections a process may really have: what is wanted, or what `limits` (the text of /proc/self/limits, proc(5))
 * leaves room for. Beyond its open files a process can take nothing, not even to refuse it.
 */
export function connectionsFor(wanted: number, limits: string): number {
  const [, openFiles] = /^Max open files +(\d+)/m.exec(limits) ?? [];
  return openFiles === undefined ? wanted : Math.min(wanted, Math.max(1, Number(openFiles) - reservedFiles));
}
