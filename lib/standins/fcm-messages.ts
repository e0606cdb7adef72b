/**
 * What Google answers to `POST /token` (an access token for a service account) and to
 * `POST /v1/projects/{project}/messages:send` (Firebase Cloud Messaging, HTTP v1). FCM tells nobody what became of a message.
 *
 * Sources of the formats:
 * - assertion and token: https://developers.google.com/identity/protocols/oauth2/service-account (HTTP/REST), RFC 7523
 * - message and answer: https://firebase.google.com/docs/reference/fcm/rest/v1/projects.messages
 * - errors: https://firebase.google.com/docs/reference/fcm/rest/v1/ErrorCode and
 *   https://firebase.google.com/docs/cloud-messaging/error-codes
 *
 * A token that begins with `unregistered` is of an app that was removed.
 */
import { createPublicKey, type KeyObject, randomBytes, randomUUID, verify } from 'node:crypto';
import { z } from 'zod';
import type { ServiceAccount } from '../providers/service-account.ts';
import type { Protocol, ProviderReply, ProviderRequest } from './protocol.ts';
import { Recent } from './recent.ts';

const TOKEN_PATH = '/token';
const SEND_PATH = /^\/v1\/projects\/([^/]+)\/messages:send$/;
const GRANT = 'urn:ietf:params:oauth:grant-type:jwt-bearer';
const SCOPES = new Set([
  'https://www.googleapis.com/auth/firebase.messaging',
  'https://www.googleapis.com/auth/cloud-platform',
]);
const TOKEN_TTL_S = 3599;
const MAX_ASSERTION_S = 3600;
const CLOCK_SKEW_S = 60;
const MAX_PAYLOAD_BYTES = 4096;

/** Status, Google's general status and a text for FCM's codes. */
const ERRORS: Record<string, { status: number; general: string; message: string }> = {
  INVALID_ARGUMENT: {
    status: 400,
    general: 'INVALID_ARGUMENT',
    message: 'The registration token is not a valid FCM registration token',
  },
  UNREGISTERED: { status: 404, general: 'NOT_FOUND', message: 'Requested entity was not found.' },
  SENDER_ID_MISMATCH: { status: 403, general: 'PERMISSION_DENIED', message: 'SenderId mismatch' },
  QUOTA_EXCEEDED: { status: 429, general: 'RESOURCE_EXHAUSTED', message: 'Quota exceeded.' },
  UNAVAILABLE: { status: 503, general: 'UNAVAILABLE', message: 'The service is currently unavailable.' },
  INTERNAL: { status: 500, general: 'INTERNAL', message: 'Internal error encountered.' },
  THIRD_PARTY_AUTH_ERROR: {
    status: 401,
    general: 'UNAUTHENTICATED',
    message: 'Auth error from APNS or Web Push Service',
  },
};

const claims = z.object({
  iss: z.string(),
  scope: z.string(),
  aud: z.string(),
  iat: z.number(),
  exp: z.number(),
});

const data = z
  .record(z.string(), z.string())
  .refine((fields) => !Object.keys(fields).some((name) => /^(from|message_type|google.*|gcm.*)$/.test(name)));
const text = z.object({ title: z.string().optional(), body: z.string().optional() });
const message = z.strictObject({
  token: z.string().min(1),
  notification: text.optional(),
  data: data.optional(),
  android: z
    .strictObject({
      priority: z.enum(['NORMAL', 'HIGH', 'normal', 'high']).optional(),
      ttl: z
        .string()
        .regex(/^\d+(\.\d{1,9})?s$/)
        .optional(),
      collapse_key: z.string().optional(),
    })
    .optional(),
  apns: z
    .strictObject({
      headers: z
        .object({
          'apns-priority': z.enum(['1', '5', '10']).optional(),
          'apns-expiration': z.string().regex(/^\d+$/).optional(),
          'apns-collapse-id': z
            .string()
            .refine((id) => Buffer.byteLength(id) <= 64)
            .optional(),
        })
        .catchall(z.string())
        .optional(),
      payload: z.record(z.string(), z.unknown()).optional(),
    })
    .optional(),
});
const sendRequest = z.strictObject({ message, validate_only: z.boolean().optional() });

/** FCM for one service account, and the tokens that it was given; the newest `maxTokens` hold. */
export function fcmMessages(account: ServiceAccount, maxTokens = 1000): Protocol {
  const publicKey = createPublicKey(account.private_key);
  const tokens = new Recent<{ token: string; endsAt: number }>(maxTokens, ({ token }) => token);

  function grant({ method, headers, body, now }: ProviderRequest): ProviderReply {
    if (method !== 'POST' || !headers['content-type']?.startsWith('application/x-www-form-urlencoded'))
      return oauthError('invalid_request', 'Bad Request');
    const form = new URLSearchParams(body);
    if (form.get('grant_type') !== GRANT)
      return oauthError('unsupported_grant_type', `Invalid grant_type: ${form.get('grant_type')}`);
    const problem = whyNoGrant(form.get('assertion') ?? '', account, publicKey, now);
    if (problem) return problem;
    const token = `ya29.c.${randomBytes(48).toString('base64url')}`;
    tokens.add({ token, endsAt: now.getTime() + TOKEN_TTL_S * 1000 });
    return {
      status: 200,
      body: { access_token: token, expires_in: TOKEN_TTL_S, token_type: 'Bearer' },
    };
  }

  return {
    name: 'fcm',
    serves: (path) => path === TOKEN_PATH || SEND_PATH.test(path),
    answer(request, rejectWith) {
      if (request.path === TOKEN_PATH) return grant(request);
      const { method, path, headers, body, now } = request;
      const [, token = ''] = /^Bearer (.+)$/.exec(headers.authorization ?? '') ?? [];
      const known = tokens.newest(token);
      if (!token || !known || known.endsAt < now.getTime())
        return general(401, 'UNAUTHENTICATED', 'Request had invalid authentication credentials.');
      if (method !== 'POST' || SEND_PATH.exec(path)?.[1] !== account.project_id)
        return general(403, 'PERMISSION_DENIED', 'Permission denied on resource project.');
      const sent = readMessage(body);
      if ('status' in sent) return sent;
      if (sent.token.startsWith('unregistered')) return fcmError('UNREGISTERED');
      if (!/^[\w:-]{8,}$/.test(sent.token)) return fcmError('INVALID_ARGUMENT');
      if (rejectWith !== undefined) return fcmError(String(rejectWith));
      const id = `projects/${account.project_id}/messages/${randomUUID()}`;
      const { title = '', body: shown = '' } = sent.notification ?? {};
      return {
        status: 200,
        body: { name: id },
        taken: [{ id, channel: 'push', to: sent.token, template: null, subject: title, text: shown }],
      };
    },
    unreadable: () => general(400, 'INVALID_ARGUMENT', 'Request payload size exceeds the limit.'),
    tooMany: () => fcmError('QUOTA_EXCEEDED'),
    broken: () => fcmError('INTERNAL'),
  };
}

/** What Google finds wrong with an assertion; undefined when nothing is. */
function whyNoGrant(
  assertion: string,
  { client_email, token_uri }: ServiceAccount,
  publicKey: KeyObject,
  now: Date,
): ProviderReply | undefined {
  const [header = '', payload = '', signature = ''] = assertion.split('.');
  const { data: stated } = claims.safeParse(readPart(payload));
  if (!isRs256(readPart(header)) || !stated) return oauthError('invalid_grant', 'Invalid JWT');
  if (stated.iss !== client_email) return oauthError('invalid_grant', 'Invalid grant: account not found');
  if (!verifyJws(`${header}.${payload}`, signature, publicKey))
    return oauthError('invalid_grant', 'Invalid JWT Signature.');
  if (stated.aud !== token_uri) return oauthError('invalid_grant', 'Invalid JWT: Failed audience check.');
  const at = now.getTime() / 1000;
  const timely =
    stated.exp > at - CLOCK_SKEW_S &&
    stated.iat < at + CLOCK_SKEW_S &&
    stated.exp - stated.iat <= MAX_ASSERTION_S;
  if (!timely)
    return oauthError(
      'invalid_grant',
      'Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe.',
    );
  return stated.scope.split(' ').some((scope) => SCOPES.has(scope))
    ? undefined
    : oauthError('invalid_scope', 'Invalid OAuth scope or ID token audience provided.');
}

/** Whether a JWS's signature (RS256) is the key's. */
export function verifyJws(signed: string, signature: string, publicKey: KeyObject): boolean {
  return verify('sha256', Buffer.from(signed), publicKey, Buffer.from(signature, 'base64url'));
}

const isRs256 = (header: unknown) =>
  typeof header === 'object' && header !== null && 'alg' in header && header.alg === 'RS256';

function readPart(part: string): unknown {
  try {
    return JSON.parse(Buffer.from(part, 'base64url').toString('utf8'));
  } catch {
    return undefined;
  }
}

function readMessage(body: string): z.output<typeof message> | ProviderReply {
  let json: unknown;
  try {
    json = JSON.parse(body);
  } catch {
    return general(400, 'INVALID_ARGUMENT', 'Invalid JSON payload received.');
  }
  const { data: sent, error } = sendRequest.safeParse(json);
  if (!sent) {
    const field = error.issues[0]?.path.join('.') ?? 'message';
    return general(400, 'INVALID_ARGUMENT', `Invalid value at '${field}'`, [
      {
        '@type': 'type.googleapis.com/google.rpc.BadRequest',
        fieldViolations: [{ field, description: `Invalid value at '${field}'` }],
      },
    ]);
  }
  const size = Buffer.byteLength(JSON.stringify([sent.message.notification ?? {}, sent.message.data ?? {}]));
  if (size > MAX_PAYLOAD_BYTES) return general(400, 'INVALID_ARGUMENT', 'Android message is too big');
  return sent.message;
}

function fcmError(code: string): ProviderReply {
  const known = ERRORS[code] ?? { status: 400, general: code, message: `Refused with ${code}` };
  return general(known.status, known.general, known.message, [
    { '@type': 'type.googleapis.com/google.firebase.fcm.v1.FcmError', errorCode: code },
  ]);
}

function general(status: number, name: string, says: string, details?: unknown[]): ProviderReply {
  return {
    status,
    body: { error: { code: status, message: says, status: name, ...(details ? { details } : {}) } },
  };
}

function oauthError(error: string, description: string): ProviderReply {
  return { status: 400, body: { error, error_description: description } };
}
