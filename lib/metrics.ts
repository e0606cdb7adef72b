import { type BrokerOptions, type MetricRegistry, MetricReporters, type ServiceBroker } from 'moleculer';

/**
 * Moleculer's Prometheus reporter without its own HTTP server: METRICS_PORT also answers /healthz and /readyz, so
 * the monitor service serves all three.
 */
class PulledReporter extends MetricReporters.Prometheus {
  defaultLabels: Record<string, string> = {};
  override init(registry: MetricRegistry): void {
    MetricReporters.Base.prototype.init.call(this, registry);
    this.defaultLabels = { namespace: registry.broker.namespace, nodeID: registry.broker.nodeID };
  }
  override async stop(): Promise<void> {}
}

/** Moleculer's `metrics` option; process metrics are collected every 5 s. */
export const metricsOptions = (): NonNullable<BrokerOptions['metrics']> => ({
  enabled: true,
  collectInterval: 5,
  // Moleculer takes an instance of a reporter; its types only know names
  reporter: [new PulledReporter({}) as unknown as 'Prometheus'],
});

/** All metrics of the process in Prometheus' text format 0.0.4. */
export function metricsText(broker: ServiceBroker): string {
  const reporter = broker.metrics.reporter.find((candidate) => candidate instanceof PulledReporter);
  return reporter?.generatePrometheusResponse() ?? '';
}
