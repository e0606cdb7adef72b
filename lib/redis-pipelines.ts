import { type ChainableCommander, Cluster } from 'ioredis';
import { ownersOf, type RedisConnection, refreshSlots } from './redis-client.ts';

/** A command's error or its value, as ioredis answers a pipeline. */
export type PipelineResult = [error: Error | null, value: unknown];

/** Another node has the slot, or will have it in a moment. */
const isMoved = ([error]: PipelineResult) =>
  error !== null && /^(MOVED|ASK|TRYAGAIN)|slots allocation group/.test(error.message);

/**
 * One command for each item, in one pipeline; on a Cluster in one for each node. Results are in the order of the
 * items. What went to a node that no longer has the slot goes once more to whoever has it now.
 */
export async function pipelined<T>(
  connection: RedisConnection,
  items: readonly T[],
  keyOf: (item: T) => string,
  add: (pipeline: ChainableCommander, item: T) => unknown,
): Promise<PipelineResult[]> {
  if (items.length === 0) return [];
  const run = (some: readonly T[]) => runPipeline(connection, some, add);
  if (!(connection instanceof Cluster)) return run(items);

  const results: PipelineResult[] = items.map(() => [new Error('No answer'), null]);
  const perNode = async (positions: readonly number[]) => {
    const groups = Map.groupBy(positions, (at) => ownersOf(connection, keyOf(items[at] as T)));
    await Promise.all(
      [...groups.values()].map(async (group) => {
        const answers = await run(group.map((at) => items[at] as T));
        for (const [index, at] of group.entries())
          results[at] = answers[index] ?? results[at] ?? [null, null];
      }),
    );
  };
  const moved = () => [...results.keys()].filter((at) => isMoved(results[at] ?? [null, null]));

  await perNode([...items.keys()]);
  if (moved().length > 0) {
    await refreshSlots(connection);
    await perNode(moved());
  }
  // A slot on its way: alone, a command is led from one node to the other by the client
  await Promise.all(
    moved().map(async (at) => {
      results[at] = (await run([items[at] as T]))[0] ?? [null, null];
    }),
  );
  return results;
}

async function runPipeline<T>(
  connection: RedisConnection,
  items: readonly T[],
  add: (pipeline: ChainableCommander, item: T) => unknown,
): Promise<PipelineResult[]> {
  try {
    const pipeline = connection.pipeline();
    for (const item of items) add(pipeline, item);
    return (await pipeline.exec()) ?? items.map(() => [new Error('No answer'), null]);
  } catch (error) {
    // The pipeline as a whole could not be sent
    const reason = error instanceof Error ? error : new Error(String(error));
    return items.map(() => [reason, null]);
  }
}
