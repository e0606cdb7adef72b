import type { Server } from 'socket.io';

/**
 * Connections take turns: of each one message in a turn of the event loop. Otherwise all that has come on the others (64 KB
 * each, hundreds of messages) is handled before an SOS is looked at, which takes seconds under load. What is not read
 * meanwhile waits in the network, and slows down who sends it.
 *
 * An option of ws (`allowSynchronousEvents`) that engine.io does not pass on. For connections that are made from now on.
 */
export function takeTurns(io: Server): void {
  const { ws } = io.engine as unknown as { ws?: { options?: { allowSynchronousEvents?: boolean } } };
  if (ws?.options?.allowSynchronousEvents === undefined) throw new Error('This ws cannot take turns');
  ws.options.allowSynchronousEvents = false;
}
