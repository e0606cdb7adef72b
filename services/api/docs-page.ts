/** The OpenAPI document as a page for people: one HTML file without scripts or anything from elsewhere. Pure. */
import { type ErrorCode, errorCatalogue } from '../../contracts/errors.ts';
import { docsStyle } from './docs-style.ts';
import type { OpenApi, Operation, Schema } from './openapi.ts';

/** Told once, above, instead of with each operation. */
const everywhere: ReadonlySet<string> = new Set<ErrorCode>([
  'VALIDATION',
  'BAD_JSON',
  'PAYLOAD_TOO_LARGE',
  'UNAUTHENTICATED',
  'FORBIDDEN',
  'RATE_LIMITED',
  'SESSION_STORE_UNAVAILABLE',
  'UNAVAILABLE',
  'TIMEOUT',
  'INTERNAL',
]);

const escapes: Record<string, string> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
};
const escapeHtml = (text: string): string => text.replace(/[&<>"']/g, (char) => escapes[char] ?? char);
/** Text with `code` in it. */
const prose = (text: string): string => escapeHtml(text).replace(/`([^`]+)`/g, '<code>$1</code>');
const capital = (text: string): string => text.charAt(0).toUpperCase() + text.slice(1);

interface Listed {
  path: string;
  method: string;
  operation: Operation;
}

/** A schema in a few words, as HTML: `string`, `Place`, `sms | push`, `number or null`. */
function typeOf(schema: Schema): string {
  if (schema.$ref) {
    const name = escapeHtml(schema.$ref.replace('#/components/schemas/', ''));
    return `<a href="#shape-${name}">${name}</a>`;
  }
  if (schema.enum) return schema.enum.map((value) => escapeHtml(String(value))).join(' <i>|</i> ');
  if (schema.const !== undefined) return escapeHtml(JSON.stringify(schema.const));
  if (schema.anyOf) return schema.anyOf.map(typeOf).join(' <i>or</i> ');
  if (Array.isArray(schema.type)) return schema.type.map(escapeHtml).join(' <i>or</i> ');
  if (schema.prefixItems) return `[${schema.prefixItems.map(typeOf).join(', ')}]`;
  if (schema.type === 'array') {
    const items = typeOf(schema.items || {});
    return / <i>/.test(items) ? `(${items})[]` : `${items}[]`;
  }
  if (schema.format === 'date-time') return 'time';
  return escapeHtml(schema.type ?? 'any');
}

const isSafe = (bound: number | undefined): bound is number =>
  bound !== undefined && Math.abs(bound) < Number.MAX_SAFE_INTEGER;

function range(from: number | undefined, to: number | undefined, unit: string): string[] {
  const text = (bound: number) => bound.toLocaleString('en');
  if (isSafe(from) && isSafe(to))
    return [`${from === to ? text(to) : `${text(from)} to ${text(to)}`}${unit}`];
  if (isSafe(to)) return [`up to ${text(to)}${unit}`];
  return isSafe(from) ? [`from ${text(from)}${unit}`] : [];
}

/** What else is to be known of a field: limits, default, description. */
function notesOf(schema: Schema): string {
  const { minLength, maxLength, minItems, maxItems, exclusiveMinimum } = schema;
  const notes = [
    ...(schema.description ? [prose(schema.description)] : []),
    ...(exclusiveMinimum === undefined ? [] : [`above ${exclusiveMinimum}`]),
    ...range(schema.minimum, schema.maximum, ''),
    ...range(minLength === 0 ? undefined : minLength, maxLength, ' characters'),
    ...(schema.prefixItems ? [] : range(minItems, maxItems, ' items')),
    ...(schema.default === undefined || schema.default === ''
      ? []
      : [
          `default <code>${escapeHtml(typeof schema.default === 'string' ? schema.default : JSON.stringify(schema.default))}</code>`,
        ]),
  ];
  return capital(notes.join('; '));
}

function row(name: string, schema: Schema, isRequired: boolean, badge = ''): string {
  const optional = isRequired ? '' : ' <span class="optional">optional</span>';
  return `<tr><th scope="row"><code>${escapeHtml(name)}</code>${badge}${optional}</th><td class="type">${typeOf(schema)}</td><td class="notes">${notesOf(schema)}</td></tr>`;
}

/** The object with fields that a schema without a name leads to, and what to call a field in it. */
function inner(schema: Schema, name: string): { object: Schema; prefix: string } | null {
  if (schema.properties) return { object: schema, prefix: `${name}.` };
  if (schema.type === 'array' && schema.items) return inner(schema.items, `${name}[]`);
  const [only, ...others] = (schema.anyOf ?? []).filter((option) => option.type !== 'null');
  return only && others.length === 0 ? inner(only, name) : null;
}

/** A row a field; those of nested objects as `vehicle.plate`, `trips[].lat`. */
function rows({ properties = {}, required = [] }: Schema, prefix = ''): string {
  return Object.entries(properties)
    .map(([name, field]) => {
      const nested = inner(field, prefix + name);
      const below = nested ? rows(nested.object, nested.prefix) : '';
      return row(prefix + name, field, required.includes(name)) + below;
    })
    .join('');
}

const table = (body: string): string => `<div class="scroll"><table><tbody>${body}</tbody></table></div>`;

function takes({ parameters = [], requestBody }: Operation): string {
  const listed = parameters.map((p) =>
    row(
      p.name,
      p.description === undefined ? p.schema : { ...p.schema, description: p.description },
      p.required,
      ` <span class="place">${p.in}</span>`,
    ),
  );
  const body = requestBody?.content['application/json']?.schema;
  const fields = body ? (body.properties ? rows(body) : row('body', body, true)) : '';
  const all = listed.join('') + fields;
  return all === '' ? '<p class="none">Nothing.</p>' : table(all);
}

function answers({ responses }: Operation): string {
  return Object.entries(responses)
    .filter(([status]) => status.startsWith('2'))
    .map(([status, response]) => {
      const schema = response.content?.['application/json']?.schema;
      const code = `<b class="status">${status}</b>`;
      if (!schema) return `<p>${code} without a body</p>`;
      if (!schema.properties) return `<p>${code} ${typeOf(schema)}</p>`;
      return `<p>${code}</p>${table(rows(schema))}`;
    })
    .join('');
}

const codesOf = ({ responses }: Operation): string[] =>
  Object.entries(responses).flatMap(([status, { content }]) =>
    status.startsWith('2') ? [] : Object.keys(content?.['application/json']?.examples ?? {}),
  );

function refusals(operation: Operation): string {
  const own = codesOf(operation).filter((code) => !everywhere.has(code));
  if (own.length === 0) return '';
  const links = own.map((code) => `<a class="code" href="#error-${code}">${code}</a>`);
  return `<div class="refusals"><h4>Refuses with</h4> ${links.join(' ')}</div>`;
}

function whoMay({ security }: Operation): string {
  if (security.length === 0) return 'anybody';
  const roles = security.flatMap(({ bearer }) => bearer);
  return roles.length === 0 ? 'signed in' : roles.join(', ');
}

const anchor = ({ operationId }: Operation): string => `op-${escapeHtml(operationId)}`;

function article({ path, method, operation }: Listed): string {
  const shownPath = escapeHtml(path).replace(/\{\w+\}/g, '<var>$&</var>');
  return `<article id="${anchor(operation)}">
<header><h3><span class="method ${method}">${method.toUpperCase()}</span> <code>${shownPath}</code></h3><span class="who${operation.security.length === 0 ? ' open' : ''}">${escapeHtml(whoMay(operation))}</span></header>
<p>${prose(operation.summary)}</p>
<div class="columns"><section><h4>Takes</h4>${takes(operation)}</section><section><h4>Answers</h4>${answers(operation)}</section></div>
${refusals(operation)}
</article>`;
}

function errorRow(code: string, { status, message }: { status: number; message: string }): string {
  return `<tr id="error-${code}"><th scope="row"><code>${code}</code></th><td>${status}</td><td class="notes">${escapeHtml(message)}</td></tr>`;
}

/** The whole page. */
export function docsPage(document: OpenApi): string {
  const { info, servers, tags, paths, components } = document;
  const base = servers[0]?.url ?? '';
  const all: Listed[] = Object.entries(paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({ path, method, operation })),
  );
  const groups = tags.map(({ name }) => ({
    name: escapeHtml(name),
    listed: all.filter(({ operation }) => operation.tags.includes(name)),
  }));
  const contents = groups
    .map(
      ({ name, listed }) =>
        `<a class="group" href="#${name}">${capital(name)}</a>${listed
          .map(
            ({ method, path, operation }) =>
              `<a href="#${anchor(operation)}"><span class="method ${method}">${method.toUpperCase()}</span> <span>${escapeHtml(path)}</span></a>`,
          )
          .join('')}`,
    )
    .join('');
  const shapes = Object.entries(components.schemas)
    .map(
      ([name, schema]) =>
        `<article id="shape-${escapeHtml(name)}"><h3>${escapeHtml(name)}</h3>${table(rows(schema))}</article>`,
    )
    .join('');
  const common = [...everywhere].map((code) => `<a class="code" href="#error-${code}">${code}</a>`).join(' ');
  const catalogue = Object.entries(errorCatalogue).map(([code, entry]) => errorRow(code, entry));
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>${escapeHtml(info.title)}: REST API</title>
<style>${docsStyle}</style>
</head>
<body>
<nav aria-label="Contents"><a class="home" href="#top">${escapeHtml(info.title)} <small>REST API</small></a>${contents}<a class="group" href="#shapes">Shapes</a><a class="group" href="#errors">Errors</a></nav>
<main id="top">
<h1>${escapeHtml(info.title)} <small>REST API ${escapeHtml(info.version)}</small></h1>
<p class="lead">${prose(info.summary)}</p>
<p>Paths are under <code>${escapeHtml(base)}</code>. For machines: <a href="${escapeHtml(base)}/openapi.json">openapi.json</a> (OpenAPI 3.1).</p>
<p>To sign in, ask for a code with <a href="#op-accounts.requestOtp"><code>POST /auth/otp</code></a>, exchange it with <a href="#op-accounts.login"><code>POST /auth/login</code></a>, then send <code>Authorization: Bearer TOKEN</code>. Beside each path stands who may call it.</p>
<p>${prose(info.description)}</p>
<p>Any call may be refused with ${common}</p>
${groups.map(({ name, listed }) => `<h2 id="${name}">${capital(name)}</h2>${listed.map(article).join('\n')}`).join('\n')}
<h2 id="shapes">Shapes</h2>
${shapes}
<h2 id="errors">Errors</h2>
<article class="errors">${table(catalogue.join(''))}</article>
</main>
</body>
</html>
`;
}
