/**
 * The REST door: routes come from the `rest` of actions. Knows who calls, limits how often, answers errors with their
 * code; takes the callbacks of providers. Owns no data; never passes on what an action has no contract for.
 */
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import helmet from 'helmet';
import type { ServiceBroker } from 'moleculer';
import ApiGateway from 'moleculer-web';
import { type ActionContract, contracts } from '../../contracts/index.ts';
import { pause } from '../../lib/backoff.ts';
import { brokerConfig } from '../../lib/broker-config.ts';
import { clientIp } from '../../lib/client-ip.ts';
import type { Config } from '../../lib/config.ts';
import type { Log, Meta } from '../../lib/context.ts';
import { defineService, type Mixin, type RestRoute } from '../../lib/define-service.ts';
import { prepareDoor } from '../../lib/door-server.ts';
import { AppError, errorStatus, publicError } from '../../lib/errors.ts';
import type { FeedReader } from '../../lib/feed-reader.ts';
import { healthOf } from '../../lib/health.ts';
import { isAllowedOrigin } from '../../lib/origins.ts';
import type { Caller, Permission } from '../../lib/permissions.ts';
import { type RateLimit, rateLimit } from '../../lib/rate-limit.ts';
import type { RedisConnection } from '../../lib/redis-client.ts';
import { isHostile } from '../../lib/validate.ts';
import { type SnsClient, snsClient } from '../../lib/webhooks/sns.ts';
import { feedReader } from '../../mixins/feed-reader.ts';
import { type Sessions, sessions } from '../../mixins/sessions.ts';
import { type Shedding, shedding } from '../../mixins/shedding.ts';
import { docsRoutes } from './docs-routes.ts';
import { EventStreams } from './event-streams.ts';
import { letGo } from './let-go.ts';
import { shedRequests } from './shed-requests.ts';
import { callbackAction, webhookMetric, whatsappHandshake } from './webhooks.ts';

/** What moleculer-web passes to its hooks, as far as it is used here. */
interface Request extends IncomingMessage {
  body?: unknown;
  originalUrl?: string;
  query: Record<string, unknown>;
  $ctx?: { requestID: string; meta: Meta & Record<string, unknown> };
  $params: { params?: Record<string, unknown> } & Record<string, unknown>;
  $action?: { rest?: RestRoute; permissions?: Permission };
  $alias?: { path: string };
  parsedUrl: string;
}
type Context = NonNullable<Request['$ctx']>;

interface Door {
  config: Config;
  sessions: Sessions;
  perUser: RateLimit;
  perIp: RateLimit;
  perCaller: RateLimit;
  eventStreams: EventStreams;
  routes: { opts: { autoAliases?: boolean } }[];
  stopping: AbortController;
  /** Names of the services whose routes are known. */
  routed: string;
  regenerateAutoAliases(route: unknown): void;
  resolveAlias(url: string, method: string | undefined): false | { alias: { action?: string } };
  broker: ServiceBroker;
  logger: Log;
}

/** How long a door that starts is not ready because it has not heard of all services, ms. */
const othersWithinMs = 2000;

const secure = helmet();
const requestIdShape = /^[\w-]{8,64}$/;

const sendJson = (res: ServerResponse, status: number, body: unknown) =>
  res.writeHead(status, { 'content-type': 'application/json; charset=utf-8' }).end(JSON.stringify(body));

/** Body, query and path in one; the path wins. Spread, not assign: an own `__proto__` must stay a plain key. */
function mergeParams(_ctx: Context, _route: unknown, req: Request): void {
  const { params } = req.$params;
  if (isHostile(req.body) || isHostile(req.query)) throw new AppError('VALIDATION');
  const body = typeof req.body === 'object' && !Array.isArray(req.body) ? req.body : {};
  req.$params = { ...req.query, ...body, ...params };
}

/** The body as text, whatever it says that it is; refused only when it is over the limit. */
async function readText(req: Request, limit: number): Promise<string> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of req.iterator({ destroyOnReturn: false })) {
    if (!(chunk instanceof Buffer)) continue;
    size += chunk.length;
    if (size > limit) break;
    chunks.push(chunk);
  }
  if (size > limit) {
    // The rest is read and dropped, or a client that is still sending would never see the answer
    req.resume();
    throw new AppError('PAYLOAD_TOO_LARGE');
  }
  return Buffer.concat(chunks).toString('utf8');
}

/**
 * Whatever was sent, as something that an action that never refuses can read: what is no JSON object is handed on as text.
 * The header wins over a key in the body.
 */
async function mergeAnything(this: Door, _ctx: Context, _route: unknown, req: Request): Promise<void> {
  const text = await readText(req, this.config.bodyLimitKb * 1024);
  let params: Record<string, unknown> = text === '' ? {} : { raw: text };
  try {
    const body: unknown = JSON.parse(text);
    if (typeof body === 'object' && body !== null && !Array.isArray(body) && !isHostile(body))
      params = { ...body };
  } catch {
    // Not JSON: it stays raw
  }
  const key = req.headers['idempotency-key'];
  req.$params = { ...params, via: 'rest', ...(key === undefined ? {} : { key }) };
}

/** How the outside wrote the address that it called: by PUBLIC_URL, since proxies change it on its way. */
function outsideUrl({ publicUrl, trustedProxies }: Config, req: Request): string {
  const forwarded = trustedProxies > 0 ? req.headers['x-forwarded-proto'] : undefined;
  const base = publicUrl ?? `${forwarded === 'https' ? 'https' : 'http'}://${req.headers.host}`;
  return base.replace(/\/$/, '') + req.originalUrl;
}

/** A callback as it came: whatever it is signed over. */
async function passAsItCame(this: Door, _ctx: Context, _route: unknown, req: Request): Promise<void> {
  const { limitKb = 0 } = req.$action?.rest?.callback ?? {};
  const headers = Object.entries(req.headers).flatMap(([name, value]) =>
    name.startsWith('x-') && typeof value === 'string' ? [[name, value] as const] : [],
  );
  req.$params = {
    url: outsideUrl(this.config, req),
    headers: Object.fromEntries(headers),
    body: await readText(req, limitKb * 1024),
  };
}

const bearerOf = (req: Request): string | undefined =>
  /^Bearer (\S+)$/i.exec(req.headers.authorization ?? '')?.[1];

async function authenticate(this: Door, ctx: Context, _route: unknown, req: Request): Promise<Caller | null> {
  const ip = clientIp(req.socket.remoteAddress, req.headers['x-forwarded-for'], this.config.trustedProxies);
  ctx.meta.ip = ip;
  const { rest, permissions } = req.$action ?? {};
  if (rest?.callback) {
    await this.perCaller(ip);
    return null;
  }
  const token = bearerOf(req);
  if (rest?.admits) {
    const admitted = await this.sessions.admit(token);
    if (admitted.standing === 'ended' && rest.admits !== 'ever') throw new AppError('UNAUTHENTICATED');
    return admitted;
  }
  try {
    const caller = token === undefined ? null : await this.sessions.resolve(token);
    if (!rest?.unlimited) await (caller ? this.perUser(caller.id) : this.perIp(ip));
    return caller;
  } catch (error) {
    if (!(error instanceof AppError) || error.type !== 'UNAUTHENTICATED') throw error;
    await this.perIp(ip);
    // A phone whose session has ended must still be able to sign in
    if (permissions === 'public') return null;
    throw error;
  }
}

function answerStatus(
  _ctx: Context,
  _route: unknown,
  req: Request,
  _res: ServerResponse,
  data: unknown,
): unknown {
  const { status, location, plainText } = req.$action?.rest ?? {};
  const meta = req.$ctx?.meta ?? {};
  if (data === null) meta.$statusCode = 204;
  else if (status) meta.$statusCode = status;
  if (plainText) meta.$responseType = 'text/plain; charset=utf-8';
  if (location) {
    meta.$location = `/api/v1${location.replace(/:(\w+)/g, (_, field: string) => String(Reflect.get(Object(data), field)))}`;
  }
  return data;
}

/** What has routes has summaries. */
const servicesWithRoutes = Object.entries(contracts)
  .filter(([, { actions }]) =>
    Object.values<ActionContract>(actions).some(({ summary }) => summary !== undefined),
  )
  .map(([name]) => name);

const serviceNames = (broker: ServiceBroker): string[] =>
  broker.registry.getServiceList({ onlyAvailable: true }).map(({ name }: { name: string }) => name);

/** Routes are known while some node offers their service: without one, nobody can tell that there is no such route. */
function mayBeAway(broker: ServiceBroker): boolean {
  if (!broker.transit) return false;
  const here = new Set(serviceNames(broker));
  return servicesWithRoutes.some((name) => !here.has(name));
}

function answerError(this: Door, req: Request, res: ServerResponse, cause: unknown): void {
  const requestId = req.$ctx?.requestID;
  const unknownRoute = req.$alias === undefined && errorStatus(cause) === 404;
  const error =
    unknownRoute && req.originalUrl?.startsWith('/api/v1/') && mayBeAway(this.broker)
      ? new AppError('UNAVAILABLE', { retryAfterS: 2 })
      : cause;
  const body = publicError(error, requestId);
  if (body.code === 'INTERNAL') this.logger.error('A request failed', { requestId, error });
  if (res.headersSent) return void res.end();
  if (body.retryAfterS !== undefined) res.setHeader('Retry-After', body.retryAfterS);
  sendJson(res, errorStatus(error), { error: body });
}

/** One line a request; the route's pattern, not the URL, which may hold a share token. */
function logAccess({ logger }: Door, req: Request, res: ServerResponse, ms: number): void {
  logger.info('Request', {
    method: req.method,
    route: req.$alias?.path ?? 'none',
    status: res.statusCode,
    ms: Math.round(ms),
    requestId: req.$ctx?.requestID,
    userId: req.$ctx?.meta.user?.id,
  });
}

async function outbox(this: Door, req: Request, res: ServerResponse): Promise<void> {
  const { sandboxProviders, providersSandboxUrl } = this.config;
  if (!sandboxProviders || !providersSandboxUrl) throw new AppError('NOT_FOUND');
  const url = new URL('/outbox', providersSandboxUrl);
  for (const [key, value] of Object.entries(req.query)) url.searchParams.set(key, String(value));
  const answer = await fetch(url, { signal: AbortSignal.timeout(2000) });
  sendJson(res, answer.status, await answer.json());
}

function streamEvents(this: Door, req: Request, res: ServerResponse): Promise<void> {
  const token = bearerOf(req);
  return this.eventStreams.serve({
    req,
    res,
    caller: req.$ctx?.meta.user,
    resolve: () => this.sessions.resolve(token),
  });
}

/**
 * moleculer-web, its own management actions switched off. Every request is a call of its `rest`: a bulkhead there would have
 * an SOS wait behind whatever is slow. The actions that it calls have theirs.
 */
const gateway: Mixin<{ server: Server }> = {
  mixins: [ApiGateway],
  actions: {
    rest: { bulkhead: { enabled: false } },
    listAliases: false,
    addRoute: false,
    removeRoute: false,
  },
};

/** Made before the door opens: its first request counts already. */
const limits: Mixin<Pick<Door, 'perUser' | 'perIp' | 'perCaller'>> = {
  created(this: Door & { redis: RedisConnection }) {
    const { rateLimitPerUser, rateLimitPerIp, rateLimitCallbacks } = this.config;
    this.perUser = rateLimit(this.redis, { name: 'user', points: rateLimitPerUser, durationS: 60 });
    this.perIp = rateLimit(this.redis, { name: 'ip', points: rateLimitPerIp, durationS: 60 });
    this.perCaller = rateLimit(this.redis, { name: 'callback', points: rateLimitCallbacks, durationS: 60 });
  },
};

const eventStreams: Mixin<{ eventStreams: EventStreams }> = {
  created(this: Door & { broker: ServiceBroker; feedReader: FeedReader }) {
    this.eventStreams = new EventStreams({
      feed: this.feedReader,
      onTrouble: (text, error) => this.logger.warn(text, { error }),
    });
    healthOf(this.broker).onDrain(async () => this.eventStreams.drain());
  },
};

/** Before everything that moleculer-web does with a request. */
const sosFirst: Mixin = {
  created(this: { broker: ServiceBroker; server: Server; shedding: Shedding }) {
    shedRequests(this.server, this.shedding, (req, res) => secure(req, res, () => undefined));
    prepareDoor(this.server, brokerConfig(this.broker));
  },
};

/**
 * Routes are those of the services that are there, at any moment; moleculer-web alone would be half a second late, and answer 404 meanwhile.
 * What other nodes offer takes a moment to be heard of: until then the door serves what it can, an SOS above all, and is not ready.
 */
const routesAtOnce = {
  created(this: Door) {
    this.routed = '';
    this.stopping = new AbortController();
  },
  async started(this: Door) {
    const { signal } = this.stopping;
    const until = performance.now() + othersWithinMs;
    const others = async () => {
      while (mayBeAway(this.broker) && performance.now() < until && !signal.aborted) await pause(20, signal);
    };
    if (this.broker.transit?.connected) healthOf(this.broker).readyAfter(others());
  },
  stopped(this: Door) {
    this.stopping.abort();
  },
  events: {
    '$broker.started'(this: Door) {
      followServices.call(this);
    },
    '$services.changed'(this: Door) {
      followServices.call(this);
    },
  },
};

/** Another node of a service that is there already brings no routes. */
function followServices(this: Door): void {
  const names = [...new Set(serviceNames(this.broker))].toSorted().join();
  if (names === this.routed) return;
  this.routed = names;
  for (const route of this.routes) if (route.opts.autoAliases) this.regenerateAutoAliases(route);
}

/** What is under way when the door has closed, ms. */
const finishWithinMs = 2000;

export default defineService({
  name: 'api',
  // The last is made and started first, and stopped last: Redis is there before the door opens, and until it has closed
  mixins: [
    sosFirst,
    gateway,
    routesAtOnce as Mixin,
    limits,
    eventStreams,
    feedReader(),
    sessions(),
    shedding('rest'),
  ],

  settings: (config) => ({
    port: config.apiPort,
    ip: config.host,
    debounceTime: 100,
    requestTimeout: 30_000,
    logRequest: null,
    logResponse: null,
    logRouteRegistration: null,
    // moleculer publishes settings to the other nodes
    $secureSettings: ['cors', 'routes', 'onError', 'rootCallOptions'],
    cors: {
      // A function: moleculer-web takes a string for a match when the origin is a part of it
      origin: (origin: string) => isAllowedOrigin(config, origin),
      methods: ['GET', 'POST', 'PUT', 'PATCH', 'DELETE'],
      allowedHeaders: ['authorization', 'content-type', 'idempotency-key', 'last-event-id'],
      exposedHeaders: ['retry-after', 'x-request-id'],
      maxAge: 600,
    },
    rootCallOptions(
      this: Door,
      options: { requestID?: string | undefined },
      req: Request,
      res: ServerResponse,
    ) {
      // The first hook of a request: even a refusal carries the headers
      secure(req, res, () => undefined);
      if (!requestIdShape.test(options.requestID ?? '')) options.requestID = undefined;
      const startedAt = performance.now();
      res.once('finish', () => logAccess(this, req, res, performance.now() - startedAt));
    },
    onError: answerError,
    routes: [
      {
        name: 'sos',
        path: '/api/v1',
        autoAliases: true,
        whitelist: ['sos.trigger'],
        mappingPolicy: 'restrict',
        mergeParams: false,
        bodyParsers: false,
        onBeforeCall: mergeAnything,
        authentication: true,
        onAfterCall: answerStatus,
      },
      {
        name: 'webhooks',
        path: '/api/v1',
        autoAliases: true,
        whitelist: ['api.*'],
        mappingPolicy: 'restrict',
        mergeParams: false,
        bodyParsers: false,
        onBeforeCall: passAsItCame,
        authentication: true,
        onAfterCall: answerStatus,
      },
      {
        name: 'api',
        path: '/api/v1',
        autoAliases: true,
        blacklist: ['sos.trigger', 'api.*'],
        mappingPolicy: 'restrict',
        mergeParams: false,
        bodyParsers: { json: { limit: `${config.bodyLimitKb}kb`, strict: true } },
        onBeforeCall: mergeParams,
        authentication: true,
        onAfterCall: answerStatus,
        aliases: {
          'GET /admin/events/stream'(
            this: Door,
            req: Request,
            res: ServerResponse,
            next: (error: unknown) => void,
          ) {
            streamEvents.call(this, req, res).catch(next);
          },
        },
      },
      {
        path: '/',
        mappingPolicy: 'restrict',
        bodyParsers: false,
        aliases: {
          ...docsRoutes,
          'GET /healthz': (_req: Request, res: ServerResponse) => sendJson(res, 200, { status: 'alive' }),
          async 'GET /readyz'(
            this: { broker: Parameters<typeof healthOf>[0] },
            _req: Request,
            res: ServerResponse,
          ) {
            const report = await healthOf(this.broker).report();
            sendJson(res, report.ready ? 200 : 503, report);
          },
          'GET /dev/outbox'(this: Door, req: Request, res: ServerResponse, next: (error: unknown) => void) {
            outbox.call(this, req, res).catch(next);
          },
        },
      },
    ],
  }),

  // moleculer-web looks for this method by its name
  methods: { authenticate },

  state: () => ({ sns: undefined as SnsClient | undefined }),

  actions: {
    twilioStatus: callbackAction('twilioStatus'),
    twilioInbound: callbackAction('twilioInbound'),
    whatsappHandshake,
    whatsapp: callbackAction('whatsapp'),
    sendgrid: callbackAction('sendgrid'),
    msg91: callbackAction('msg91'),
    ses: callbackAction('ses'),
  },

  events: {
    'session.revoked': {
      everyNode: true,
      handler(ctx) {
        this.eventStreams.cut(ctx.params.userId, ctx.params.sessionId);
      },
    },
  },

  async started() {
    const { server, broker, config } = this;
    this.sns = snsClient();
    broker.metrics.register(webhookMetric);
    healthOf(broker).onDrain(() => letGo(server, config.drainGraceMs, finishWithinMs));
  },
});
