/**
 * The string `code` of a thrown value (`ENOENT`, `ECONNRESET`), if it has one. Asks for the property and not for
 * `instanceof Error`, which is false for errors that come from another realm, as Node's own do under Jest.
 */
export function errorCode(error: unknown): string | undefined {
  if (typeof error !== 'object' || error === null || !('code' in error)) return undefined;
  return typeof error.code === 'string' ? error.code : undefined;
}
