import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { aracaju, request, signIn, signInDriver, type User } from '../support/clients.ts';
import { type Cluster, startCluster } from '../support/cluster.ts';
import { eventually } from '../support/eventually.ts';
import { freePort } from '../support/process.ts';

const services = 'accounts,trips,notify,location,safety,sos,admin';

let cluster: Cluster;
let users: User[];

beforeAll(async () => {
  cluster = await startCluster({
    roles: { 'data-1': services, 'data-2': services, 'api-1': 'api', 'gateway-1': 'gateway' },
    redis: 'single',
    ports: { api: await freePort(), socket: await freePort(), metrics: await freePort() },
    // Other tests on the same cores must not make a door refuse what these ask
    env: { RATE_LIMIT_PER_USER: '100000', SHED_WHEN_LATE_MS: '10000' },
  });
  // The first moments after a start: not every route is known yet
  users = [await eventually(() => signIn(cluster), 20_000)];
  while (users.length < 10) users.push(await signIn(cluster));
}, 90_000);
afterAll(() => cluster?.stop(), 30_000);

test('+ one of two processes with everybody’s data is killed: no request of the time after fails, nor is done twice', async () => {
  const to = { lat: -10.95, lng: -37.05 };
  const departAt = new Date(Date.now() + 3_600_000).toISOString();
  const ask = async ({ token }: User, n: number) => {
    const name = `Rider ${n}`;
    const renamed = await request(cluster, 'PATCH', '/api/v1/me', { token, body: { name } });
    const booked = await request(cluster, 'POST', '/api/v1/bookings', {
      token,
      body: { from: aracaju, to, departAt },
    });
    const me = await request(cluster, 'GET', '/api/v1/me', { token });
    return [renamed.status, booked.status, me.status, me.body.name === name];
  };
  await cluster.role('data-1').kill();
  const answers = await Promise.all(
    users.map(async (user) => {
      const all = [];
      for (let n = 0; n < 4; n++) all.push(await ask(user, n));
      return all;
    }),
  );
  expect(answers.flat()).toEqual(Array.from({ length: 40 }, () => [200, 201, 200, true]));
  const { token } = await signInDriver(cluster);
  const { lat, lng } = aracaju;
  const near = await request(cluster, 'GET', `/api/v1/bookings/nearby?lat=${lat}&lng=${lng}&limit=100`, {
    token,
  });
  expect(near.body.bookings).toHaveLength(40);
}, 60_000);
