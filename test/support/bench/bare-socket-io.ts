/**
 * As little as a server on Socket.IO can do that gives each watcher the newest position once a second: no checks, no Redis,
 * one process for a trip. What it takes, ours cannot be below. For benchmarks, in a process of its own; it writes its URL.
 */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Server } from 'socket.io';

interface Update {
  tripId: string;
}

/** As ours: a part of the trips in each. */
const [tickMs, slices] = [1000, 16];

const server = createServer();
const io = new Server(server, { transports: ['websocket'], serveClient: false });
const newest = Array.from({ length: slices }, () => new Map<string, Update>());
const sliceOf = new Map<string, number>();

io.on('connection', (socket) => {
  socket.on('trip:join', async ({ tripId }: Update, answer: (ack: object) => void) => {
    await socket.join(`trip:${tripId}`);
    answer({ ok: true });
  });
  socket.on('location:update', (update: Update) => {
    const slice = sliceOf.get(update.tripId) ?? sliceOf.size % slices;
    sliceOf.set(update.tripId, slice);
    newest[slice]?.set(update.tripId, update);
  });
});

let next = 0;
setInterval(() => {
  const updates = newest[next++ % slices];
  for (const update of updates?.values() ?? [])
    io.local.to(`trip:${update.tripId}`).emit('location', { ...update, at: Date.now() });
  updates?.clear();
}, tickMs / slices);

server.listen(0, '127.0.0.1', () => {
  const { port } = server.address() as AddressInfo;
  process.stdout.write(`http://127.0.0.1:${port}\n`);
});
