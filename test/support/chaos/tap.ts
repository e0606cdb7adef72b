import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';

/** What passes between one process and a server, so that something can happen at the very moment. */
export interface Tap {
  url: string;
  /** Called once with the next bytes of that direction; they are dropped, and so is everything behind them. */
  cutAt(direction: 'request' | 'answer', onCut: () => void): void;
  /** Everything passes again. */
  open(): void;
  stop(): Promise<void>;
}

/** Stands before the HTTP server at `url`. */
export async function startTap(url: string): Promise<Tap> {
  const { hostname, port } = new URL(url);
  const sockets = new Set<Socket>();
  let cut: { direction: 'request' | 'answer'; onCut: () => void } | undefined;
  /** True when these bytes must not pass. */
  const isCut = (direction: 'request' | 'answer'): boolean => {
    if (cut?.direction !== direction) return false;
    const { onCut } = cut;
    cut.onCut = () => undefined;
    onCut();
    return true;
  };
  const server = createServer((client) => {
    const target = connect(Number(port), hostname);
    const pass = (from: Socket, to: Socket, direction: 'request' | 'answer') => {
      sockets.add(from);
      from.on('data', (chunk) => {
        if (isCut(direction)) from.destroy();
        else to.write(chunk);
      });
      from.on('error', () => undefined);
      from.on('close', () => {
        sockets.delete(from);
        to.destroy();
      });
    };
    pass(client, target, 'request');
    pass(target, client, 'answer');
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    cutAt(direction, onCut) {
      cut = { direction, onCut };
    },
    open() {
      cut = undefined;
    },
    async stop() {
      const closed = once(server, 'close');
      server.close();
      for (const socket of sockets) socket.destroy();
      await closed;
    },
  };
}
