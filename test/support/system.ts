import { mkdtemp, rm } from 'node:fs/promises';
import type { AddressInfo, Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Service, ServiceBroker } from 'moleculer';
import { type Config, loadConfig } from '../../lib/config.ts';
import { startStandins } from '../../lib/standins/index.ts';
import { brokerOptions } from '../../moleculer.config.ts';
import accounts from '../../services/accounts/accounts.service.ts';
import admin from '../../services/admin/admin.service.ts';
import api from '../../services/api/api.service.ts';
import gateway from '../../services/gateway/gateway.service.ts';
import location from '../../services/location/location.service.ts';
import locationHistory from '../../services/location/location-history.service.ts';
import monitor from '../../services/monitor/monitor.service.ts';
import notify from '../../services/notify/notify.service.ts';
import notifyLog from '../../services/notify/notify-log.service.ts';
import safety from '../../services/safety/safety.service.ts';
import sos from '../../services/sos/sos.service.ts';
import sosSender from '../../services/sos/sos-sender.service.ts';
import sosWorker from '../../services/sos/sos-worker.service.ts';
import trips from '../../services/trips/trips.service.ts';

const services = {
  accounts,
  admin,
  api,
  gateway,
  location,
  'location-history': locationHistory,
  monitor,
  notify,
  'notify-log': notifyLog,
  safety,
  sos,
  'sos-sender': sosSender,
  'sos-worker': sosWorker,
  trips,
};
export type ServiceName = keyof typeof services;

/** A running system of a test's own: real Redis, real sockets, the provider simulator, ports of its own. */
export interface System {
  broker: ServiceBroker;
  config: Config;
  apiUrl: string;
  socketUrl: string;
  metricsUrl: string;
  /** Stops everything and removes its data. */
  stop(): Promise<void>;
}

function urlOf(broker: ServiceBroker, name: ServiceName): string {
  const service: (Service & { server?: Server }) | undefined = broker.getLocalService(name);
  const address = service?.server?.address() as AddressInfo | null | undefined;
  return address ? `http://127.0.0.1:${address.port}` : '';
}

/**
 * Starts the named services (all, if none is named) in this process; `env` goes over the test's defaults. With
 * TEST_DB=mongo documents are on the MongoDB path (test/support/mongo.ts), which any test then proves.
 */
export async function startSystem(
  options: { only?: ServiceName[]; env?: Record<string, string>; dataDir?: string } = {},
): Promise<System> {
  const dataDir = options.dataDir ?? (await mkdtemp(join(tmpdir(), 'ride-test-')));
  // The simulator's many modules are for those runs only
  const mongo =
    process.env['TEST_DB'] === 'mongo' ? await (await import('./mongo.ts')).startMongo() : undefined;
  const configured = loadConfig({
    NODE_ENV: 'test',
    LOG_LEVEL: 'fatal',
    LOG_FORMAT: 'json',
    DATA_DIR: dataDir,
    API_PORT: '0',
    SOCKET_PORT: '0',
    METRICS_PORT: '0',
    NODE_ID: `test-${process.pid}-${Math.random().toString(36).slice(2)}`,
    DRAIN_GRACE_MS: '1',
    GATEWAY_DRAIN_MS: '1',
    // Other tests on the same cores must not make a door refuse what this one asks
    SHED_WHEN_LATE_MS: '10000',
    LOCATION_TICK_MS: '50',
    FEED_SWEEP_EVERY_MS: '500',
    ADMIN_PHONES: '+919800000000',
    ...(mongo ? { MONGO_URI: mongo.uri } : {}),
    ...options.env,
  });
  const { config, middleware } = await startStandins(configured);
  const broker = new ServiceBroker({
    ...brokerOptions(config, [middleware]),
    skipProcessEventRegistration: true,
  });
  for (const name of options.only ?? (Object.keys(services) as ServiceName[]))
    broker.createService(services[name]);
  try {
    await broker.start();
  } catch (error) {
    await broker.stop();
    await mongo?.stop();
    throw error;
  }
  return {
    broker,
    config,
    apiUrl: urlOf(broker, 'api'),
    socketUrl: urlOf(broker, 'gateway'),
    metricsUrl: urlOf(broker, 'monitor'),
    async stop() {
      await broker.stop();
      await mongo?.stop();
      if (!options.dataDir) await rm(dataDir, { recursive: true, force: true });
    },
  };
}
