/**
 * What live locations would be with plain Socket.IO: each update is checked, stored in Redis and emitted to its room through the
 * Redis adapter, one by one. A server for benchmarks, in a process of its own: `node location-baseline.ts REDIS_URL`; it writes
 * its URL. A token is the id of the trip that it is for, with `driver:` before it for who drives it.
 */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { createAdapter } from '@socket.io/redis-adapter';
import { Redis } from 'ioredis';
import { Server, type Socket } from 'socket.io';
import { clientEvents } from '../../../contracts/socket.ts';
import { type JumpState, noHistory } from '../../../lib/jump-rule.ts';
import { checkPosition } from '../../../lib/position-check.ts';

/** As long as ours keeps it. */
const historyMs = 3_600_000;

interface State {
  token: string;
  jump: JumpState;
}
type Client = Socket<Record<string, never>, Record<string, never>, Record<string, never>, State>;

const url = process.argv[2] ?? '';
const redis = new Redis(url);
const server = createServer();
const io = new Server(server, {
  adapter: createAdapter(new Redis(url), new Redis(url)),
  transports: ['websocket'],
  serveClient: false,
});

/** Redis' geo-index ends short of the poles. */
const isInGeoIndex = (lat: number): boolean => Math.abs(lat) <= 85.05;

async function take(socket: Client, payload: unknown): Promise<void> {
  const parsed = clientEvents['location:update'].safeParse(payload);
  if (!parsed.success) throw new Error('LOCATION_INVALID');
  const { tripId } = parsed.data;
  if (socket.data.token !== `driver:${tripId}`) throw new Error('LOCATION_NOT_DRIVER');
  const now = Date.now();
  const { refused, state } = checkPosition(socket.data.jump, parsed.data, now);
  socket.data.jump = state;
  if (refused) throw new Error(refused);
  const update = { ...parsed.data, userId: `usr_of_${tripId}`, at: now };
  const json = JSON.stringify(update);
  // One round trip; what does not hang on the answer does not wait for it
  const pipeline = redis.pipeline();
  if (isInGeoIndex(update.lat)) pipeline.geoadd('geo', update.lng, update.lat, tripId);
  pipeline.hset('last', tripId, json).xadd('history', 'MINID', '~', now - historyMs, '*', 'u', json);
  const stored = pipeline.exec();
  io.to(`trip:${tripId}`).emit('location', update);
  for (const [error] of (await stored) ?? []) if (error) throw error;
}

io.on('connection', (connected) => {
  const socket = connected as unknown as Client;
  socket.data = { token: String(socket.handshake.auth['token']), jump: noHistory };
  socket.on('trip:join', async ({ tripId }: { tripId: string }, answer: (ack: object) => void) => {
    await socket.join(`trip:${tripId}`);
    answer({ ok: true });
  });
  socket.on('location:update', (payload: unknown) => {
    take(socket, payload).catch((error: unknown) => {
      connected.emit('location:refused', { error: String(error) });
    });
  });
});

server.listen(0, '127.0.0.1', () => {
  const { port } = server.address() as AddressInfo;
  process.stdout.write(`http://127.0.0.1:${port}\n`);
});
