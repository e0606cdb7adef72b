/**
 * What an address of Redis says: one server, the primary of a Sentinel group, or a Cluster.
 *
 *   redis://[user:password@]host[:port][/db]                      one server (rediss:// with TLS)
 *   /path/to/redis.sock                                           one server on a unix socket
 *   redis-sentinel://[user:password@]host[:port],…/group[/db]     the group's primary (rediss-sentinel://)
 *   redis-cluster://[user:password@]host[:port],…                 a Cluster (rediss-cluster://)
 *
 * `?replicas=N`: so many replicas must have what is acknowledged; 1 for Sentinel and Cluster, else 0.
 * `?sentinelUsername=…&sentinelPassword=…`: where the Sentinels themselves ask for it. User, password and parameters
 * are percent-encoded.
 */
export interface RedisTarget {
  topology: 'single' | 'sentinel' | 'cluster';
  /** Servers, Sentinels or some nodes of the Cluster; empty with `socketPath`. */
  nodes: { host: string; port: number }[];
  socketPath?: string;
  /** The Sentinel group's name. */
  group?: string;
  tls: boolean;
  db: number;
  username?: string;
  password?: string;
  sentinelUsername?: string;
  sentinelPassword?: string;
  replicas: number;
}

const shape =
  /^redis(?<tls>s?)(?:-(?<kind>sentinel|cluster))?:\/\/(?:(?<user>[^/?#]*)@)?(?<hosts>[^/?#@]*)(?:\/(?<path>[^?#]*))?(?:\?(?<query>[^#]*))?$/;
const hostShape = /^(?<host>[\w.-]+|\[[\da-f:.]+\])(?::(?<port>\d{1,5}))?$/i;

/** Thrown inside for what is wrong; never holds a part of the address, which may be a password. */
class Problem extends Error {}

/** The target, or what is wrong with the address in words that hold nothing of it. */
export function parseRedisUrl(url: string): { target: RedisTarget } | { problem: string } {
  try {
    return { target: targetOf(url) };
  } catch (error) {
    if (error instanceof Problem) return { problem: error.message };
    // Only decodeURIComponent throws another
    return { problem: 'user, password and parameters must be percent-encoded' };
  }
}

function targetOf(url: string): RedisTarget {
  if (url.startsWith('/'))
    return { topology: 'single', nodes: [], socketPath: url, tls: false, db: 0, replicas: 0 };
  const parts = shape.exec(url)?.groups;
  if (!parts)
    throw new Problem(
      'must be redis://, redis-sentinel:// or redis-cluster:// (rediss… with TLS) with hosts, or the absolute path of a unix socket; a password is percent-encoded',
    );
  const topology = (parts['kind'] ?? 'single') as RedisTarget['topology'];
  const nodes = (parts['hosts'] ?? '')
    .split(',')
    .map((text) => nodeOf(text, topology === 'sentinel' ? 26_379 : 6379));
  if (topology === 'single' && nodes.length > 1)
    throw new Problem('has several hosts: say redis-sentinel:// or redis-cluster://');
  const { group, db } = placeOf(topology, parts['path'] ?? '');
  return {
    topology,
    nodes,
    ...(group === undefined ? {} : { group }),
    tls: parts['tls'] === 's',
    db,
    ...credentials(parts['user']),
    ...parametersOf(topology, parts['query'] ?? ''),
  };
}

function nodeOf(text: string, defaultPort: number): { host: string; port: number } {
  const { host, port } = hostShape.exec(text)?.groups ?? {};
  if (host === undefined) throw new Problem('each host must be a name or an address, with a port or without');
  const number = port === undefined ? defaultPort : Number(port);
  if (number < 1 || number > 65_535) throw new Problem('a port must be between 1 and 65535');
  return { host: host.replace(/^\[|\]$/g, ''), port: number };
}

function placeOf(topology: RedisTarget['topology'], path: string): { group?: string; db: number } {
  const [first = '', ...rest] = path.split('/');
  const dbOf = (text: string) => {
    if (!/^\d{0,3}$/.test(text)) throw new Problem('the database must be a number');
    return Number(text);
  };
  if (topology === 'sentinel') {
    if (!/^[\w.-]+$/.test(first)) throw new Problem('needs the name of the Sentinel group: …/mymaster');
    if (rest.length > 1) throw new Problem('has more than the group and the database after the hosts');
    return { group: first, db: dbOf(rest[0] ?? '') };
  }
  if (rest.length > 0) throw new Problem('has more than the database after the hosts');
  const db = dbOf(first);
  if (topology === 'cluster' && db !== 0) throw new Problem('a Cluster has no database but 0');
  return { db };
}

function credentials(user: string | undefined): { username?: string; password?: string } {
  if (!user) return {};
  const colon = user.indexOf(':');
  if (colon < 0) throw new Problem('has a user without a password (a password alone is written :password@)');
  const username = decodeURIComponent(user.slice(0, colon));
  return { ...(username ? { username } : {}), password: decodeURIComponent(user.slice(colon + 1)) };
}

function parametersOf(topology: RedisTarget['topology'], query: string) {
  const known = ['replicas', ...(topology === 'sentinel' ? ['sentinelUsername', 'sentinelPassword'] : [])];
  const found: Partial<Record<string, string>> = {};
  for (const pair of query.split('&').filter(Boolean)) {
    const [name = '', ...value] = pair.split('=');
    if (!known.includes(name)) throw new Problem(`has a parameter other than ${known.join(', ')}`);
    found[name] = decodeURIComponent(value.join('='));
  }
  const { replicas = topology === 'single' ? '0' : '1', sentinelUsername, sentinelPassword } = found;
  if (!/^\d$/.test(replicas)) throw new Problem('replicas must be a number from 0 to 9');
  return {
    replicas: Number(replicas),
    ...(sentinelUsername ? { sentinelUsername } : {}),
    ...(sentinelPassword ? { sentinelPassword } : {}),
  };
}
