import { createHash } from 'node:crypto';
import { currentOf, type Secret } from '../secret.ts';
import { withDeadline } from './deadline.ts';
import { createGoogleTokens } from './google-token.ts';
import { createHttpClient, isPermanentStatus, parseJson, retryAfterMsOf, trimSlashes } from './http.ts';
import type { MessageProvider, PushMessage } from './provider.ts';
import { ProviderError } from './provider-error.ts';
import type { ServiceAccount } from './service-account.ts';

/** `baseUrl` replaces `https://fcm.googleapis.com` and the origin of the token's address, for a simulator or an egress proxy. */
export interface FcmOptions {
  account: Secret<ServiceAccount> | ServiceAccount;
  baseUrl?: string;
}

const PROVIDER = 'fcm';
const BASE_URL = 'https://fcm.googleapis.com';

/** What APNs takes as a collapse id, in bytes. */
const MAX_COLLAPSE_ID = 64;

/**
 * A push adapter for Firebase Cloud Messaging (HTTP v1), to Android and through APNs to iOS. A message to an installation that
 * is gone fails with the code `UNREGISTERED`: its token will never be good again. firebase-admin is left out: it brings
 * clients for databases and storage, and takes neither another address nor a deadline for a call.
 *
 * Sources: https://firebase.google.com/docs/reference/fcm/rest/v1/projects.messages,
 * https://firebase.google.com/docs/reference/fcm/rest/v1/ErrorCode and
 * https://developer.apple.com/documentation/usernotifications/sending-notification-requests-to-apns (headers)
 */
export function createFcm(options: FcmOptions): MessageProvider<PushMessage> {
  const client = createHttpClient();
  const baseUrl = options.baseUrl === undefined ? undefined : trimSlashes(options.baseUrl);
  const tokens = createGoogleTokens(PROVIDER, client, baseUrl);
  return {
    name: PROVIDER,
    channel: 'push',
    send: (message, callOptions) =>
      withDeadline(PROVIDER, callOptions, async (signal) => {
        const account = currentOf(options.account);
        const token = await tokens.current(account, signal);
        const { status, headers, text } = await client(
          {
            method: 'POST',
            url: `${baseUrl ?? BASE_URL}/v1/projects/${account.project_id}/messages:send`,
            headers: { Authorization: `Bearer ${token}`, 'Content-Type': 'application/json' },
            body: JSON.stringify({ message: bodyOf(message, Date.now()) }),
          },
          signal,
        );
        const { name, error } = (parseJson(text) ?? {}) as Answer;
        if (status === 200 && typeof name === 'string') return { providerMessageId: name };
        const code = codeOf(error) ?? (status === 200 ? 'NO_ID' : `HTTP_${status}`);
        // A token can be revoked before its end: the next attempt asks for another
        const stale = status === 401 && code === 'UNAUTHENTICATED';
        if (stale) tokens.refused(token);
        throw new ProviderError({
          provider: PROVIDER,
          code,
          permanent: isPermanentStatus(status) && !stale,
          status,
          retryAfterMs: retryAfterMsOf(headers),
        });
      }),
  };
}

function bodyOf({ token, title, body, data, priority, ttlMs, collapseKey }: PushMessage, now: number) {
  const high = priority === 'high';
  return {
    token,
    notification: { title, body },
    data,
    android: {
      priority: high ? 'HIGH' : 'NORMAL',
      ttl: `${ttlMs / 1000}s`,
      ...(collapseKey === undefined ? {} : { collapse_key: collapseKey }),
    },
    apns: {
      headers: {
        'apns-push-type': 'alert',
        'apns-priority': high ? '10' : '5',
        'apns-expiration': String(Math.floor((now + ttlMs) / 1000)),
        ...(collapseKey === undefined ? {} : { 'apns-collapse-id': collapseIdOf(collapseKey) }),
      },
      payload: { aps: { sound: 'default' } },
    },
  };
}

function collapseIdOf(key: string): string {
  return Buffer.byteLength(key) <= MAX_COLLAPSE_ID ? key : createHash('sha256').update(key).digest('hex');
}

interface Answer {
  name?: unknown;
  error?: { status?: unknown; details?: { errorCode?: unknown }[] };
}

/** FCM's own code lies in the details; the status beside it is Google's general one. */
function codeOf(error: Answer['error']): string | undefined {
  const details = Array.isArray(error?.details) ? error.details : [];
  const code = details.find(({ errorCode }) => typeof errorCode === 'string')?.errorCode ?? error?.status;
  return typeof code === 'string' ? code : undefined;
}
