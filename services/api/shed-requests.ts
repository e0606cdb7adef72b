/** What a REST door does when it has too much to do: answers before it has looked at more than the address. */
import type { RequestListener, Server } from 'node:http';
import { AppError, publicError } from '../../lib/errors.ts';
import type { Shedding } from '../../mixins/shedding.ts';

/** An SOS and what admins need for it; probes, or the balancer would close the door to both. */
const alwaysTaken = /^\/(?:api\/v1\/(?:sos|admin\/sos|admin\/events)(?:[/?]|$)|healthz|readyz)/;

const retryAfterS = 2;
const refusal = JSON.stringify({ error: publicError(new AppError('UNAVAILABLE', { retryAfterS })) });

/** Puts itself before the server's own handlers. `prepare` sets the headers that every answer has. */
export function shedRequests(server: Server, shedding: Shedding, prepare: RequestListener): void {
  const handlers = server.listeners('request') as RequestListener[];
  server.removeAllListeners('request');
  server.on('request', (request, response) => {
    if (alwaysTaken.test(request.url ?? '') || !shedding.refuses('request')) {
      for (const handle of handlers) handle(request, response);
      return;
    }
    prepare(request, response);
    response.setHeader('Retry-After', retryAfterS);
    response.writeHead(503, { 'content-type': 'application/json; charset=utf-8' }).end(refusal);
  });
}
