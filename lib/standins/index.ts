import { createServer } from 'node:net';
import type { Middleware } from 'moleculer';
import { type Config, ConfigError } from '../config.ts';
import { accountsOf, startProviderSimulator } from './providers.ts';
import { startRedis } from './redis.ts';

/** Fails with a message that names the key when a port is taken, before anything has started. */
export async function requireFreePort(key: string, port: number, host: string): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    const probe = createServer();
    probe.once('error', () =>
      reject(new ConfigError([{ key, message: `port ${port} is in use; stop what uses it or set another` }])),
    );
    probe.listen(port, host, () => probe.close(() => resolve()));
  });
}

/** A start that fails ends the process at once: what it had started must not stay behind. Answers how to forget it. */
function endWithProcess(pid: number): () => void {
  const end = () => void process.kill(pid, 'SIGTERM');
  process.once('exit', end);
  return () => void process.removeListener('exit', end);
}

/**
 * Starts what development lacks: a Redis when REDIS_URL is not set, a provider simulator when SANDBOX_PROVIDERS is on
 * and none is named. Answers with the configuration that points to them, and a middleware that stops them last.
 * Production starts nothing.
 */
export async function startStandins(config: Config): Promise<{ config: Config; middleware: Middleware }> {
  const stops: (() => Promise<void>)[] = [];
  let { redisUrl, providersSandboxUrl } = config;
  if (config.nodeEnv !== 'production') {
    const runs = (service: string) => config.services.length === 0 || config.services.includes(service);
    if (runs('api')) await requireFreePort('API_PORT', config.apiPort, config.host);
    if (runs('gateway')) await requireFreePort('SOCKET_PORT', config.socketPort, config.host);
    await requireFreePort('METRICS_PORT', config.metricsPort, config.host);
    if (!redisUrl) {
      const redis = await startRedis({ dataDir: config.dataDir });
      redisUrl = redis.socketPath;
      const forget = endWithProcess(redis.pid);
      stops.push(() => redis.stop().finally(forget));
    }
  }
  if (config.sandboxProviders && !providersSandboxUrl) {
    const simulator = await startProviderSimulator({
      ...accountsOf(config),
      callbacks: config.publicUrl ?? `http://localhost:${config.apiPort}`,
    });
    providersSandboxUrl = simulator.url;
    stops.push(() => simulator.stop());
  }
  const sandboxUrl = config.sandboxProviders ? providersSandboxUrl : undefined;
  return {
    config: Object.freeze({
      ...config,
      redisUrl,
      providersSandboxUrl,
      twilioBaseUrl: config.twilioBaseUrl ?? sandboxUrl,
      msg91BaseUrl: config.msg91BaseUrl ?? sandboxUrl,
      whatsappBaseUrl: config.whatsappBaseUrl ?? sandboxUrl,
      sendgridBaseUrl: config.sendgridBaseUrl ?? sandboxUrl,
      sesBaseUrl: config.sesBaseUrl ?? sandboxUrl,
      fcmBaseUrl: config.fcmBaseUrl ?? sandboxUrl,
      pagerdutyBaseUrl: config.pagerdutyBaseUrl ?? sandboxUrl,
    }),
    middleware: {
      name: 'standins',
      // After every service and the broker's connections are gone
      async stopped() {
        for (const stop of stops.toReversed()) await stop();
      },
    },
  };
}
