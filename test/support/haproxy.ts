/**
 * The balancer before the doors. Its settings are what docs/running-in-production.md asks of any balancer; keywords:
 * https://docs.haproxy.org/2.6/configuration.html
 */
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { AppError, publicError } from '../../lib/errors.ts';
import { eventually } from './eventually.ts';
import { spawnTied } from './spawn.ts';

/** A process behind the balancer, and where it takes traffic. */
export interface Backend {
  name: string;
  port: number;
}

export interface Gateway extends Backend {
  /** Where it is asked how it is. */
  checkPort: number;
}

export interface HaproxyOptions {
  /** Where the balancer listens, on 127.0.0.1. */
  apiPort: number;
  socketPort: number;
  /** Its own metrics, and whether both doors have a node. */
  metricsPort: number;
  apis: readonly Backend[];
  gateways: readonly Gateway[];
}

export interface Haproxy {
  pid: number;
  stop(): Promise<void>;
}

const servers = <B extends Backend>(backends: readonly B[], how?: (backend: B) => string): string =>
  backends.map((each) => `  server ${each.name} 127.0.0.1:${each.port}${how?.(each) ?? ''}`).join('\n');

/** What clients get when no node answers: as from a door. */
const unavailable = JSON.stringify({ error: publicError(new AppError('UNAVAILABLE', { retryAfterS: 2 })) });
const answeredByItself = [502, 503, 504]
  .map(
    (status) =>
      `  http-error status ${status} content-type application/json string '${unavailable}' hdr Retry-After 2`,
  )
  .join('\n');

/** A node that died with a request may have done it. */
const retryReads = `\
  retry-on conn-failure empty-response
  http-request disable-l7-retry unless METH_GET`;

/** Who polls stays with whom it has a session with. */
const sticky = `\
  cookie NODE insert indirect nocache httponly
  acl in_session url_param(sid) -m found
  http-request del-header Cookie unless in_session`;

/** Requests that an api works on at once, of alerts and of all else: more would only keep its checks waiting, and it be cut as dead. */
const atOnce = 500;

/**
 * - A node that does not answer two checks is out, and what it still holds is cut, so that its clients go elsewhere: after
 *   1 s when its process is gone; when it is frozen, a gateway after 3.5 s and an api after 11 s. One that says 503 (it drains, is full, or
 *   has no time) gets nothing new and keeps what it has. A busy api answers no check for seconds; a gateway has a thread for them, since
 *   to cut the sockets of one that is busy sends all of them to the next (services/gateway/balancer-checks.ts).
 * - Requests wait here for an api that has enough to do; those of alerts have places of their own, and wait for as long as phones do.
 *   Streams of events stay for hours, and take no places.
 * - When no node looks well, or all are full or busy, all of them are tried: the balancer must not close every door to an SOS.
 * - What a node refuses (503) or drops is tried on another, if trying twice does no harm: new connections, reads.
 * - Clients are not told how long a node keeps its connections (`Keep-Alive`): they are not theirs.
 * - A polling client stays on its node by a cookie; it counts only where there is a session, so that each new connection
 *   goes to the node with the fewest.
 */
const haproxyConfig = ({ apiPort, socketPort, metricsPort, apis, gateways }: HaproxyOptions): string => `\
global
  log stdout format raw local0 err

defaults
  mode http
  log global
  option forwardfor
  option redispatch 1
  retries 3
  timeout http-request 10s
  timeout connect 1s
  # To answer; to connect it has inter
  timeout check 5s
  timeout queue 2s
  # Above the heartbeats of event streams (15 s) and sockets (25 s)
  timeout client 60s
  timeout server 60s
  timeout tunnel 60s
  timeout client-fin 5s
${answeredByItself}
  option httpchk
  default-server inter 500ms fastinter 200ms fall 2 rise 1 on-marked-down shutdown-sessions

frontend rest
  bind 127.0.0.1:${apiPort}
  use_backend api-unchecked if { nbsrv(api) lt 1 }
  use_backend sos if { path_beg /api/v1/sos /api/v1/admin/sos }
  use_backend streams if { path /api/v1/admin/events/stream }
  http-response del-header Keep-Alive
  default_backend api

frontend sockets
  bind 127.0.0.1:${socketPort}
  use_backend gateway-unchecked if { nbsrv(gateway) lt 1 }
  http-response del-header Keep-Alive
  default_backend gateway

frontend metrics
  bind 127.0.0.1:${metricsPort}
  monitor-uri /readyz
  monitor fail if { nbsrv(api) lt 1 } || { nbsrv(gateway) lt 1 }
  http-request return status 200 content-type application/json string '{"status":"alive"}' if { path /healthz }
  http-request use-service prometheus-exporter if { path /metrics }
  http-request return status 404

backend api
  balance leastconn
  http-check send meth GET uri /readyz
  http-check expect error-status L7OKC status 200-299
${retryReads}
${servers(apis, () => ` check maxconn ${atOnce}`)}

backend sos
  balance leastconn
  timeout queue 30s
${retryReads}
${servers(apis, ({ name }) => ` track api/${name} maxconn ${atOnce}`)}

backend streams
  balance leastconn
${retryReads}
${servers(apis, ({ name }) => ` track api/${name}`)}

backend api-unchecked
${servers(apis)}

backend gateway
  balance leastconn
  timeout check 1500ms
  default-server inter 300ms fastinter 100ms
  http-check send meth GET uri /vacancy
  http-check expect error-status L7OKC status 200-299
${sticky}
  retry-on conn-failure empty-response 503
  http-request disable-l7-retry unless METH_GET !in_session
${servers(gateways, ({ name, checkPort }) => ` cookie ${name} check port ${checkPort}`)}

backend gateway-unchecked
  balance leastconn
${sticky}
${servers(gateways, ({ name }) => ` cookie ${name}`)}
`;

/** Starts it; resolves when it takes connections. Rejects, leaving nothing, with what it says when it does not. */
export async function startHaproxy(options: HaproxyOptions): Promise<Haproxy> {
  const dir = await mkdtemp(join(tmpdir(), 'ride-haproxy-'));
  const file = join(dir, 'haproxy.cfg');
  await writeFile(file, haproxyConfig(options));
  // -db: in the foreground
  const child = spawnTied('haproxy', ['-db', '-f', file], { stdio: ['ignore', 'ignore', 'pipe'] });
  let said = '';
  child.stderr?.on('data', (chunk: Buffer) => (said = (said + chunk.toString()).slice(-10_000)));
  const exited = once(child, 'exit');
  const hasEnded = () => child.exitCode !== null || child.signalCode !== null;
  const stop = async () => {
    if (!hasEnded()) child.kill('SIGTERM');
    await exited;
    await rm(dir, { recursive: true, force: true });
  };
  try {
    await eventually(async () => {
      if (hasEnded()) return;
      const probe = connect(options.metricsPort, '127.0.0.1');
      try {
        await once(probe, 'connect');
      } finally {
        probe.destroy();
      }
    }, 10_000);
    if (hasEnded() || child.pid === undefined) throw new Error(`haproxy ended at its start:\n${said}`);
    return { pid: child.pid, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}
