import { describe, expect, test } from '@jest/globals';
import * as fc from 'fast-check';
import { ConfigError, loadConfig } from '../../lib/config.ts';
import { parseRedisUrl, type RedisTarget } from '../../lib/redis-url.ts';

function targetOf(url: string): RedisTarget {
  const parsed = parseRedisUrl(url);
  if ('problem' in parsed) throw new Error(parsed.problem);
  return parsed.target;
}
function problemOf(url: string): string {
  const parsed = parseRedisUrl(url);
  if ('target' in parsed) throw new Error('The address was taken');
  return parsed.problem;
}

describe('parseRedisUrl', () => {
  const plain = { tls: false, db: 0 };

  test('R8 + one server: by host, with a port, a database, TLS, or on a unix socket', () => {
    const single = { ...plain, topology: 'single', replicas: 0 };
    expect(targetOf('redis://r')).toEqual({ ...single, nodes: [{ host: 'r', port: 6379 }] });
    expect(targetOf('rediss://r:6380/2')).toEqual({
      ...single,
      nodes: [{ host: 'r', port: 6380 }],
      tls: true,
      db: 2,
    });
    expect(targetOf('redis://[::1]:7000')).toMatchObject({ nodes: [{ host: '::1', port: 7000 }] });
    expect(targetOf('/data/redis.sock')).toEqual({ ...single, nodes: [], socketPath: '/data/redis.sock' });
  });

  test('R8 + a Sentinel group: its Sentinels, its name, a database', () => {
    expect(targetOf('redis-sentinel://a,b:5000/mymaster/3')).toEqual({
      ...plain,
      topology: 'sentinel',
      nodes: [
        { host: 'a', port: 26379 },
        { host: 'b', port: 5000 },
      ],
      group: 'mymaster',
      db: 3,
      replicas: 1,
    });
    expect(
      targetOf('rediss-sentinel://:p@a/g?sentinelUsername=su&sentinelPassword=s%40p&replicas=2'),
    ).toMatchObject({
      tls: true,
      password: 'p',
      sentinelUsername: 'su',
      sentinelPassword: 's@p',
      replicas: 2,
    });
  });

  test('R8 + a Cluster: some of its nodes', () => {
    expect(targetOf('redis-cluster://a:1,b:2')).toEqual({
      ...plain,
      topology: 'cluster',
      nodes: [
        { host: 'a', port: 1 },
        { host: 'b', port: 2 },
      ],
      replicas: 1,
    });
    expect(targetOf('rediss-cluster://u:p@a/0?replicas=0')).toMatchObject({
      tls: true,
      username: 'u',
      password: 'p',
      replicas: 0,
    });
  });

  test('any user and password come back as they are, percent-encoded', () => {
    fc.assert(
      fc.property(
        fc.string({ unit: 'grapheme', minLength: 1 }),
        fc.string({ minLength: 1 }),
        (user, password) => {
          const encoded = `${encodeURIComponent(user)}:${encodeURIComponent(password)}`;
          for (const rest of ['redis://HOST', 'redis-sentinel://HOST,b/g', 'redis-cluster://HOST,b'])
            expect(targetOf(rest.replace('HOST', () => `${encoded}@h`))).toMatchObject({
              username: user,
              password,
            });
        },
      ),
    );
  });

  test.each([
    ['http://r', 'must be redis://'],
    ['localhost:6379', 'must be redis://'],
    ['redis://', 'each host'],
    ['redis://a b', 'each host'],
    ['redis://a:0', 'a port'],
    ['redis://a:70000', 'a port'],
    ['redis://a,b', 'several hosts'],
    ['redis://a/x', 'the database must be a number'],
    ['redis://a/0/1', 'more than the database'],
    ['redis-sentinel://a,b', 'the name of the Sentinel group'],
    ['redis-sentinel://a/g/0/1', 'more than the group'],
    ['redis-cluster://a,,b', 'each host'],
    ['redis-cluster://a/1', 'no database but 0'],
    ['redis://user@a', 'a user without a password'],
    ['redis://:%zz@a', 'percent-encoded'],
    ['redis://:pass/word@a', 'each host'],
    ['redis://:pass?word#@a', 'must be redis://'],
    ['redis://a?db=1', 'a parameter other than replicas'],
    ['redis-cluster://a?sentinelPassword=x', 'a parameter other than replicas'],
    ['redis://a?replicas=many', 'replicas must be a number'],
  ])('%s is refused: %s', (url, problem) => {
    expect(problemOf(url)).toContain(problem);
  });

  test('what is wrong is said without any of the address', () => {
    fc.assert(
      fc.property(fc.string({ minLength: 4 }), (rest) => {
        for (const url of [`redis://:hunter2hunter2${rest}`, `redis-cluster://u:hunter2hunter2${rest}@h h`]) {
          const parsed = parseRedisUrl(url);
          if ('problem' in parsed) expect(parsed.problem).not.toContain('hunter2');
        }
      }),
    );
  });
});

describe('the configuration', () => {
  function problemsOf(env: Record<string, string>) {
    try {
      loadConfig(env);
    } catch (error) {
      if (error instanceof ConfigError) return error;
      throw error;
    }
    throw new Error('The configuration was taken');
  }

  test('R8 + a bad address is named by its key, never shown', () => {
    const error = problemsOf({
      REDIS_URL: 'redis://:hunter2@a,b',
      SOS_REDIS_URL: 'redis-sentinel://:hunter2@a',
    });
    expect(error.problems.map(({ key }) => key)).toEqual(['REDIS_URL', 'SOS_REDIS_URL']);
    expect(error.message).toMatch(/REDIS_URL: has several hosts[^]*SOS_REDIS_URL: needs the name/);
    expect(error.message).not.toContain('hunter2');
  });

  test('R8 + the SOS Redis is never a Cluster, nor the main one by default', () => {
    const cluster = 'redis-cluster://u:hunter2@a,b';
    for (const env of [{ SOS_REDIS_URL: cluster }, { REDIS_URL: cluster }]) {
      const { problems, message } = problemsOf(env);
      expect(problems).toEqual([
        { key: 'SOS_REDIS_URL', message: expect.stringContaining('one primary or a Sentinel group') },
      ]);
      expect(message).not.toContain('hunter2');
    }
    const config = loadConfig({ REDIS_URL: cluster, SOS_REDIS_URL: 'redis-sentinel://a,b/sos' });
    expect(config.redisUrl).toBe(cluster);
  });
});
