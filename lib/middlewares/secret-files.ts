import type { Middleware, ServiceBroker } from 'moleculer';
import type { Config } from '../config.ts';
import { watchSecretFiles } from '../secret-files.ts';

/** `sessionSecret` → `SESSION_SECRET`, as operators know it. */
const environmentKey = (key: string) => key.replace(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase();

/** Takes changed secret files while the broker runs: counted and logged by key, never with a value. */
export function secretFilesMiddleware(config: Config): Middleware {
  let stop = () => {};
  return {
    name: 'secret-files',
    created(broker: ServiceBroker) {
      const { logger, metrics } = broker;
      metrics.register({
        type: 'counter',
        name: 'secrets.changed.total',
        labelNames: ['key', 'outcome'],
        description: 'Changed secret files by outcome: taken, or refused and the old value kept',
      });
      stop = watchSecretFiles(config, {
        intervalMs: config.secretFilesPollMs,
        onTaken(name) {
          const key = environmentKey(name);
          metrics.increment('secrets.changed.total', { key, outcome: 'taken' });
          logger.info('A changed secret was taken', { key });
        },
        onRefused(name, problem) {
          const key = environmentKey(name);
          metrics.increment('secrets.changed.total', { key, outcome: 'refused' });
          logger.error('A changed secret is not usable, the old one goes on', { key, problem });
        },
      });
    },
    async stopped() {
      stop();
    },
  };
}
