import type { Server } from 'node:http';
import { setTimeout as pause } from 'node:timers/promises';

/**
 * Lets go of a door's clients without failing a request: each answer from now on closes its connection, while the door
 * stays open for `graceMs`, in which the balancer sees /readyz and clients come back elsewhere. Then it closes, and
 * what is still under way may take `finishMs`. Resolves when nobody is connected.
 */
export async function letGo(server: Server, graceMs: number, finishMs: number): Promise<void> {
  server.prependListener('request', (_request, response) => response.setHeader('Connection', 'close'));
  await pause(graceMs);
  const closed = new Promise<void>((resolve) => server.close(() => resolve()));
  const cut = setTimeout(() => server.closeAllConnections(), finishMs);
  await closed;
  clearTimeout(cut);
}
