/** `INFO memory`: https://redis.io/docs/latest/commands/info/ */
import { Cluster } from 'ioredis';
import type { RedisConnection } from './redis-client.ts';

/** Bytes. */
export interface RedisMemory {
  used: number;
  /** `maxmemory`; 0: none is set. */
  limit: number;
}

function parseMemory(info: string): RedisMemory {
  const bytes = (name: string) => Number(new RegExp(`^${name}:(\\d+)`, 'm').exec(info)?.[1] ?? 0);
  return { used: bytes('used_memory'), limit: bytes('maxmemory') };
}

/** Of the primary; on a Cluster of all of them together, without a limit when one has none. Redis' errors. */
export async function memoryOf(connection: RedisConnection): Promise<RedisMemory> {
  const primaries = connection instanceof Cluster ? connection.nodes('master') : [connection];
  const all = await Promise.all(primaries.map(async (primary) => parseMemory(await primary.info('memory'))));
  const sum = (part: keyof RedisMemory) => all.reduce((total, memory) => total + memory[part], 0);
  return { used: sum('used'), limit: all.every(({ limit }) => limit > 0) ? sum('limit') : 0 };
}
