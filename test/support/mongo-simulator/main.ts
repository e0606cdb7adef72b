/** The simulator in a process of its own, for several processes that share one. Says where it is; runs until SIGTERM. */
import { startMongoSimulator } from './index.ts';

/** Nobody asks it what was sent. */
const simulator = await startMongoSimulator({ keepCommands: false });
process.stdout.write(`${simulator.uri}\n`);
process.once('SIGTERM', () => void simulator.stop());
