import { spawnSync } from 'node:child_process';
import { afterEach, expect, test } from '@jest/globals';
import * as fc from 'fast-check';
import {
  answerChecks,
  answerTo,
  busyAfterMs,
  hangsAfterMs,
  vacancyPath,
} from '../../../services/gateway/balancer-checks.ts';
import { eventually } from '../../support/eventually.ts';
import { freePort } from '../../support/process.ts';

test('R1.4 only a process that has long given no sign looks dead: one that is busy, full or stopping keeps what it has', () => {
  fc.assert(
    fc.property(fc.double({ min: 0, max: 1e9, noNaN: true }), fc.boolean(), (silentMs, refuses) => {
      const hangs = silentMs >= hangsAfterMs;
      const takes = !refuses && silentMs < busyAfterMs;
      expect(answerTo(silentMs, refuses)).toBe(hangs ? 'nothing' : takes ? 204 : 503);
    }),
  );
});

let end: (() => Promise<void>) | undefined;
afterEach(async () => {
  await end?.();
  end = undefined;
});

test('R1.4 while the process has no time its thread answers for it, and afterwards it takes new connections again', async () => {
  const port = await freePort();
  end = await answerChecks({ port, host: '127.0.0.1' }, () => false);
  const url = `http://127.0.0.1:${port}${vacancyPath}`;
  expect((await fetch(url)).status).toBe(204);
  // Holds up this process, and asks its thread until that says what we wait for
  const asking = `for (;;) if ((await fetch(${JSON.stringify(url)})).status === 503) process.exit(3);`;
  const { status } = spawnSync(process.execPath, ['--input-type=module', '-e', asking], { timeout: 20_000 });
  expect(status).toBe(3);
  await eventually(async () => expect((await fetch(url)).status).toBe(204));
}, 30_000);

test('R1.1 it says when no new connections are taken, and no more when it has stopped', async () => {
  const port = await freePort();
  let refuses = false;
  end = await answerChecks({ port, host: '127.0.0.1' }, () => refuses);
  const url = `http://127.0.0.1:${port}`;
  refuses = true;
  await eventually(async () => expect((await fetch(url + vacancyPath)).status).toBe(503));
  expect((await fetch(url)).status).toBe(404);
  await end();
  await expect(fetch(url + vacancyPath)).rejects.toThrow('fetch failed');
});

test('a port that somebody else has is told at the start', async () => {
  const port = await freePort();
  end = await answerChecks({ port, host: '127.0.0.1' }, () => false);
  await expect(answerChecks({ port, host: '127.0.0.1' }, () => false)).rejects.toThrow('EADDRINUSE');
});
