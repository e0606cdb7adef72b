import { Cluster, type Redis } from 'ioredis';
import { isReady, nodeAt, primaryOf, type RedisConnection, replicasOf, siblingOf } from './redis-client.ts';

/** What a write answered, and who has it. */
export interface Replicated<T> {
  value: T;
  /** As many replicas have it as the address asks for: it outlives the primary. */
  replicated: boolean;
  /** It may be acknowledged: replicated, or the primary had no replica that it could have gone to. */
  kept: boolean;
}

/** A replica on the same network answers in a millisecond or two, ms. */
const defaultWaitMs = 500;

/**
 * Writes what must survive the primary: runs `write` on a connection to the key's primary and waits there until as
 * many replicas as the address asks for (`?replicas=`) have it, at most `withinMs`. Rejects with what the write rejects
 * with. All keys of `write` share the slot of `key`; writing twice must change nothing, for who is told that it is not
 * kept asks again.
 *
 * WAIT counts for the connection that wrote and holds up what comes behind it there, so these writes have a connection
 * of their own, on a Cluster one to the node itself (https://redis.io/docs/latest/commands/wait/).
 */
export async function replicated<T>(
  connection: RedisConnection,
  key: string,
  write: (primary: Redis) => Promise<T>,
  withinMs = defaultWaitMs,
): Promise<Replicated<T>> {
  const wanted = replicasOf(connection);
  if (wanted === 0 && !(connection instanceof Cluster))
    return { value: await write(connection), replicated: true, kept: true };
  const own = siblingOf(connection);
  await isReady(own);
  /** Who has the slot by the word of who had it: the table may not say so yet. */
  let told: Redis | undefined;
  for (let attempt = 1; ; attempt++) {
    const primary = told ?? primaryOf(own, key);
    if (!primary) throw new Error('Connection is closed: no node is known to have the slot');
    const isOwner = () => (told ?? primaryOf(own, key)) === primary;
    try {
      return await kept(primary, () => write(primary), { wanted, withinMs, isOwner });
    } catch (error) {
      // Nothing is written
      const moved = error instanceof Error ? /^MOVED \d+ (\S+)$/.exec(error.message)?.[1] : undefined;
      if (moved === undefined || !(own instanceof Cluster) || attempt === 3) throw error;
      // Asked for the key, the client connects to who has it
      if (!nodeAt(own, moved)) await own.exists(key);
      told = nodeAt(own, moved);
    }
  }
}

/** Like `replicated`, for a write that goes over this very connection. */
export async function confirmed<T>(
  connection: RedisConnection,
  key: string,
  write: () => Promise<T>,
  { wanted, withinMs = defaultWaitMs }: { wanted: number; withinMs?: number },
): Promise<Replicated<T>> {
  const primary = primaryOf(connection, key);
  if (!primary) return { value: await write(), replicated: wanted === 0, kept: wanted === 0 };
  return kept(primary, write, { wanted, withinMs, isOwner: () => primaryOf(connection, key) === primary });
}

/** Writes, which goes to `primary` as long as that is the owner, and waits there for the replicas. */
async function kept<T>(
  primary: Redis,
  write: () => Promise<T>,
  { wanted, withinMs, isOwner }: { wanted: number; withinMs: number; isOwner: () => boolean },
): Promise<Replicated<T>> {
  const line = lineOf(primary);
  const before = line.closes;
  const value = await write();
  if (wanted === 0) return { value, replicated: true, kept: true };
  // A connection that was made anew has written nothing: its WAIT would say yes. One to another node, likewise
  const isSame = () => line.closes === before && isOwner();
  if (!isSame()) return { value, replicated: false, kept: false };
  // The write stands; where nobody says that replicas have it, it is not acknowledged
  const count = await nextWait(primary, line, wanted, withinMs).catch(() => 0);
  if (!isSame()) return { value, replicated: false, kept: false };
  return {
    value,
    replicated: count !== 'alone' && count >= wanted,
    kept: count === 'alone' || count >= wanted,
  };
}

/** A connection's way of waiting: one WAIT after the other, each for all writes that were answered before it. */
interface Line {
  /** How often the connection was lost. */
  closes: number;
  underWay: Promise<unknown>;
  next: Promise<number | 'alone'> | undefined;
}

const lines = new WeakMap<Redis, Line>();

function lineOf(primary: Redis): Line {
  const known = lines.get(primary);
  if (known) return known;
  const line: Line = { closes: 0, underWay: Promise.resolve(), next: undefined };
  primary.on('close', () => line.closes++);
  lines.set(primary, line);
  return line;
}

/** How many replicas have all that this connection has written before; `alone` when there are none at all. */
function nextWait(primary: Redis, line: Line, wanted: number, withinMs: number): Promise<number | 'alone'> {
  line.next ??= line.underWay.then(() => {
    line.next = undefined;
    const answer = countReplicas(primary, wanted, withinMs);
    line.underWay = answer.catch(() => undefined);
    return answer;
  });
  return line.next;
}

async function countReplicas(primary: Redis, wanted: number, withinMs: number): Promise<number | 'alone'> {
  // Without a replica WAIT would take all of its time, for each write in turn
  const [role, , replicas] = await primary.role();
  if (role === 'master' && Array.isArray(replicas) && replicas.length === 0) return 'alone';
  return primary.wait(wanted, withinMs);
}
