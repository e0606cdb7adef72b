/**
 * Every process runs it: /metrics, /healthz and /readyz on METRICS_PORT. Owns nothing else, emits nothing, and never
 * takes part in a request.
 */
import { createServer, type Server } from 'node:http';
import { defineService } from '../../lib/define-service.ts';
import { healthOf } from '../../lib/health.ts';
import { metricsText } from '../../lib/metrics.ts';

export default defineService({
  name: 'monitor',
  state: () => ({ server: undefined as Server | undefined }),
  actions: {},

  async started() {
    const { broker } = this;
    const health = healthOf(broker);
    const server = createServer((request, response) => {
      const answer = (status: number, type: string, body: string) =>
        response.writeHead(status, { 'content-type': type }).end(body);
      if (request.url === '/metrics')
        return answer(200, 'text/plain; version=0.0.4; charset=utf-8', metricsText(broker));
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
    const { server } = this;
    if (!server) return;
    const closed = new Promise((resolve) => server.close(resolve));
    server.closeAllConnections();
    await closed;
  },
});
