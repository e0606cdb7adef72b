import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { BaseResolver, createConfig, lintDocument, makeDocumentFromString } from '@redocly/openapi-core';
import { z } from 'zod';
import { errorCatalogue } from '../../contracts/errors.ts';
import { actionContract, contracts } from '../../contracts/index.ts';
import type { RestRoute } from '../../lib/define-service.ts';
import { type OpenApi, type Operation, openApi, type Schema } from '../../services/api/openapi.ts';
import { aracaju, request, signIn, signInDriver } from '../support/clients.ts';
import { type System, startSystem } from '../support/system.ts';

/** What outside clients rely on already; a route that goes away breaks them. */
const promised = [
  'POST /auth/otp',
  'POST /auth/login',
  'POST /auth/logout',
  'POST /auth/logout-all',
  'GET /me',
  'PATCH /me',
  'PUT /me/emergency-contacts',
  'PUT /me/pin',
  'PUT /me/preferences',
  'PUT /me/push-token',
  'POST /me/driver',
  'POST /bookings',
  'POST /bookings/{id}/accept',
  'POST /trips/{id}/start',
  'POST /trips/{id}/end',
  'POST /trips/{id}/cancel',
  'GET /trips/{id}',
  'GET /trips',
  'GET /bookings/nearby',
  'GET /trips/nearby',
  'GET /trips/{id}/track',
  'POST /trips/{id}/locations',
  'POST /trips/{id}/shares',
  'DELETE /trips/{id}/shares/{token}',
  'GET /admin/events',
  'POST /webhooks/twilio/messages',
  'POST /webhooks/whatsapp',
  'GET /webhooks/whatsapp',
  'POST /sos',
  'GET /sos/{id}',
  'POST /sos/{id}/cancel',
  'POST /sos/{id}/locations',
  'GET /admin/sos',
  'GET /admin/sos/{id}',
  'POST /admin/sos/{id}/acknowledge',
  'POST /admin/sos/{id}/respond',
  'POST /admin/sos/{id}/resolve',
];

/** Rules of Redocly's recommended set that do not hold here, each with its reason. */
const lintExceptions = {
  // The code is nobody's but its owner's, and the API is no product to license
  'info-license': 'off',
} as const;

/** What Redocly finds wrong with a document, a line each. */
async function lint(document: unknown): Promise<string[]> {
  const problems = await lintDocument({
    document: makeDocumentFromString(JSON.stringify(document), 'openapi.json'),
    config: await createConfig({ extends: ['recommended'], rules: lintExceptions }),
    externalRefResolver: new BaseResolver(),
  });
  return problems.map(({ ruleId, message, location }) => `${ruleId}: ${message} at ${location[0]?.pointer}`);
}

interface Route {
  /** `GET /trips/{id}` */
  name: string;
  path: string;
  operation: Operation;
}

const routesOf = (document: OpenApi): Route[] =>
  Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({
      name: `${method.toUpperCase()} ${path}`,
      path,
      operation,
    })),
  );

/** Every value of a JSON document that stands under this key. */
function valuesOf(key: string, node: unknown): unknown[] {
  if (typeof node !== 'object' || node === null) return [];
  return Object.entries(node).flatMap(([name, value]) => [
    ...(name === key ? [value] : []),
    ...valuesOf(key, value),
  ]);
}

const resolve = (document: OpenApi, ref: string): unknown =>
  ref
    .replace('#/', '')
    .split('/')
    .reduce<unknown>((node, key) => Reflect.get(Object(node), key), document);

/** The schema as one that checks; throws where it is not draft 2020-12. */
function compile(document: OpenApi, schema: Schema): z.ZodType {
  const whole = JSON.stringify({ ...schema, $defs: document.components.schemas });
  return z.fromJSONSchema(JSON.parse(whole.replaceAll('#/components/schemas/', '#/$defs/')), {
    defaultTarget: 'draft-2020-12',
  });
}

describe('the description of the API', () => {
  let system: System;
  let document: OpenApi;
  let routes: Route[];
  beforeAll(async () => {
    system = await startSystem();
    const { status, headers, body } = await request(system, 'GET', '/api/v1/openapi.json');
    expect(status).toBe(200);
    expect(headers.get('content-type')).toBe('application/json; charset=utf-8');
    document = body;
    routes = routesOf(document);
  });
  afterAll(() => system.stop());

  const operation = (name: string): Operation => routes.find((route) => route.name === name)!.operation;
  const answerSchema = (name: string, status: string): z.ZodType =>
    compile(document, operation(name).responses[status]!.content!['application/json']!.schema);

  test('has exactly the routes of all services, each with its contract', () => {
    const registered = system.broker.registry
      .getActionList({ skipInternal: true })
      .flatMap(({ name, action }) => (action?.rest ? [{ name, rest: action.rest }] : []));
    const expected = registered.map(
      ({ rest }) => `${rest.method} ${rest.path.replace(/:(\w+)/g, (_, key: string) => `{${key}}`)}`,
    );
    expect(routes.map(({ name }) => name).toSorted()).toEqual(expected.toSorted());
    expect(routes.map(({ operation: o }) => o.operationId).toSorted()).toEqual(
      registered.map(({ name }) => name).toSorted(),
    );
    for (const { name } of registered)
      expect([name, actionContract(name)?.summary]).toEqual([name, expect.any(String)]);
  });

  test('still has what is promised to clients', () => {
    expect(routes.map(({ name }) => name)).toEqual(expect.arrayContaining(promised));
  });

  test('is OpenAPI 3.1: references resolve, paths and parameters agree, each operation has its answers', () => {
    expect(document.openapi).toMatch(/^3\.1\.\d$/);
    expect(document.info).toMatchObject({ title: expect.any(String), version: expect.any(String) });
    const refs = valuesOf('$ref', document) as string[];
    expect(refs).toContain('#/components/schemas/Trip');
    for (const ref of refs) expect([ref, resolve(document, ref)]).toEqual([ref, expect.any(Object)]);
    expect(new Set(routes.map(({ operation: o }) => o.operationId)).size).toBe(routes.length);
    for (const { name, path, operation: o } of routes) {
      const parameters = o.parameters ?? [];
      const inPath = parameters.filter((p) => p.in === 'path').map((p) => p.name);
      expect([name, inPath]).toEqual([name, [...path.matchAll(/\{(\w+)\}/g)].map(([, key]) => key)]);
      expect(parameters.every((p) => p.in !== 'path' || p.required)).toBe(true);
      if (name.startsWith('GET')) expect(o.requestBody).toBeUndefined();
      const statuses = Object.keys(o.responses);
      expect([name, statuses]).toEqual([name, expect.arrayContaining(['default'])]);
      expect([name, statuses.some((status) => /^20[0124]$/.test(status))]).toEqual([name, true]);
      for (const response of Object.values(o.responses))
        expect(response.description).toEqual(expect.any(String));
      expect(document.tags.map((tag) => tag.name)).toContain(o.tags[0]);
      expect(o.summary).not.toBe('');
    }
  });

  test('is found faultless by Redocly, with its recommended rules', async () => {
    expect(await lint(document)).toEqual([]);
    // and it would find some
    const broken = structuredClone(document);
    delete broken.paths['/trips/{id}']?.get?.parameters;
    broken.tags.push({ name: 'nobody' });
    const found = (await lint(broken)).join('\n');
    expect(found).toMatch(/path-parameters-defined/);
    expect(found).toMatch(/tag-description/);
  });

  test('has schemas that compile as JSON Schema, draft 2020-12', () => {
    const schemas = valuesOf('schema', document.paths) as Schema[];
    expect(schemas.length).toBeGreaterThan(routes.length);
    for (const schema of [...schemas, ...Object.values(document.components.schemas)])
      expect(() => compile(document, schema)).not.toThrow();
    expect(JSON.stringify(document)).not.toMatch(/"\$schema"|"\$defs"|__schema/);
  });

  test('says where parameters go, and who may call', () => {
    const nearby = operation('GET /trips/nearby');
    expect(nearby.parameters?.map((p) => [p.name, p.in, p.required])).toEqual([
      ['lat', 'query', true],
      ['lng', 'query', true],
      ['radiusM', 'query', false],
      ['limit', 'query', false],
    ]);
    expect(nearby.security).toContainEqual({ bearer: ['driver'] });
    expect(nearby.security).not.toContainEqual({ bearer: ['rider'] });
    const backlog = operation('POST /trips/{id}/locations');
    expect(backlog.parameters?.map((p) => p.name)).toEqual(['id']);
    const body = backlog.requestBody!.content['application/json']!.schema;
    expect([Object.keys(body.properties!), body.required]).toEqual([['updates'], ['updates']]);
    expect(operation('POST /auth/otp').security).toEqual([]);
    expect(operation('GET /me').security).toEqual([{ bearer: [] }]);
  });

  test('says of an SOS that a bare request is enough, and that little refuses it', () => {
    const sos = operation('POST /sos');
    expect(sos.parameters?.map((p) => [p.name, p.in, p.required])).toEqual([
      ['Idempotency-Key', 'header', false],
    ]);
    expect(sos.requestBody?.required).toBe(false);
    expect(sos.requestBody?.content['application/json']?.schema.required).toBeUndefined();
    const refusals = ['401', '413', '503'].map((status) => sos.responses[status]?.description);
    expect(refusals).toEqual(['UNAUTHENTICATED', 'PAYLOAD_TOO_LARGE', 'UNAVAILABLE']);
    expect(Object.keys(sos.responses)).toEqual(['202', '401', '413', '503', 'default']);
    // An ended session may tell where it is, and no more
    expect(operation('GET /sos/{id}').responses['404']?.description).toBe('SOS_NOT_FOUND');
    for (const path of ['/sos/{id}', '/sos/{id}/cancel', '/sos/{id}/locations'])
      expect(JSON.stringify(document.paths[path])).not.toContain('SESSION_STORE_UNAVAILABLE');
  });

  test('names the success as the door answers it, and the refusals to expect', () => {
    const successes = (name: string) =>
      Object.keys(operation(name).responses).filter((status) => status.startsWith('2'));
    expect(successes('POST /auth/otp')).toEqual(['202']);
    expect(successes('POST /auth/logout')).toEqual(['204']);
    expect(successes('POST /bookings')).toEqual(['201']);
    expect(successes('GET /me')).toEqual(['200']);
    const { responses } = operation('POST /trips/{id}/start');
    expect(responses['409']?.description).toBe('TRIP_WRONG_STATE');
    expect(responses['403']?.description).toBe('TRIP_FORBIDDEN');
    const [error] = valuesOf('error', document.components.schemas) as Schema[];
    expect(error?.properties?.code?.enum).toEqual(Object.keys(errorCatalogue));
  });

  test('is true of real answers', async () => {
    const [rider, driver] = await Promise.all([signIn(system), signInDriver(system)]);
    const [me, nearby, booked, refused] = await Promise.all([
      request(system, 'GET', '/api/v1/me', { token: driver.token }),
      request(system, 'GET', '/api/v1/trips/nearby?lat=12.9&lng=77.6', { token: driver.token }),
      request(system, 'POST', '/api/v1/bookings', {
        token: rider.token,
        body: { from: aracaju, to: aracaju, departAt: new Date().toISOString() },
      }),
      request(system, 'POST', '/api/v1/trips/trp_none/start', { token: driver.token }),
    ]);
    expect([me.status, nearby.status, booked.status, refused.status]).toEqual([200, 200, 201, 404]);
    expect(() => answerSchema('GET /me', '200').parse(me.body)).not.toThrow();
    expect(() => answerSchema('GET /trips/nearby', '200').parse(nearby.body)).not.toThrow();
    expect(() => answerSchema('POST /bookings', '201').parse(booked.body)).not.toThrow();
    expect(() => answerSchema('POST /trips/{id}/start', '404').parse(refused.body)).not.toThrow();
    // and would notice
    expect(answerSchema('GET /me', '200').safeParse({ ...me.body, createdAt: 1 }).success).toBe(false);
    expect(answerSchema('POST /trips/{id}/start', '404').safeParse(me.body).success).toBe(false);
  });

  test('is a page for people that names each route and runs no script', async () => {
    const answer = await fetch(`${system.apiUrl}/docs`);
    expect(answer.headers.get('content-type')).toBe('text/html; charset=utf-8');
    expect(answer.headers.get('content-security-policy')).toMatch(/style-src [^;]*'unsafe-inline'/);
    const html = await answer.text();
    expect(html).not.toMatch(/<script|\son\w+=|https?:|<link|@import|undefined|\[object/i);
    const text = html.replace(/<[^>]+>/g, '');
    for (const { name } of routes) expect(text).toContain(name);
    const targets = [...html.matchAll(/href="#([^"]+)"/g)].map(([, id]) => id);
    const ids = [...html.matchAll(/\sid="([^"]+)"/g)].map(([, id]) => id);
    expect(ids).toEqual(expect.arrayContaining(targets));
    expect(new Set(ids).size).toBe(ids.length);
  });

  test('is read without a login, as often as one likes', async () => {
    const answers = await Promise.all(
      Array.from({ length: 150 }, () => request(system, 'GET', '/api/v1/openapi.json')),
    );
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200]));
  });
});

describe('the document of given actions', () => {
  const rest: RestRoute = { method: 'PUT', path: '/things/:id' };
  const part = z.object({ size: z.number().default(1) }).meta({ id: 'TestPart' });
  interface Tree {
    children: Tree[];
  }
  const tree: z.ZodType<Tree> = z.object({ children: z.lazy(() => z.array(tree)) });
  const things = {
    change: { params: z.object({ id: z.string(), part }), result: z.object({ part }).nullable() },
    tree: { params: z.object({}), result: tree },
  };
  const document = openApi(
    [
      { name: 'things.change', rest, permissions: ['rider'] },
      { name: 'things.tree', rest: { method: 'GET', path: '/tree', unlimited: true }, permissions: 'public' },
      { name: 'things.unknown', rest: { method: 'GET', path: '/unknown' }, permissions: 'user' },
      { name: 'things.within', permissions: 'internal' },
    ],
    { things: { actions: things } },
  );

  test('leaves out what has no contract or no route', () => {
    expect(Object.keys(document.paths)).toEqual(['/things/{id}', '/tree']);
    expect(openApi([], contracts).paths).toEqual({});
  });

  test('keeps input and output of one name apart where they differ', () => {
    const { schemas } = document.components;
    expect(schemas['TestPart']?.required).toEqual(['size']);
    expect(schemas['TestPartInput']?.required).toBeUndefined();
    const { requestBody, responses } = document.paths['/things/{id}']!.put!;
    expect(requestBody?.content['application/json']?.schema.properties?.part).toEqual({
      $ref: '#/components/schemas/TestPartInput',
    });
    expect(Object.keys(responses)).toEqual(expect.arrayContaining(['200', '204', '403', '429']));
  });

  test('follows schemas that hold themselves', () => {
    expect(valuesOf('$ref', document.components)).toContain('#/components/schemas/things.tree.result');
    for (const ref of valuesOf('$ref', document) as string[])
      expect([ref, resolve(document, ref)]).toEqual([ref, expect.any(Object)]);
  });

  test('promises no rate limit and no login where there is none', () => {
    expect(Object.keys(document.paths['/tree']!.get!.responses)).toEqual(['200', '503', 'default']);
  });
});
