import { type BrokerOptions, type MetricRegistry, MetricReporters, type ServiceBroker } from 'moleculer';
import { cleanText } from './redact.ts';

const ourId = /(?<![0-9a-z])(?:[a-z]{3}_[0-9a-z]{24}|sos_[0-9a-f]{32})(?![0-9a-z])/;

/**
 * What may be a label: short, and nothing of a user's (a number, a token, an id). A label that a client can choose would
 * also make a series of its own each time.
 */
const labelValue = (value: unknown): unknown =>
  typeof value !== 'string' || (value.length <= 200 && isClean(value)) ? value : 'redacted';

/** Labels are few and come again and again: what was found of the last ones is kept. */
const judged = new Map<string, boolean>();
const mostJudged = 2000;

function isClean(value: string): boolean {
  const known = judged.get(value);
  if (known !== undefined) return known;
  const clean = !ourId.test(value) && cleanText(value) === value;
  if (judged.size >= mostJudged) judged.clear();
  judged.set(value, clean);
  return clean;
}

type Method = (...args: unknown[]) => unknown;

/** Every metric that is registered from here on cleans its labels, whoever sets it, and the text of an info metric. */
function guardLabels(registry: MetricRegistry): void {
  const register = registry.register.bind(registry) as Method;
  const registerGuarded = (...options: unknown[]): unknown => {
    const metric = register(...options);
    for (const name of ['increment', 'decrement', 'set', 'observe']) {
      const method: unknown = Reflect.get(Object(metric), name);
      if (typeof method !== 'function') continue;
      // At most a value, labels and a time; no lists are made: a burst counts some ten things for each call
      Reflect.set(Object(metric), name, function guarded(this: unknown, a: unknown, b: unknown, c: unknown) {
        return (method as Method).call(this, cleanArgument(a), cleanArgument(b), cleanArgument(c));
      });
    }
    return metric;
  };
  // As overloaded as what it wraps
  registry.register = registerGuarded as MetricRegistry['register'];
}

/** Nearly always: then no copy is made. */
function areClean(labels: Record<string, unknown>): boolean {
  for (const name of Object.keys(labels)) if (labelValue(labels[name]) !== labels[name]) return false;
  return true;
}

function cleanArgument(argument: unknown): unknown {
  if (typeof argument !== 'object' || argument === null) return labelValue(argument);
  if (areClean(argument as Record<string, unknown>)) return argument;
  return Object.fromEntries(Object.entries(argument).map(([name, value]) => [name, labelValue(value)]));
}

/**
 * Moleculer's Prometheus reporter without its own HTTP server: METRICS_PORT also answers /healthz and /readyz, so
 * the monitor service serves all three.
 */
class PulledReporter extends MetricReporters.Prometheus {
  defaultLabels: Record<string, string> = {};
  override init(registry: MetricRegistry): void {
    MetricReporters.Base.prototype.init.call(this, registry);
    guardLabels(registry);
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
