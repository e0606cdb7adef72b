/**
 * As little as a server can do: `ws`, no Redis, no checks; what a driver sends goes to who watches the trip on this server. It
 * speaks just enough of Engine.IO 4 and Socket.IO 5 for the same clients. For benchmarks, in a process of its own; it writes its URL.
 */
import { randomUUID } from 'node:crypto';
import type { AddressInfo } from 'node:net';
import { type WebSocket, WebSocketServer } from 'ws';

const rooms = new Map<string, Set<WebSocket>>();
const server = new WebSocketServer({ host: '127.0.0.1', port: 0, perMessageDeflate: false });

function join(socket: WebSocket, packet: string): void {
  const [, id = '', args = '[]'] = /^42(\d+)(.*)$/s.exec(packet) ?? [];
  const [, { tripId }] = JSON.parse(args) as [string, { tripId: string }];
  const room = rooms.get(tripId) ?? new Set();
  rooms.set(tripId, room.add(socket));
  socket.once('close', () => room.delete(socket));
  socket.send(`43${id}[{"ok":true}]`);
}

function relay(packet: string): void {
  const [, update] = JSON.parse(packet.slice(2)) as [string, { tripId: string }];
  const message = `42${JSON.stringify(['location', { ...update, at: Date.now() }])}`;
  for (const watcher of rooms.get(update.tripId) ?? []) watcher.send(message);
}

server.on('connection', (socket) => {
  const sid = randomUUID();
  // Pings are the only thing that it leaves out: none comes within a run
  socket.send(`0${JSON.stringify({ sid, upgrades: [], pingInterval: 3_600_000, pingTimeout: 3_600_000 })}`);
  socket.on('message', (data: Buffer) => {
    const packet = data.toString();
    if (packet.startsWith('40')) socket.send(`40${JSON.stringify({ sid })}`);
    else if (packet.startsWith('42[')) relay(packet);
    else if (packet.startsWith('42')) join(socket, packet);
  });
});
server.on('listening', () => {
  const { port } = server.address() as AddressInfo;
  process.stdout.write(`http://127.0.0.1:${port}\n`);
});
