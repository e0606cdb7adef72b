import type { Server } from 'node:http';

/**
 * Connections that may wait to be taken (the system may allow fewer: `net.core.somaxconn`). With Node's 511 those of a burst are dropped
 * in silence, and come again a second later.
 */
const backlog = 4096;

/** For a server of a door, before it listens (by port and host): how it takes connections and keeps them. */
export function prepareDoor(server: Server, { keepAliveTimeoutMs }: { keepAliveTimeoutMs: number }): void {
  server.keepAliveTimeout = keepAliveTimeoutMs;
  const listen = server.listen.bind(server);
  Object.assign(server, {
    listen: (port: number, host: string, done: () => void) => listen({ port, host, backlog }, done),
  });
}
