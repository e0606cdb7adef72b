/** An application for tests to kill: starts the Redis of the directory it is given, says so, and stays. */
import { startRedis } from '../../lib/standins/redis.ts';

const [dataDir = ''] = process.argv.slice(2);
const { adopted } = await startRedis({ dataDir });
process.stdout.write(`${JSON.stringify({ adopted })}\n`);
setInterval(() => undefined, 60_000);
