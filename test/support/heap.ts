import { setImmediate as turn } from 'node:timers/promises';
import { getHeapStatistics, setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

/** Bytes that are in use on the heap and in buffers once the garbage is collected. */
export async function heapUsed(): Promise<number> {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  // Twice, with a turn between: what finalizers and closed sockets let go of goes in the second
  for (let n = 0; n < 2; n++) {
    collect();
    await turn();
  }
  const { used_heap_size, malloced_memory } = getHeapStatistics();
  return used_heap_size + malloced_memory + process.memoryUsage().arrayBuffers;
}
