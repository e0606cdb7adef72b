import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';
import { expect, test } from '@jest/globals';

// What it starts is proven by test/e2e/many-gateways.test.ts, which starts the same
function cluster(args: string[], env: Record<string, string> = {}) {
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    ['--disable-warning=ExperimentalWarning', 'bin/cluster.ts', ...args],
    { env: { ...process.env, ...env }, encoding: 'utf8', timeout: 20_000 },
  );
  return { status, stdout, stderr };
}

test('npm run cluster -- --help says what there is', () => {
  const { status, stdout } = cluster(['--help']);
  expect(status).toBe(0);
  for (const option of ['--redis', '--kill', '--stop', '--after']) expect(stdout).toContain(option);
});

test.each([
  [['--redis', 'many'], '--redis must be one of single, sentinel, cluster'],
  [['--after', 'soon'], '--after must be a time such as 10s'],
  [['--kill', 'gateway-9'], 'There is no process gateway-9'],
  [['--nonsense'], 'nonsense'],
])('npm run cluster -- %j is refused before anything starts', (args, message) => {
  const { status, stdout, stderr } = cluster(args);
  expect([status, stdout]).toEqual([2, '']);
  expect(stderr).toContain(message);
});

test('npm run cluster names a port that is taken, and is for development only', async () => {
  const other = createServer().listen(0, '127.0.0.1');
  await once(other, 'listening');
  try {
    const { port } = other.address() as AddressInfo;
    const { status, stderr } = cluster([], { SOCKET_PORT: String(port), API_PORT: '0', METRICS_PORT: '0' });
    expect([status, stderr]).toEqual([1, expect.stringContaining(`SOCKET_PORT: port ${port} is in use`)]);
  } finally {
    other.close();
    await once(other, 'close');
  }
  expect(cluster([], { NODE_ENV: 'production' }).status).toBe(1);
});
