import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { takeProcessLock } from '../../lib/process-lock.ts';

let dir: string;
let path: string;

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'process-lock-'));
  path = join(dir, 'app.pid');
});

afterEach(async () => {
  await rm(dir, { recursive: true });
});

describe('takeProcessLock', () => {
  test('refuses a second taker until the first gives it back', async () => {
    const release = await takeProcessLock(path);
    await expect(takeProcessLock(path)).rejects.toThrow(`already in use by process ${process.pid}`);

    await release();
    const releaseAgain = await takeProcessLock(path);
    await releaseAgain();
    expect(await readdir(dir)).toEqual([]);
  });

  test.each([
    ['an owner that is dead', '4194305 1\n'],
    ['an owner whose pid runs something else now', `${process.pid} 1\n`],
    ['a file that names nobody', 'garbage'],
    ['an empty file', ''],
  ])('takes over from %s', async (_, content) => {
    await writeFile(path, content);
    const release = await takeProcessLock(path);
    expect(await readFile(path, 'utf8')).toMatch(new RegExp(`^${process.pid} [0-9]+\n$`));
    await release();
  });

  test('goes to exactly one of many that find a stale lock at once', async () => {
    // Who comes when is a matter of luck
    for (let round = 0; round < 50; round += 1) {
      await writeFile(path, '4194305 1\n');
      const taken = await Promise.allSettled(Array.from({ length: 10 }, () => takeProcessLock(path)));
      expect(taken.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
      expect(await readdir(dir)).toEqual(['app.pid']);
    }
  });

  test('takes over also where somebody died in the middle of taking over', async () => {
    for (const stale of [path, `${path}.takeover`, `${path}.takeover.takeover`])
      await writeFile(stale, '4194305 1\n');
    const taken = await Promise.allSettled(Array.from({ length: 10 }, () => takeProcessLock(path)));
    expect(taken.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
    expect(await readdir(dir)).toEqual(['app.pid']);
  });

  test('does not remove the lock of a successor', async () => {
    const release = await takeProcessLock(path);
    await writeFile(path, '1 1\n');
    await release();
    expect(await readFile(path, 'utf8')).toBe('1 1\n');
  });
});
