import { errorCode } from '../error-code.ts';
import { ProviderError } from './provider-error.ts';

/**
 * How long a call to a provider may take. `timeoutMs` bounds all of it: waiting for a connection, the request and the
 * answer. `signal` ends it earlier.
 */
export interface CallOptions {
  timeoutMs: number;
  signal?: AbortSignal;
}

/**
 * Makes one call to a provider. `call` gets a signal that is aborted at the deadline, and may throw ProviderErrors of its
 * own; whatever else it throws becomes a transient one with the code `TIMEOUT`, `ABORTED`, the system's, or `UNKNOWN`.
 */
export async function withDeadline<T>(
  provider: string,
  { timeoutMs, signal }: CallOptions,
  call: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const deadline = new AbortController();
  let ended: 'TIMEOUT' | 'ABORTED' | undefined;
  const end = (how: 'TIMEOUT' | 'ABORTED') => {
    ended ??= how;
    deadline.abort();
  };
  const onAbort = () => end('ABORTED');
  const timer = setTimeout(() => end('TIMEOUT'), timeoutMs);
  if (signal?.aborted) onAbort();
  else signal?.addEventListener('abort', onAbort, { once: true });
  try {
    return await call(deadline.signal);
  } catch (error) {
    if (error instanceof ProviderError) throw error;
    throw new ProviderError({ provider, code: ended ?? systemCode(error) ?? 'UNKNOWN', permanent: false });
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener('abort', onAbort);
  }
}

/** fetch hides the system's error as the cause of its own. */
function systemCode(error: unknown): string | undefined {
  const cause = typeof error === 'object' && error !== null && 'cause' in error ? error.cause : undefined;
  return errorCode(cause) ?? errorCode(error);
}
