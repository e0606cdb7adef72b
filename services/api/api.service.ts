/**
 * The REST door: routes come from the `rest` of actions. Knows who calls, limits how often, answers errors with their
 * code. Owns no data; never passes on what an action has no contract for.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import helmet from 'helmet';
import type { Redis } from 'ioredis';
import type { ServiceBroker } from 'moleculer';
import ApiGateway from 'moleculer-web';
import type { Config } from '../../lib/config.ts';
import type { Log, Meta } from '../../lib/context.ts';
import { defineService, type Mixin, type RestRoute } from '../../lib/define-service.ts';
import { AppError, errorStatus, publicError } from '../../lib/errors.ts';
import { healthOf } from '../../lib/health.ts';
import { isAllowedOrigin } from '../../lib/origins.ts';
import type { Caller, Permission } from '../../lib/permissions.ts';
import { type RateLimit, rateLimit } from '../../lib/rate-limit.ts';
import { isHostile } from '../../lib/validate.ts';
import { type Sessions, sessions } from '../../mixins/sessions.ts';
import { clientIp } from './client-ip.ts';
import { docsRoutes } from './docs-routes.ts';

/** What moleculer-web passes to its hooks, as far as it is used here. */
interface Request extends IncomingMessage {
  body?: unknown;
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
  routes: { opts: { autoAliases?: boolean } }[];
  regenerateAutoAliases(route: unknown): void;
  resolveAlias(url: string, method: string | undefined): false | { alias: { action?: string } };
  broker: ServiceBroker;
  logger: Log;
}

const secure = helmet();
const requestIdShape = /^[\w-]{8,64}$/;

const sendJson = (res: ServerResponse, status: number, body: unknown) =>
  res.writeHead(status, { 'content-type': 'application/json; charset=utf-8' }).end(JSON.stringify(body));

/** Body, query and path in one; the path wins. Spread, not assign: an own `__proto__` must stay a plain key. */
function mergeParams(_ctx: Context, _route: unknown, req: Request): void {
  const { params } = req.$params;
  if (isHostile(req.body) || isHostile(req.query)) {
    if (!req.$action?.rest?.neverRefuses) throw new AppError('VALIDATION');
    req.$params = { ...params };
    return;
  }
  const body = typeof req.body === 'object' && !Array.isArray(req.body) ? req.body : {};
  req.$params = { ...req.query, ...body, ...params };
}

/** A body that cannot be read goes in as an empty one where nothing is a reason to refuse. */
function takeAnyBody(
  this: Door,
  error: Error,
  req: Request,
  _res: ServerResponse,
  next: (error?: Error) => void,
): void {
  const { alias } = this.resolveAlias(req.parsedUrl, req.method) || {};
  const endpoint = alias?.action === undefined ? undefined : this.broker.findNextActionEndpoint(alias.action);
  const rest = endpoint && 'action' in endpoint ? endpoint.action.rest : undefined;
  if (!rest?.neverRefuses) return next(error);
  req.body = {};
  next();
}

async function authenticate(this: Door, ctx: Context, _route: unknown, req: Request): Promise<Caller | null> {
  const ip = clientIp(req.socket.remoteAddress, req.headers['x-forwarded-for'], this.config.trustedProxies);
  ctx.meta.ip = ip;
  const { rest, permissions } = req.$action ?? {};
  const [, token] = /^Bearer (\S+)$/i.exec(req.headers.authorization ?? '') ?? [];
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
  const { status, location } = req.$action?.rest ?? {};
  const meta = req.$ctx?.meta ?? {};
  if (data === null) meta.$statusCode = 204;
  else if (status) meta.$statusCode = status;
  if (location) {
    meta.$location = `/api/v1${location.replace(/:(\w+)/g, (_, field: string) => String(Reflect.get(Object(data), field)))}`;
  }
  return data;
}

function answerError(this: Door, req: Request, res: ServerResponse, error: unknown): void {
  const requestId = req.$ctx?.requestID;
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

/** moleculer-web, its own management actions switched off. */
const gateway: Mixin = {
  mixins: [ApiGateway],
  actions: { listAliases: false, addRoute: false, removeRoute: false },
};

/** Made before the door opens: its first request counts already. */
const limits: Mixin<Pick<Door, 'perUser' | 'perIp'>> = {
  created(this: Door & { redis: Redis }) {
    const { rateLimitPerUser, rateLimitPerIp } = this.config;
    this.perUser = rateLimit(this.redis, { name: 'user', points: rateLimitPerUser, durationS: 60 });
    this.perIp = rateLimit(this.redis, { name: 'ip', points: rateLimitPerIp, durationS: 60 });
  },
};

/** Routes are complete when the broker says it is up; moleculer-web alone would be half a second late. */
const routesAtStart = {
  events: {
    '$broker.started'(this: Door) {
      for (const route of this.routes) if (route.opts.autoAliases) this.regenerateAutoAliases(route);
    },
  },
};

export default defineService({
  name: 'api',
  // The last is made and started first, and stopped last: Redis is there before the door opens, and until it has closed
  mixins: [gateway, routesAtStart as Mixin, limits, sessions()],

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
        path: '/api/v1',
        autoAliases: true,
        mappingPolicy: 'restrict',
        mergeParams: false,
        bodyParsers: { json: { limit: `${config.bodyLimitKb}kb`, strict: true } },
        use: [takeAnyBody],
        onBeforeCall: mergeParams,
        authentication: true,
        onAfterCall: answerStatus,
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

  actions: {},
});
