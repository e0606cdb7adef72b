/**
 * How every process is put together: `brokerOptions(config)` for tests and tools, the default export for
 * moleculer-runner. `SERVICES=location` picks the role; without it a process runs everything.
 */
import { hostname } from 'node:os';
import type { BrokerOptions, Context, Middleware, ServiceBroker } from 'moleculer';
import { setBrokerConfig } from './lib/broker-config.ts';
import { guardPackets } from './lib/broker-packets.ts';
import { type Config, ConfigError, loadConfig } from './lib/config.ts';
import { AppContext } from './lib/context.ts';
import { errorStatus, neverBegan } from './lib/errors.ts';
import { healthOf } from './lib/health.ts';
import { HeardRoundRobin } from './lib/heard-nodes.ts';
import { loggerOptions } from './lib/logger.ts';
import { metricsOptions } from './lib/metrics.ts';
import { contractsMiddleware, mayRepeat } from './lib/middlewares/contracts.ts';
import { inFlight } from './lib/middlewares/in-flight.ts';
import { permissionsMiddleware } from './lib/middlewares/permissions.ts';
import { secretFilesMiddleware } from './lib/middlewares/secret-files.ts';
import { loosenNats, natsOptions, untilOthersHeard } from './lib/nats-link.ts';
import { heedNoResponders } from './lib/no-responders.ts';
import { startStandins } from './lib/standins/index.ts';
import { welcome } from './lib/welcome.ts';

/** Ties the configuration to the broker and keeps the process's state for /readyz. */
const lifecycle = (config: Config): Middleware => ({
  name: 'lifecycle',
  created(broker: ServiceBroker) {
    setBrokerConfig(broker, config);
    loosenNats(broker);
    guardPackets(broker);
    heedNoResponders(broker);
    drainFirst(broker);
    healthOf(broker).add('broker', async () => {
      // Alone in its process a broker has no transit
      if (broker.transit && !broker.transit.connected) throw new Error('NATS is not connected');
    });
  },
  async started(broker: ServiceBroker) {
    // The doors serve meanwhile
    void healthOf(broker).started();
  },
  stopping: untilOthersHeard,
});

/**
 * Doors let go of their clients before the broker stops anything: while it waits for running calls under load, new
 * ones would keep coming.
 */
function drainFirst(broker: ServiceBroker): void {
  const stop = broker.stop.bind(broker);
  let stopped: Promise<void> | undefined;
  const drainAndStop = async () => {
    await healthOf(broker)
      .drain()
      .catch((error: unknown) => broker.logger.error('Draining was not complete', { error }));
    await stop();
  };
  // Ctrl-C reaches a process group twice when npm passes it on
  broker.stop = () => {
    stopped ??= drainAndStop();
    return stopped;
  };
}

/** Moleculer's options for one process. */
export function brokerOptions(config: Config, middlewares: Middleware[] = []): BrokerOptions {
  return {
    namespace: config.namespace,
    nodeID: config.nodeId ?? `${hostname()}-${process.pid}`,
    logger: loggerOptions(config),
    logLevel: config.logLevel,

    ...(config.natsUrl ? { transporter: { type: 'NATS', options: natsOptions(config.natsUrl) } } : {}),
    // JSON and the other serializers are 2 to 10 times slower on batches of locations
    serializer: 'CBOR',
    // Moleculer's type wants a generic class; contexts are only ever made by the broker
    ContextFactory: AppContext as typeof Context,
    // Contracts and permissions take the place of params; the last of the list is the outermost
    validator: false,
    middlewares: [
      ...middlewares,
      lifecycle(config),
      secretFilesMiddleware(config),
      contractsMiddleware,
      permissionsMiddleware,
      // SIGTERM: finish what has begun, at most 3 s, so that the whole stop stays under 8
      inFlight(3000),
    ],

    // A caller at a door waits 5 s at most; 0 would be for ever
    requestTimeout: 5000,
    // Twice after the first: 100 and 200 ms, enough to reach another node while one goes away
    retryPolicy: { enabled: true, retries: 2, delay: 100, maxDelay: 500, factor: 2, check: mayRepeat },
    // Half of at least 20 requests in 10 s failed on our side: spare the node for a second, then try one. Longer, and the time
    // comes on top of a fail-over's: what a store that is away has opened stays open when it is back. Enabled here and
    // not on single actions, because a breaker that only an action enables never resets
    circuitBreaker: {
      enabled: true,
      threshold: 0.5,
      windowTime: 10,
      minRequestCount: 20,
      halfOpenTime: 1000,
      // By code and not by class: an error of another node comes as a plain one
      check: (error) => errorStatus(error) >= 500 && !neverBegan(error),
    },
    // A burst of logins (two hash rounds each) or bookings queues here instead of in the event loop; beyond that the
    // door answers 503 at once. What must never queue (SOS, location.report) switches it off at the action
    bulkhead: { enabled: true, concurrency: 200, maxQueueSize: 2000 },
    // A killed node is noticed in under 5 s. At 2 s of timeout a saturated machine flaps
    heartbeatInterval: 1,
    heartbeatTimeout: 4,
    registry: { strategy: HeardRoundRobin, preferLocal: true },
    // Beyond it a loop of calls is a bug
    maxCallLevel: 20,
    metrics: metricsOptions(),
  };
}

/** For moleculer-runner. Ends the process with one clear message when the configuration is not usable. */
export default async function runnerOptions(): Promise<BrokerOptions> {
  try {
    const [major = 0] = process.versions.node.split('.').map(Number);
    if (major < 24)
      throw new ConfigError([
        { key: 'node', message: `version 24 is needed, this is ${process.version}; start with npm start` },
      ]);
    const configured = loadConfig(process.env);
    if (configured.services.length > 0) {
      // moleculer-runner looks for these names below SERVICEDIR; every role answers on METRICS_PORT
      process.env['SERVICEDIR'] = 'services';
      // Each door takes an SOS by itself
      const isDoor = configured.services.some((name) => name === 'api' || name === 'gateway');
      const intake = isDoor && !configured.services.includes('sos') ? ['sos/sos.service.ts'] : [];
      process.env['SERVICES'] = [...new Set([...configured.services, ...intake, 'monitor'])].join(',');
    }
    const { config, middleware } = await startStandins(configured);
    const options = brokerOptions(config, [middleware]);
    if (config.nodeEnv !== 'development' || config.services.length > 0) return options;
    return { ...options, started: () => void process.stdout.write(`${welcome(config)}\n`) };
  } catch (error) {
    process.stderr.write(
      `${error instanceof Error ? (error instanceof ConfigError ? error.message : error.stack) : String(error)}\n`,
    );
    process.exit(1);
  }
}
