import type { ServerResponse } from 'node:http';
import { createServer } from 'node:http';
import { text } from 'node:stream/consumers';
import { ProviderError } from '../../lib/providers/provider-error.ts';

/** What a call to a provider fails with; throws when it does not, or with something else. */
export async function failureOf(calling: Promise<unknown>): Promise<ProviderError> {
  const error = await calling.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (!(error instanceof ProviderError)) throw new Error('expected a ProviderError', { cause: error });
  return error;
}

/** A request that a test's own server got. */
export interface GotRequest {
  url: string;
  headers: Record<string, string>;
  body: string;
}

/** A server that answers each request by a function; `await using` closes it. */
export async function answeringServer(
  answer: (response: ServerResponse, request: GotRequest) => unknown,
): Promise<AsyncDisposable & { url: string }> {
  const server = createServer((request, response) => {
    const headers = Object.entries(request.headers).map(([name, value]) => [name, String(value)] as const);
    text(request).then(
      (body) => answer(response, { url: request.url ?? '', headers: Object.fromEntries(headers), body }),
      // Who gives up in the middle of a request gets no answer
      () => undefined,
    );
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('no port');
  return {
    url: `http://127.0.0.1:${address.port}`,
    [Symbol.asyncDispose]: () =>
      new Promise<void>((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}
