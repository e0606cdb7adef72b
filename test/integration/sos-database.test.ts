import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import type { Redis } from 'ioredis';
import { sosKeys } from '../../services/sos/sos-keys.ts';
import { aracaju, newPhone, request, signIn, type User } from '../support/clients.ts';
import { eventually } from '../support/eventually.ts';
import { type MongoSimulator, startMongoSimulator } from '../support/mongo-simulator/index.ts';
import { startTestRedis, type TestRedis } from '../support/redis.ts';
import { type System, startSystem } from '../support/system.ts';

/** These take the server away, so they are about the simulator whatever MONGO_URI is. */
describe("R9 alerts and MongoDB, on the simulator of MongoDB's wire protocol", () => {
  let simulator: MongoSimulator;
  let server: TestRedis;
  let redis: Redis;
  let system: System;
  let admin: User;
  const start = () => startSystem({ env: { MONGO_URI: simulator.uri, REDIS_URL: server.url } });
  beforeAll(async () => {
    [simulator, server] = await Promise.all([startMongoSimulator(), startTestRedis()]);
    redis = server.connect();
    system = await start();
    admin = await signIn(system, '+919800000000');
  }, 30_000);
  afterAll(async () => {
    await system.stop();
    await simulator.stop();
    await server.stop();
  });

  const post = (path: string, token: string, body: unknown = {}) =>
    request(system, 'POST', `/api/v1${path}`, { token, body });
  const alertOf = async (id: string, { token }: User) =>
    (await request(system, 'GET', `/api/v1/sos/${id}`, { token })).body;
  const copies = () => simulator.database().collection('alerts').find({});
  const copyOf = (id: string) => copies().find(({ _id }) => _id === id);
  const waiting = () => redis.zcard(sosKeys.unprojected);

  async function userWithContact(): Promise<User> {
    const user = await signIn(system);
    const contacts = [{ name: 'Friend', phone: newPhone(), relation: 'friend' }];
    const { token } = user;
    const put = await request(system, 'PUT', '/api/v1/me/emergency-contacts', { token, body: { contacts } });
    expect(put.status).toBe(200);
    return user;
  }
  async function raise(
    user: User,
    body: unknown = { location: { ...aracaju, accuracy: 5 } },
  ): Promise<string> {
    const answer = await post('/sos', user.token, body);
    expect(answer.status).toBe(202);
    return answer.body.alertId;
  }
  const untilTold = (id: string, user: User) =>
    eventually(
      async () => expect((await alertOf(id, user)).contacts).toMatchObject([{ status: 'sent' }]),
      10_000,
    );
  /** Every alert is in the database in its newest form, and none waits. */
  const untilWritten = (ids: readonly string[]) =>
    eventually(async () => {
      expect(await waiting()).toBe(0);
      expect(copies().map(({ _id }) => String(_id))).toEqual(expect.arrayContaining([...ids]));
      for (const id of ids)
        expect(copyOf(id)?.['version']).toBe(Number(await redis.hget(sosKeys.alert(id), 'version')));
    }, 15_000);

  test('while it is away alerts are taken and followed up; their copies wait, and are written when it is back', async () => {
    const users = await Promise.all(Array.from({ length: 8 }, userWithContact));
    const [first, ...others] = users as [User, ...User[]];
    const before = await raise(first);
    await untilWritten([before]);

    await simulator.halt();
    const ids = await Promise.all(others.map((user) => raise(user)));
    await Promise.all(ids.map((id, index) => untilTold(id, others[index] as User)));
    // One moves on meanwhile, also one that has its copy already
    const moved = [ids[0] as string, before];
    for (const id of moved)
      expect((await post(`/admin/sos/${id}/acknowledge`, admin.token)).body.status).toBe('acknowledged');
    expect(await waiting()).toBe(ids.length + 1);
    expect(copies().map(({ _id }) => _id)).toEqual([before]);

    await simulator.resume();
    await untilWritten([before, ...ids]);
    for (const id of moved) expect(copyOf(id)).toMatchObject({ status: 'acknowledged' });
    expect(copyOf(ids[1] as string)).toMatchObject({
      status: 'active',
      alert: { location: aracaju, contacts: [{ status: 'sent' }] },
    });
  }, 60_000);

  test('copies wait for it also over the end of the process that took the alerts', async () => {
    const user = await userWithContact();
    await simulator.halt();
    const id = await raise(user);
    await untilTold(id, user);
    await system.stop();
    expect(await waiting()).toBe(1);
    system = await start();
    await simulator.resume();
    await untilWritten([id]);
  }, 60_000);

  test('one that it cannot take keeps no other out, whatever a client has put in', async () => {
    const [odd, broken, other] = await Promise.all(Array.from({ length: 3 }, userWithContact));
    const device = { 'a\u0000b': 1, $where: 1, _bsontype: 'ObjectId', 'x.y': { _bsontype: 'Nonsense' } };
    const oddId = await raise(odd as User, { device });
    await untilWritten([oddId]);
    expect(JSON.parse(String(copyOf(oddId)?.['press']))).toMatchObject({ device });

    const brokenId = await raise(broken as User);
    const unstorable = JSON.stringify({ at: 1, what: 'x', 'a\u0000b': 1 });
    await redis.rpush(sosKeys.log(brokenId), unstorable);
    await untilTold(brokenId, broken as User);
    const otherId = await raise(other as User);
    await untilTold(otherId, other as User);
    await eventually(async () => {
      expect(copyOf(otherId)).toBeDefined();
      expect(await redis.zrange(sosKeys.unprojected, 0, -1)).toEqual([brokenId]);
    }, 15_000);
    // It is tried again, so a repaired one comes in
    await redis.lrem(sosKeys.log(brokenId), 0, unstorable);
    await untilWritten([brokenId]);
  }, 60_000);
});
