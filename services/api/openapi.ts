/**
 * The REST API as an OpenAPI 3.1 document (https://spec.openapis.org/oas/v3.1.1), made from the contracts and from the
 * `rest` and `permissions` of actions: nothing in it is written twice. Pure.
 */
import { z } from 'zod';
import { type ErrorCode, errorCatalogue, publicError } from '../../contracts/errors.ts';
import type { ActionContract } from '../../contracts/index.ts';
import type { RestRoute } from '../../lib/define-service.ts';
import type { Permission } from '../../lib/permissions.ts';

/** A JSON Schema (draft 2020-12), as far as it is read here. */
export interface Schema {
  $ref?: string;
  type?: string | string[];
  format?: string;
  description?: string;
  properties?: Record<string, Schema>;
  required?: string[];
  items?: Schema | false;
  prefixItems?: Schema[];
  anyOf?: Schema[];
  enum?: unknown[];
  const?: unknown;
  default?: unknown;
  minimum?: number;
  maximum?: number;
  exclusiveMinimum?: number;
  minLength?: number;
  maxLength?: number;
  minItems?: number;
  maxItems?: number;
  pattern?: string;
  additionalProperties?: boolean | Schema;
  $defs?: Record<string, Schema>;
}

export interface Parameter {
  name: string;
  in: 'path' | 'query' | 'header';
  required: boolean;
  description?: string;
  schema: Schema;
}

interface Media {
  schema: Schema;
  examples?: Partial<Record<ErrorCode, { summary: string; value: unknown }>>;
}

type RequestType = 'application/json' | NonNullable<NonNullable<RestRoute['callback']>['contentType']>;

export interface Response {
  description: string;
  headers?: Record<string, { description: string; schema: Schema }>;
  content?: { 'application/json'?: Media; 'text/plain'?: Media };
}

export interface Operation {
  operationId: string;
  tags: [string];
  summary: string;
  /** Any of these is enough; none at all means that anybody may. */
  security: { bearer: readonly string[] }[];
  parameters?: Parameter[];
  requestBody?: { required: boolean; content: Partial<Record<RequestType, Media>> };
  responses: Record<string, Response>;
}

type Method = Lowercase<RestRoute['method']>;

export interface OpenApi {
  openapi: '3.1.1';
  info: { title: string; version: string; summary: string; description: string };
  servers: { url: string }[];
  tags: { name: string; description?: string }[];
  paths: Record<string, { [M in Method]?: Operation }>;
  components: {
    schemas: Record<string, Schema>;
    securitySchemes: { bearer: { type: 'http'; scheme: 'bearer'; description: string } };
  };
}

/** An action as the registry knows it, on whichever node it runs. */
export interface RegisteredAction {
  name: string;
  rest?: RestRoute | undefined;
  permissions?: Permission | undefined;
}

/** Service → its contract; `description` tells what the service is about. */
export type ServiceContracts = Record<
  string,
  { description?: string; actions: Record<string, ActionContract> }
>;

const description = `Errors are \`{"error": {code, message, requestId}}\`: a code is stable, so switch on it. Unknown fields in a body are
ignored, answers may gain fields. Times are ISO 8601. Not under /api/v1, and not described here: the probes /healthz and
/readyz, and in development /dev/outbox, which holds the messages that would have been sent.`;

/** `setPushToken` → `Set push token` */
const humanised = (name: string): string => {
  const words = name.replace(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`);
  return words.charAt(0).toUpperCase() + words.slice(1);
};

const isEmpty = (value: object): boolean => Object.keys(value).length === 0;

/** Schemas with a name (`.meta({id})`), shared by the operations that mention them. */
class Components {
  readonly schemas: Record<string, Schema> = {};

  /** A schema as JSON Schema. Of what is named, input and output share a component when they are alike. */
  add(schema: z.ZodType, io: 'input' | 'output', owner: string): Schema {
    const { $defs = {}, ...json } = z.toJSONSchema(schema, {
      io,
      target: 'draft-2020-12',
      unrepresentable: 'any',
      override({ jsonSchema }) {
        // Says the same at thrice the length
        if (jsonSchema.format) delete jsonSchema.pattern;
        // Answers may gain fields
        if (jsonSchema.additionalProperties === false) delete jsonSchema.additionalProperties;
      },
    }) as Schema & { $schema?: string };
    delete json.$schema;
    const names = new Map(Object.keys($defs).map((name) => [name, this.#nameFor(name, $defs, io, owner)]));
    for (const [name, shared] of Object.entries($defs))
      this.schemas[names.get(name) ?? name] = withRefs(shared, names);
    const isRecursive = JSON.stringify(json).includes('"$ref":"#"');
    if (!isRecursive) return withRefs(json, names);
    this.schemas[owner] = withRefs(json, names.set('#', owner));
    return { $ref: `#/components/schemas/${owner}` };
  }

  #nameFor(id: string, defs: Record<string, Schema>, io: 'input' | 'output', owner: string): string {
    // A recursive schema without a name of its own
    if (id.startsWith('__')) return `${owner}${id}`;
    const known = this.schemas[id];
    if (io === 'output' || !known) return id;
    const same = new Map(Object.keys(defs).map((name) => [name, name]));
    return JSON.stringify(withRefs(defs[id] ?? {}, same)) === JSON.stringify(known) ? id : `${id}Input`;
  }
}

/** A copy whose references lead to the components. */
function withRefs(schema: Schema, names: ReadonlyMap<string, string>): Schema {
  const text = JSON.stringify(schema, (key, value: unknown) => {
    if (key !== '$ref' || typeof value !== 'string') return value;
    const id = value.replace('#/$defs/', '');
    return `#/components/schemas/${names.get(id) ?? id}`;
  });
  return JSON.parse(text) as Schema;
}

/** What the door itself may answer, whatever the action does. */
function doorCodes(
  route: RestRoute,
  permission: Permission,
  takes: { any: boolean; body: boolean },
): ErrorCode[] {
  const { admits, neverRefuses = false, callback } = route;
  if (callback)
    return [...(takes.body ? (['PAYLOAD_TOO_LARGE'] as const) : []), 'RATE_LIMITED', 'UNAVAILABLE'];
  return [
    ...(takes.any && !neverRefuses ? (['VALIDATION'] as const) : []),
    ...(takes.body && !neverRefuses ? (['BAD_JSON'] as const) : []),
    ...(takes.body ? (['PAYLOAD_TOO_LARGE'] as const) : []),
    ...(permission === 'public' ? [] : (['UNAUTHENTICATED'] as const)),
    ...(permission === 'public' || admits ? [] : (['SESSION_STORE_UNAVAILABLE'] as const)),
    ...(typeof permission === 'object' ? (['FORBIDDEN'] as const) : []),
    ...(route.unlimited ? [] : (['RATE_LIMITED'] as const)),
    'UNAVAILABLE',
  ];
}

const errorRef: Schema = { $ref: '#/components/schemas/Error' };

function errorMedia(codes: readonly ErrorCode[]): Media {
  const examples = codes.map((code) => {
    const { message } = errorCatalogue[code];
    return [code, { summary: message, value: { error: { code, message } } }];
  });
  return { schema: errorRef, examples: Object.fromEntries(examples) as NonNullable<Media['examples']> };
}

const retryAfter = { 'Retry-After': { description: 'Seconds to wait', schema: { type: 'integer' } } };

function errorResponses(codes: readonly ErrorCode[]): Record<string, Response> {
  const byStatus = Map.groupBy(new Set(codes), (code) => errorCatalogue[code].status);
  const responses = [...byStatus].map(([status, those]) => [
    String(status),
    {
      description: those.join(', '),
      ...(status === 429 || status === 503 ? { headers: retryAfter } : {}),
      content: { 'application/json': errorMedia(those) },
    },
  ]);
  return {
    ...(Object.fromEntries(responses) as Record<string, Response>),
    default: {
      description: 'Any other error of the catalogue',
      content: { 'application/json': errorMedia(['TIMEOUT', 'INTERNAL']) },
    },
  };
}

/** As the door answers: the route's status or 200, 204 for a result that is null. */
function successResponses(
  route: RestRoute,
  contract: ActionContract,
  schema: Schema,
): Record<string, Response> {
  const responses: Record<string, Response> = {};
  if (contract.result.safeParse(null).success) responses['204'] = { description: 'Done' };
  if (schema.type === 'null') return responses;
  responses[String(route.status ?? 200)] = {
    description: { 200: 'OK', 201: 'Created', 202: 'Accepted' }[route.status ?? 200],
    ...(route.location
      ? { headers: { Location: { description: 'Where it is', schema: { type: 'string' } } } }
      : {}),
    content: { [route.plainText ? 'text/plain' : 'application/json']: { schema } },
  };
  return responses;
}

const pathParameters = (path: string): string[] =>
  [...path.matchAll(/:(\w+)/g)].map(([, name]) => name ?? '');

function parameter(name: string, place: Parameter['in'], schema: Schema, required: boolean): Parameter {
  const { description: text, ...rest } = schema;
  return { name, in: place, required, ...(text === undefined ? {} : { description: text }), schema: rest };
}

/** What a provider sends: its own documents say what is in it, the header who it is from. */
function callbackOf({ method, callback }: RestRoute): Pick<Operation, 'parameters' | 'requestBody'> {
  const { signature, contentType = 'application/json' } = callback ?? {};
  if (method === 'GET') return {};
  return {
    ...(signature ? { parameters: [parameter(signature, 'header', { type: 'string' }, true)] } : {}),
    requestBody: {
      required: true,
      content: { [contentType]: { schema: { description: 'As the provider sends it' } } },
    },
  };
}

/** Where the parameters of an action are in a request: path, query, or what remains as the body. */
function inputOf(route: RestRoute, schema: Schema): Pick<Operation, 'parameters' | 'requestBody'> {
  const { properties = {}, required = [], ...whole } = schema;
  const inPath = pathParameters(route.path);
  const rest = Object.entries(properties).filter(([name]) => !inPath.includes(name));
  const parameters = inPath.map((name) =>
    parameter(name, 'path', properties[name] ?? { type: 'string' }, true),
  );
  const { key } = properties;
  // The door takes the header for this field (api.service.ts)
  if (route.neverRefuses && key)
    parameters.push(
      parameter(
        'Idempotency-Key',
        'header',
        { type: 'string', description: 'Wins over `key` in the body' },
        false,
      ),
    );
  if (route.method === 'GET' || route.method === 'DELETE') {
    parameters.push(...rest.map(([name, field]) => parameter(name, 'query', field, required.includes(name))));
    return parameters.length > 0 ? { parameters } : {};
  }
  const stillRequired = required.filter((name) => !inPath.includes(name));
  const body: Schema = {
    ...whole,
    ...(rest.length > 0 ? { properties: Object.fromEntries(rest) } : {}),
    ...(stillRequired.length > 0 ? { required: stillRequired } : {}),
  };
  const hasBody = rest.length > 0 || schema.type !== 'object';
  return {
    ...(parameters.length > 0 ? { parameters } : {}),
    ...(hasBody
      ? {
          requestBody: {
            required: stillRequired.length > 0 || schema.type !== 'object',
            content: { 'application/json': { schema: body } },
          },
        }
      : {}),
  };
}

function securityOf(permission: Permission): Operation['security'] {
  if (permission === 'public') return [];
  if (typeof permission === 'string') return [{ bearer: [] }];
  return permission.map((role) => ({ bearer: [role] }));
}

/**
 * The document of those actions that have a route and a contract, in the contracts' order. A route of an action that
 * this node has no contract for is left out.
 */
export function openApi(actions: readonly RegisteredAction[], contracts: ServiceContracts): OpenApi {
  const registered = new Map(actions.map((action) => [action.name, action]));
  const components = new Components();
  const routes = Object.entries(contracts).flatMap(([service, { actions: own }]) =>
    Object.entries(own).flatMap(([name, contract]) => {
      const { rest, permissions = 'user' } = registered.get(`${service}.${name}`) ?? {};
      return rest ? [{ service, name, contract, rest, permissions }] : [];
    }),
  );
  // Results first: where input and output of one name differ, the plain name is the output's
  const results = routes.map(({ service, name, contract }) =>
    components.add(contract.result, 'output', `${service}.${name}.result`),
  );
  const paths: OpenApi['paths'] = {};
  for (const [index, { service, name, contract, rest, permissions }] of routes.entries()) {
    const input = rest.callback
      ? callbackOf(rest)
      : inputOf(rest, components.add(contract.params, 'input', `${service}.${name}.params`));
    const takes = { any: !isEmpty(input), body: input.requestBody !== undefined };
    const path = rest.path.replace(/:(\w+)/g, '{$1}');
    paths[path] = {
      ...paths[path],
      [rest.method.toLowerCase() as Method]: {
        operationId: `${service}.${name}`,
        tags: [service],
        summary: contract.summary ?? humanised(name),
        security: securityOf(permissions),
        ...input,
        responses: {
          ...successResponses(rest, contract, results[index] ?? {}),
          ...errorResponses([...doorCodes(rest, permissions, takes), ...(contract.errors ?? [])]),
        },
      },
    };
  }
  const error = components.add(publicError, 'output', 'Error');
  return {
    openapi: '3.1.1',
    info: {
      title: 'Ride safety',
      version: '1.0.0',
      summary: 'Trips with live locations, for riders, drivers and those who watch over them.',
      description,
    },
    servers: [{ url: '/api/v1' }],
    tags: [...new Set(routes.map(({ service }) => service))].map((name) => {
      const text = contracts[name]?.description;
      return { name, ...(text === undefined ? {} : { description: text }) };
    }),
    paths,
    components: {
      schemas: {
        ...components.schemas,
        Error: { type: 'object', properties: { error }, required: ['error'] },
      },
      securitySchemes: {
        bearer: {
          type: 'http',
          scheme: 'bearer',
          description:
            'The `token` that POST /auth/login answers. Where roles are named, any one of them is enough.',
        },
      },
    },
  };
}
