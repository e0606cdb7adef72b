import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { readToken } from '../../lib/session-token.ts';
import { connectSocket, request, signIn } from '../support/clients.ts';
import { eventually } from '../support/eventually.ts';
import { type MountedSecrets, mountSecrets } from '../support/mounted-secrets.ts';
import { type Application, spawnApplication, untilReady } from '../support/process.ts';

const first = `first-${'1'.repeat(40)}`;
const second = `second-${'2'.repeat(40)}`;

let dataDir: string;
let mounted: MountedSecrets;
let application: Application;
beforeAll(async () => {
  dataDir = await mkdtemp(join(tmpdir(), 'ride-rotation-'));
  mounted = await mountSecrets({ session_secret: first });
  application = await spawnApplication(dataDir, {
    SESSION_SECRET_FILE: mounted.path('session_secret'),
    SECRET_FILES_POLL_MS: '50',
    LOG_LEVEL: 'info',
    LOG_FORMAT: 'json',
  });
  await untilReady(application);
}, 30_000);
afterAll(async () => {
  application.child.kill('SIGTERM');
  await application.exited;
  await mounted.remove();
  await rm(dataDir, { recursive: true, force: true });
});

const told = (text: string) => eventually(() => expect(application.output()).toContain(text));
const me = async (token: string) => (await request(application, 'GET', '/api/v1/me', { token })).status;

test('a changed secret file is picked up: new tokens are signed with it, old ones stay good', async () => {
  const old = await signIn(application);
  expect(readToken(first, old.token)).toMatchObject({ userId: old.id });

  await mounted.mount({ session_secret: 'a\nb\nc\nd\ne\nhunter2' });
  await told('A changed secret is not usable');
  expect(await me(old.token)).toBe(200);

  await mounted.mount({ session_secret: `${second}\n${first}\n` });
  await told('A changed secret was taken');
  const fresh = await signIn(application);
  expect([readToken(first, fresh.token), readToken(second, fresh.token)]).toMatchObject([
    null,
    { userId: fresh.id },
  ]);
  expect([await me(old.token), await me(fresh.token)]).toEqual([200, 200]);
  (await connectSocket(application, old.token)).close();

  await mounted.mount({ session_secret: second });
  await eventually(async () => expect(await me(old.token)).toBe(401));
  expect(await me(fresh.token)).toBe(200);

  const metrics = await (await fetch(`${application.metricsUrl}/metrics`)).text();
  expect(metrics).toMatch(/secrets_changed_total\{[^}]*key="SESSION_SECRET"[^}]*outcome="taken"[^}]*\} 2/);
  expect(metrics).toMatch(/secrets_changed_total\{[^}]*key="SESSION_SECRET"[^}]*outcome="refused"[^}]*\} 1/);
  expect(application.output()).toContain('SESSION_SECRET');
  for (const value of ['hunter2', first, second]) expect(application.output()).not.toContain(value);
}, 30_000);
