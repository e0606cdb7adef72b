import type { Server, Socket } from 'socket.io';

export interface LetGoOptions {
  /** Over how long the clients' times are spread, ms. */
  spreadMs: number;
  /** A number from 0 to below 1. */
  random?: () => number;
}

/** How often those whose time is over are looked for, ms. */
const waveMs = 100;
/** How long after its time a client is cut off, ms; less where the spread is shorter. */
const graceMs = 1000;

type Connection = Socket['conn'];

/**
 * A time of its own for each of `count` clients, ms from 0 to below `spreadMs`: one by chance in each of `count` equal
 * parts, so that they reach the other nodes as an even stream.
 */
export function spreadTimes(count: number, spreadMs: number, random: () => number): number[] {
  return Array.from({ length: count }, (_, n) => ((n + random()) / count) * spreadMs);
}

/**
 * Asks every client to come back elsewhere (`server:drain`), each at a time of its own, and serves it until then. Who has
 * not gone soon after its time is cut off without a goodbye: that is a lost connection to a client, and Socket.IO's comes
 * back from it by itself. Resolves when all are gone.
 */
export async function letClientsGo(
  io: Server,
  namespaces: readonly { sockets: Map<string, unknown> }[],
  { spreadMs, random = Math.random }: LetGoOptions,
): Promise<void> {
  const sockets = namespaces.flatMap(({ sockets: each }) => [...each.values()] as Socket[]);
  // One connection may serve several namespaces; one that has not got that far serves none
  const { clients } = io.engine as unknown as { clients: Record<string, Connection> };
  const open = new Map<Connection, number>();
  const times = spreadTimes(Object.keys(clients).length, spreadMs, random);
  for (const [n, connection] of Object.values(clients).entries()) open.set(connection, times[n] ?? 0);
  if (open.size === 0) return;
  for (const socket of sockets)
    socket.emit('server:drain', { reconnectInMs: Math.round(open.get(socket.conn) ?? 0) });

  const startedAt = performance.now();
  await new Promise<void>((resolve) => {
    const cut = setInterval(() => {
      const over = performance.now() - startedAt - Math.min(graceMs, spreadMs);
      for (const [connection, time] of open) if (time <= over) connection.close(true);
    }, waveMs);
    for (const connection of open.keys())
      connection.once('close', () => {
        open.delete(connection);
        if (open.size > 0) return;
        clearInterval(cut);
        resolve();
      });
  });
}
