import { sign } from 'node:crypto';
import { withDeadline } from './deadline.ts';
import type { HttpClient } from './http.ts';
import { isPermanentStatus, parseJson, retryAfterMsOf } from './http.ts';
import { ProviderError } from './provider-error.ts';
import type { ServiceAccount } from './service-account.ts';

/** Access tokens of a service account. */
export interface GoogleTokens {
  /** A token that is good for a while; asks Google at most once at a time. Rejects with a ProviderError, or with the signal's reason. */
  current(account: ServiceAccount, signal: AbortSignal): Promise<string>;
  /** Forgets a token that was refused. */
  refused(token: string): void;
}

const SCOPE = 'https://www.googleapis.com/auth/firebase.messaging';
const GRANT = 'urn:ietf:params:oauth:grant-type:jwt-bearer';

/** The most that Google takes. */
const ASSERTION_S = 3600;

/** A token this near to its end is not used any more. */
const MARGIN_MS = 60_000;

/** Many messages wait for one token, so that no single message's deadline ends the asking. */
const ASK_TIMEOUT_MS = 10_000;

/**
 * Exchanges an assertion that the account's key signs for an access token, and keeps it until shortly before its end. By hand,
 * since google-auth-library asks a fixed address (no simulator, no egress proxy), brings some 20 packages for these lines,
 * and its errors carry the assertion.
 *
 * Sources: https://developers.google.com/identity/protocols/oauth2/service-account (HTTP/REST) and RFC 7523
 */
export function createGoogleTokens(provider: string, client: HttpClient, baseUrl?: string): GoogleTokens {
  let held: { account: ServiceAccount; token: string; endsAt: number } | undefined;
  let asking: { account: ServiceAccount; token: Promise<string> } | undefined;

  async function ask(account: ServiceAccount): Promise<string> {
    const body = new URLSearchParams({ grant_type: GRANT, assertion: assertionOf(account, Date.now()) });
    const { status, headers, text } = await withDeadline(provider, { timeoutMs: ASK_TIMEOUT_MS }, (signal) =>
      client(
        {
          method: 'POST',
          url: baseUrl === undefined ? account.token_uri : baseUrl + new URL(account.token_uri).pathname,
          headers: { 'Content-Type': 'application/x-www-form-urlencoded' },
          body: body.toString(),
        },
        signal,
      ),
    );
    const { access_token, expires_in, error } = (parseJson(text) ?? {}) as Record<string, unknown>;
    if (status === 200 && typeof access_token === 'string' && typeof expires_in === 'number') {
      held = { account, token: access_token, endsAt: Date.now() + expires_in * 1000 - MARGIN_MS };
      return access_token;
    }
    throw new ProviderError({
      provider,
      code: typeof error === 'string' ? error : status === 200 ? 'NO_TOKEN' : `HTTP_${status}`,
      permanent: isPermanentStatus(status),
      status,
      retryAfterMs: retryAfterMsOf(headers),
    });
  }

  return {
    current(account, signal) {
      if (held && held.account === account && held.endsAt > Date.now()) return Promise.resolve(held.token);
      if (asking?.account !== account) {
        const mine = {
          account,
          token: ask(account).finally(() => {
            if (asking === mine) asking = undefined;
          }),
        };
        asking = mine;
      }
      return unlessAborted(asking.token, signal);
    },
    refused(token) {
      if (held?.token === token) held = undefined;
    },
  };
}

/** A JWT (RS256) by which the account asks for the scope. */
export function assertionOf(account: ServiceAccount, now: number): string {
  const iat = Math.floor(now / 1000);
  const signed = [
    { alg: 'RS256', typ: 'JWT' },
    {
      iss: account.client_email,
      scope: SCOPE,
      aud: account.token_uri,
      iat,
      exp: iat + ASSERTION_S,
    },
  ]
    .map((part) => Buffer.from(JSON.stringify(part)).toString('base64url'))
    .join('.');
  return `${signed}.${sign('sha256', Buffer.from(signed), account.private_key).toString('base64url')}`;
}

/** What the promise comes to, or the signal's reason if that is first. */
function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    const onAbort = () => reject(new Error('aborted'));
    if (signal.aborted) onAbort();
    else signal.addEventListener('abort', onAbort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort));
  });
}
