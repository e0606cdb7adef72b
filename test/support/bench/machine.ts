/** The machine that figures come from, and what of it was used. Linux: read from /proc. */
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { availableParallelism, cpus, loadavg, totalmem } from 'node:os';
import { createInterface } from 'node:readline';
import { setTimeout as pause } from 'node:timers/promises';
import type { Redis } from 'ioredis';

/** `AMD EPYC, 2 cores, 8 GB, Node v24.21.0, load 0.1`: the load is that of the last minute. */
export const machineName = (): string =>
  [
    cpus()[0]?.model.trim() ?? 'unknown processor',
    `${availableParallelism()} cores`,
    `${Math.round(totalmem() / 2 ** 30)} GB`,
    `Node ${process.version}`,
    `load ${(loadavg()[0] ?? 0).toFixed(1)}`,
  ].join(', ');

/** Linux counts in 1/100 s for every program, whatever the kernel's own clock: proc(5), sysconf(_SC_CLK_TCK). */
const tickMs = 10;

/** CPU time that a process has used so far, user and system, ms, in steps of 10. */
export async function processCpuMs(pid: number): Promise<number> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8');
  // The command's name, in parentheses, may hold spaces; utime and stime are fields 14 and 15 of proc(5)
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) * tickMs;
}

/** CPU time that a Redis server has used so far, user and system, ms. */
export async function redisCpuMs(redis: Redis): Promise<number> {
  const info = await redis.info('cpu');
  const seconds = (key: string) => Number(new RegExp(`^${key}:(\\S+)`, 'm').exec(info)?.[1]);
  return (seconds('used_cpu_user') + seconds('used_cpu_sys')) * 1000;
}

/**
 * Commands that the Redis at `port` of this machine gets in `forMs`: those that clients send, and those that scripts run. By
 * MONITOR, each of whose lines says where a command is from; that takes of Redis' time.
 */
export async function redisCommands(
  port: number,
  forMs: number,
): Promise<{ sent: number; inScripts: number }> {
  const socket = connect({ host: '127.0.0.1', port });
  await once(socket, 'connect');
  socket.write('MONITOR\r\n');
  const counts = { sent: 0, inScripts: 0 };
  // `+1795551521.276656 [0 lua] "hget" …`; anything else is the answer to MONITOR itself
  createInterface(socket).on('line', (line) => {
    const [, source] = /^\+\d+\.\d+ \[\d+ (\S+)\]/.exec(line) ?? [];
    if (source === 'lua') counts.inScripts++;
    else if (source) counts.sent++;
  });
  await pause(forMs);
  socket.destroy();
  return counts;
}
