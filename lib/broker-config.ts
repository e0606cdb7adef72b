import type { ServiceBroker } from 'moleculer';
import type { Config } from './config.ts';

const configs = new WeakMap<object, Config>();

/** Ties a configuration to a broker, so that several can live in one process. */
export function setBrokerConfig(broker: ServiceBroker, config: Config): void {
  configs.set(broker, config);
}

/** The configuration that the broker was made with. */
export function brokerConfig(broker: object): Config {
  const config = configs.get(broker);
  if (!config) throw new Error('This broker was made without brokerOptions() of moleculer.config.ts');
  return config;
}
