import type { ServerResponse } from 'node:http';
import { createServer } from 'node:http';
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

/** A server that answers every request alike; `await using` closes it. */
export async function answeringServer(
  answer: (response: ServerResponse) => unknown,
): Promise<AsyncDisposable & { url: string }> {
  const server = createServer((request, response) => {
    request.resume();
    answer(response);
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
