import { createHmac, timingSafeEqual } from 'node:crypto';

/** Who holds a token, as far as the token itself tells. */
export interface TokenIdentity {
  userId: string;
  sessionId: string;
}

const sign = (secret: string, payload: string) =>
  createHmac('sha256', secret).update(payload).digest('base64url');

/**
 * `v1.<user id>.<session id>.<HMAC-SHA-256, base64url>`: says who presses SOS with nothing else alive; whether
 * the session is still good is for Redis to say.
 */
export function issueToken(secret: string, { userId, sessionId }: TokenIdentity): string {
  const payload = `v1.${userId}.${sessionId}`;
  return `${payload}.${sign(secret, payload)}`;
}

/** The identity in a token of ours, or null for anything else. */
export function readToken(secret: string, token: string): TokenIdentity | null {
  if (token.length > 512) return null;
  const [version, userId, sessionId, signature, ...rest] = token.split('.');
  if (version !== 'v1' || !userId || !sessionId || !signature || rest.length > 0) return null;
  const expected = Buffer.from(sign(secret, `v1.${userId}.${sessionId}`));
  const given = Buffer.from(signature);
  if (given.length !== expected.length || !timingSafeEqual(given, expected)) return null;
  return { userId, sessionId };
}
