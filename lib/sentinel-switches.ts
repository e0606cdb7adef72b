/**
 * Sentinels tell at once that another primary has taken over. Without that, each connection to a primary that hangs would find
 * out by itself, when it is next used and has waited in vain. ioredis can do it too (`failoverDetector`), but with a
 * connection to every Sentinel for each of ours, and it complains on the console of Sentinels that are away.
 *
 * Source: https://redis.io/docs/latest/develop/reference/sentinel-clients/
 */
import { isIP } from 'node:net';
import { Redis } from 'ioredis';
import type { RedisTarget } from './redis-url.ts';

/** A group that this process has connections to: one listener for each Sentinel. */
interface Watch {
  listeners: Redis[];
  connections: Set<Redis>;
}

const watches = new Map<string, Watch>();

/** A Sentinel that is away is tried again after 1, 2 … 30 s, half of it by chance. */
const retryAfterMs = (attempt: number) =>
  Math.min(30_000, 1000 * 2 ** Math.min(attempt - 1, 5)) * (0.5 + Math.random() / 2);

/** As long as the connection lives it leaves a primary of the target's group that another has taken over from. */
export function followSwitches(target: RedisTarget, connection: Redis): void {
  const key = JSON.stringify(target);
  connection.on('connecting', () => {
    const watch = watches.get(key) ?? { listeners: [], connections: new Set() };
    watch.connections.add(connection);
    if (watches.has(key)) return;
    watches.set(key, watch);
    watch.listeners = target.nodes.map((node) => listenTo(node, target, watch));
  });
  const leave = () => {
    const watch = watches.get(key);
    if (!watch?.connections.delete(connection) || watch.connections.size > 0) return;
    watches.delete(key);
    for (const listener of watch.listeners) listener.disconnect();
  };
  connection.on('end', leave);
  const disconnect = connection.disconnect.bind(connection);
  // One that is between two attempts to connect ends without a word (ioredis 5.11)
  connection.disconnect = (reconnect) => {
    disconnect(reconnect);
    if (!reconnect) leave();
  };
}

function listenTo(node: RedisTarget['nodes'][number], target: RedisTarget, watch: Watch): Redis {
  const { group, tls, sentinelUsername, sentinelPassword } = target;
  const listener = new Redis({
    ...node,
    ...(sentinelUsername === undefined ? {} : { username: sentinelUsername }),
    ...(sentinelPassword === undefined ? {} : { password: sentinelPassword }),
    ...(tls ? { tls: {} } : {}),
    retryStrategy: retryAfterMs,
    maxRetriesPerRequest: null,
    enableReadyCheck: false,
    autoResubscribe: false,
    connectTimeout: 2000,
    disconnectTimeout: 50,
    keepAlive: 5000,
  });
  listener.on('error', (error: Error) => {
    const [first] = watch.connections;
    if (first && first.listenerCount('error') > 0) first.emit('error', error);
  });
  listener.on('message', (_channel: string, message: string) => {
    const [name, host = '', port] = message.split(' ');
    if (name !== group) return;
    for (const connection of watch.connections) {
      if (isTo(connection, host, Number(port))) connection.disconnect(true);
    }
  });
  // It fails when the connection is lost, and then there is another, or when the listener is closed
  listener.on('ready', () => void listener.subscribe('+switch-master').catch(() => undefined));
  return listener;
}

/** Where Sentinels speak of names, the port has to do. */
function isTo(connection: Redis, host: string, port: number): boolean {
  const { remoteAddress = '', remotePort } = connection.stream ?? {};
  const isHost = isIP(host) === 0 || remoteAddress.replace(/^::ffff:/, '') === host;
  return isHost && remotePort === port;
}
