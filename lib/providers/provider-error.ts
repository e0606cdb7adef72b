/**
 * Why a provider did not take a message, a call or an incident, in terms that a retry policy needs. Neither that nor a cause
 * is ever attached: clients' own errors carry the request, and with it the phone number and the text.
 */
export class ProviderError extends Error {
  /** The adapter that failed: `twilio`. */
  readonly provider: string;
  /** The provider's own code (`21211`), else `HTTP_502`, `TIMEOUT` or the system's (`ECONNRESET`). */
  readonly code: string;
  /** True when the same request would fail again; false when a retry may help. */
  readonly permanent: boolean;
  /** HTTP status of the answer, where there was one. */
  readonly status?: number;
  /** How long to leave the provider alone, where it said so. */
  readonly retryAfterMs?: number;

  constructor(failure: {
    provider: string;
    code: string;
    permanent: boolean;
    status?: number | undefined;
    retryAfterMs?: number | undefined;
  }) {
    const { provider, code, permanent, status, retryAfterMs } = failure;
    const http = status === undefined ? '' : `, HTTP ${status}`;
    super(`${provider} did not take the request: ${code}${http} (${permanent ? 'permanent' : 'transient'})`);
    this.name = 'ProviderError';
    this.provider = provider;
    this.code = code;
    this.permanent = permanent;
    if (status !== undefined) this.status = status;
    if (retryAfterMs !== undefined) this.retryAfterMs = retryAfterMs;
  }
}
