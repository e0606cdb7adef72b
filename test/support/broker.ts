import { ServiceBroker } from 'moleculer';
import { loadConfig } from '../../lib/config.ts';
import { brokerOptions } from '../../moleculer.config.ts';

/** A broker as moleculer.config.ts makes it, with no stand-ins and no services; over NATS if its URL is given. */
export function makeBroker(nodeId: string, env: Record<string, string | undefined> = {}): ServiceBroker {
  const config = loadConfig({
    NODE_ENV: 'test',
    LOG_LEVEL: 'fatal',
    LOG_FORMAT: 'json',
    NODE_ID: nodeId,
    NAMESPACE: `test-${process.pid}`,
    ...env,
  });
  return new ServiceBroker({ ...brokerOptions(config), skipProcessEventRegistration: true });
}
