/**
 * The client's address. Behind `proxies` proxies of ours it is that many entries from the right of
 * X-Forwarded-For: what stands further left, the client wrote itself.
 */
export function clientIp(
  remote: string | undefined,
  forwardedFor: string | string[] | undefined,
  proxies: number,
): string {
  const hops = [forwardedFor ?? []]
    .flat()
    .join(',')
    .split(',')
    .map((hop) => hop.trim())
    .filter(Boolean);
  return (proxies > 0 && hops.at(-proxies)) || remote || 'unknown';
}
