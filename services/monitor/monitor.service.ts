/**
 * Every process runs it: /metrics, /healthz and /readyz on METRICS_PORT. Owns nothing else, emits nothing, and never
 * takes part in a request.
 */
import { createServer, type Server } from 'node:http';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { defineService } from '../../lib/define-service.ts';
import { healthOf } from '../../lib/health.ts';
import { metricsText } from '../../lib/metrics.ts';

const sampleEachMs = 20;

export default defineService({
  name: 'monitor',
  state: () => ({
    server: undefined as Server | undefined,
    loopDelay: undefined as ReturnType<typeof monitorEventLoopDelay> | undefined,
  }),

  methods: {
    /** Since the last look: whatever blocks the loop delays an SOS. */
    measureLoop(): void {
      const { loopDelay, broker } = this;
      if (!loopDelay || loopDelay.count === 0) return;
      // The histogram holds the time between samples
      const late = (nanoseconds: number) => Math.max(0, nanoseconds / 1e6 - sampleEachMs);
      const delays = { p50: loopDelay.percentile(50), p99: loopDelay.percentile(99), max: loopDelay.max };
      for (const [quantile, value] of Object.entries(delays)) {
        broker.metrics.set('process.eventloop.delay', late(value), { quantile });
      }
      loopDelay.reset();
    },
  },
  actions: {},

  async started() {
    const { broker } = this;
    const health = healthOf(broker);
    broker.metrics.register({
      type: 'gauge',
      name: 'process.eventloop.delay',
      labelNames: ['quantile'],
      unit: 'ms',
      description: 'How late the event loop ran its timers since the last look, sampled each 20 ms (ms)',
    });
    this.loopDelay = monitorEventLoopDelay({ resolution: sampleEachMs });
    this.loopDelay.enable();
    const server = createServer((request, response) => {
      const answer = (status: number, type: string, body: string) =>
        response.writeHead(status, { 'content-type': type }).end(body);
      if (request.url === '/metrics') {
        this.measureLoop();
        return answer(200, 'text/plain; version=0.0.4; charset=utf-8', metricsText(broker));
      }
      if (request.url === '/healthz') return answer(200, 'application/json', '{"status":"alive"}');
      if (request.url !== '/readyz') return answer(404, 'application/json', '{"error":{"code":"NOT_FOUND"}}');
      health.report().then(
        (report) => answer(report.ready ? 200 : 503, 'application/json', JSON.stringify(report)),
        () => answer(503, 'application/json', '{"ready":false}'),
      );
    });
    this.server = server;
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(this.config.metricsPort, this.config.host, resolve);
    });
  },

  async stopped() {
    this.loopDelay?.disable();
    const { server } = this;
    if (!server) return;
    const closed = new Promise((resolve) => server.close(resolve));
    server.closeAllConnections();
    await closed;
  },
});
