import { setTimeout as pause } from 'node:timers/promises';
import { Durations } from '../simulate/meter.ts';

/** Calls a second that `clients` get through, each calling again as soon as it has its answer: the most there is. */
export async function callsPerS(
  count: number,
  clients: number,
  call: (n: number) => Promise<void>,
): Promise<number> {
  let next = 0;
  const client = async () => {
    for (let n = next++; n < count; n = next++) await call(n);
  };
  const since = performance.now();
  await Promise.all(Array.from({ length: clients }, client));
  return (count / (performance.now() - since)) * 1000;
}

/**
 * How long each of `count` calls takes when `perS` come in a second, whether those before have been answered or not.
 * Measured from the moment a call was due: one that could not even be sent in time was late for whoever waits.
 */
export async function callTimes(
  count: number,
  perS: number,
  call: (n: number) => Promise<void>,
): Promise<Durations> {
  const times = new Durations();
  const open: Promise<void>[] = [];
  const since = performance.now();
  for (let n = 0; n < count; n++) {
    const due = since + (n * 1000) / perS;
    if (due - performance.now() > 1) await pause(due - performance.now());
    const from = Math.min(due, performance.now());
    open.push(call(n).then(() => times.add(performance.now() - from)));
  }
  await Promise.all(open);
  return times;
}
