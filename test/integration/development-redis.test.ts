import type { ChildProcessByStdio } from 'node:child_process';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { Redis } from 'ioredis';
import { findProcesses, killProcess } from '../../lib/processes.ts';
import { startRedis } from '../../lib/standins/redis.ts';

const OWNER = fileURLToPath(new URL('../support/redis-owner.ts', import.meta.url));

type Owner = ChildProcessByStdio<null, Readable, Readable>;

let dataDir: string;
let owners: Owner[];

beforeEach(async () => {
  dataDir = await mkdtemp(join(tmpdir(), 'redis-'));
  owners = [];
});

afterEach(async () => {
  for (const owner of owners) await killOwner(owner);
  const left = await serversOf(dataDir);
  for (const server of left) await killProcess(server, 2000);
  await rm(dataDir, { recursive: true });
  expect(left).toEqual([]);
});

function runOwner(env: NodeJS.ProcessEnv = {}): Owner {
  const owner = spawn(process.execPath, [OWNER, dataDir], {
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  owners.push(owner);
  return owner;
}

/** Waits until the owner's Redis is up; fails when it exits instead. */
async function isUp(owner: Owner): Promise<void> {
  const [first]: unknown[] = await Promise.race([once(owner.stdout, 'data'), once(owner, 'exit')]);
  expect(String(first)).toBe('{"adopted":false}\n');
}

async function killOwner(owner: Owner): Promise<void> {
  if (owner.exitCode !== null || owner.signalCode !== null) return;
  owner.kill('SIGKILL');
  await once(owner, 'exit');
}

function serversOf(dir: string) {
  return findProcesses((argv) => argv.includes(join(dir, 'redis')));
}

async function withClient<T>(path: string, use: (client: Redis) => Promise<T>): Promise<T> {
  const client = new Redis({ path });
  try {
    return await use(client);
  } finally {
    client.disconnect();
  }
}

describe('startRedis', () => {
  test('runs a durable server in a process group of its own and keeps the data', async () => {
    const first = await startRedis({ dataDir });
    expect(first).toMatchObject({ adopted: false, socketPath: join(dataDir, 'redis.sock') });
    const [server] = await serversOf(dataDir);
    expect(Number(await readFile(join(dataDir, 'redis.pid'), 'utf8'))).toBe(server?.pid);
    const processGroup = (await readFile(`/proc/${server?.pid}/stat`, 'utf8')).split(' ')[4];
    expect(Number(processGroup)).toBe(server?.pid);
    await withClient(first.socketPath, async (client) => {
      const names = ['appendonly', 'appendfsync', 'maxmemory-policy', 'save', 'port'] as const;
      const config = await Promise.all(names.map((name) => client.config('GET', name)));
      expect(config.flat()).toEqual([
        'appendonly',
        'yes',
        'appendfsync',
        'always',
        'maxmemory-policy',
        'noeviction',
        'save',
        '',
        'port',
        '0',
      ]);
      await client.set('kept', 'yes');
    });
    await Promise.all([first.stop(), first.stop()]);
    expect((await readdir(dataDir)).toSorted()).toEqual(['redis', 'redis.log']);

    const second = await startRedis({ dataDir });
    expect(await withClient(second.socketPath, (client) => client.get('kept'))).toBe('yes');
    await second.stop();
  });

  test('adopts the server of an application that was killed', async () => {
    const owner = runOwner();
    await isUp(owner);
    const [server] = await serversOf(dataDir);
    await withClient(join(dataDir, 'redis.sock'), (client) => client.set('kept', 'yes'));
    await killOwner(owner);

    const redis = await startRedis({ dataDir });
    expect(redis.adopted).toBe(true);
    expect(await serversOf(dataDir)).toEqual([server]);
    expect(await withClient(redis.socketPath, (client) => client.get('kept'))).toBe('yes');
    await redis.stop();
    expect(await serversOf(dataDir)).toEqual([]);
  });

  test('finds a server without a pid file', async () => {
    const owner = runOwner();
    await isUp(owner);
    await killOwner(owner);
    await rm(join(dataDir, 'redis.pid'));
    const redis = await startRedis({ dataDir });
    expect(redis.adopted).toBe(true);
    await redis.stop();
  });

  test('replaces a server that cannot be reached any more', async () => {
    const owner = runOwner();
    await isUp(owner);
    await withClient(join(dataDir, 'redis.sock'), (client) => client.set('kept', 'yes'));
    const [server] = await serversOf(dataDir);
    await killOwner(owner);
    process.kill(server?.pid ?? Number.NaN, 'SIGSTOP');

    const redis = await startRedis({ dataDir });
    expect(redis.adopted).toBe(false);
    expect(await withClient(redis.socketPath, (client) => client.get('kept'))).toBe('yes');
    await redis.stop();
  }, 15_000);

  test('waits for a server that is still loading', async () => {
    const first = await startRedis({ dataDir });
    await withClient(first.socketPath, async (client) => {
      const writes = client.pipeline();
      for (let index = 0; index < 1500; index += 1) writes.set(`key:${index}`, index);
      await writes.exec();
    });
    await first.stop();
    const slow = spawn(
      'redis-server',
      [
        '--port',
        '0',
        '--unixsocket',
        first.socketPath,
        '--set-proc-title',
        'no',
        '--appendonly',
        'yes',
      ].concat(['--dir', join(dataDir, 'redis'), '--key-load-delay', '500']),
      { detached: true, stdio: 'ignore' },
    );
    await once(slow, 'spawn');

    const redis = await startRedis({ dataDir });
    expect(redis.adopted).toBe(true);
    expect(await withClient(redis.socketPath, (client) => client.dbsize())).toBe(1500);
    await redis.stop();
  });

  test('refuses a second application, in this process or another, and leaves the first alone', async () => {
    const redis = await startRedis({ dataDir });
    const message = `already in use by process ${process.pid}`;
    await expect(startRedis({ dataDir })).rejects.toThrow(message);
    expect(await text(runOwner().stderr)).toContain(message);
    expect(await withClient(redis.socketPath, (client) => client.ping())).toBe('PONG');
    await redis.stop();
  });

  test('is not held up by what a crash left behind', async () => {
    await writeFile(join(dataDir, 'app.pid'), `${process.pid} 1\n`);
    await writeFile(join(dataDir, 'redis.pid'), `${process.pid}\n`);
    await writeFile(join(dataDir, 'redis.sock'), '');
    const redis = await startRedis({ dataDir });
    expect(redis.adopted).toBe(false);
    await redis.stop();
  });

  test('puts the socket of a long path into the temporary directory', async () => {
    const deep = join(dataDir, 'd'.repeat(100));
    const redis = await startRedis({ dataDir: deep });
    expect(redis.socketPath).toMatch(/ride-safety-[0-9a-f]{16}\.sock$/);
    expect(await withClient(redis.socketPath, (client) => client.ping())).toBe('PONG');
    await redis.stop();
    await expect(stat(redis.socketPath)).rejects.toThrow('ENOENT');
  });

  test('says how to get a server that is missing', async () => {
    const owner = runOwner({ PATH: dataDir });
    expect(await text(owner.stderr)).toContain('`npm start` installs it (Debian package redis-server)');
    expect(await readdir(dataDir)).not.toContain('app.pid');
  });

  test('says why a server does not come up, and leaves nothing running', async () => {
    await mkdir(join(dataDir, 'redis', 'appendonlydir'), { recursive: true });
    await writeFile(join(dataDir, 'redis', 'appendonlydir', 'appendonly.aof.manifest'), 'garbage\n');
    await expect(startRedis({ dataDir })).rejects.toThrow(/ended.*manifest/s);
    expect(await serversOf(dataDir)).toEqual([]);
    expect(await readdir(dataDir)).not.toContain('app.pid');
  });
});
