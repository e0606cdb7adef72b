import { createHmac, timingSafeEqual } from 'node:crypto';
import { Secret } from './secret.ts';

/** Who holds a token, as far as the token itself tells. */
export interface TokenIdentity {
  userId: string;
  sessionId: string;
}

/** Secrets of which the first signs and all verify; or one alone. */
type SigningSecrets = Secret<readonly string[]> | string;

const all = (secrets: SigningSecrets): readonly string[] =>
  secrets instanceof Secret ? secrets.current() : [secrets];

const sign = (secret: string, payload: string) =>
  createHmac('sha256', secret).update(payload).digest('base64url');

/**
 * `v1.<user id>.<session id>.<HMAC-SHA-256, base64url>`: says who presses SOS with nothing else alive; whether
 * the session is still good is for Redis to say.
 */
export function issueToken(secrets: SigningSecrets, { userId, sessionId }: TokenIdentity): string {
  const [secret] = all(secrets);
  if (!secret) throw new Error('There is no secret to sign with');
  const payload = `v1.${userId}.${sessionId}`;
  return `${payload}.${sign(secret, payload)}`;
}

/** The identity in a token of ours, or null for anything else. */
export function readToken(secrets: SigningSecrets, token: string): TokenIdentity | null {
  if (token.length > 512) return null;
  const [version, userId, sessionId, signature, ...rest] = token.split('.');
  if (version !== 'v1' || !userId || !sessionId || !signature || rest.length > 0) return null;
  const given = Buffer.from(signature);
  const isOurs = all(secrets).some((secret) => {
    const expected = Buffer.from(sign(secret, `v1.${userId}.${sessionId}`));
    return given.length === expected.length && timingSafeEqual(given, expected);
  });
  return isOurs ? { userId, sessionId } : null;
}
