/**
 * R8.5: emergency contacts through the real action, from the cache in a real Redis; beside it the same action without
 * a cache, which reads the DB each time.
 */
import type { Service } from 'moleculer';
import type { ContactsCache } from '../../services/accounts/contacts-cache.ts';
import { callsPerS, callTimes } from '../support/bench/calls.ts';
import { processCpuMs, redisCpuMs } from '../support/bench/machine.ts';
import { atMost, type Bench, type Figures } from '../support/bench/result.ts';
import { newPhone } from '../support/clients.ts';
import { withRedis } from '../support/redis-content.ts';
import { startSystem } from '../support/system.ts';

/** What of accounts is used directly: users made without an SMS each, and its cache taken away. */
interface Accounts extends Service {
  findOrCreate(phone: string, name: string): Promise<{ _id: string }>;
  keptContacts: ContactsCache | undefined;
}

const noCache: ContactsCache = { read: async () => null, fill: async () => {}, fence: async () => {} };

const contacts: Bench = async ({ quick }) => {
  const [users, calls, clients, perS] = quick ? [50, 1000, 16, 500] : [1000, 10_000, 16, 500];
  const env = process.env['MONGO_URI'] ? { MONGO_URI: process.env['MONGO_URI'] } : undefined;
  const system = await startSystem({ only: ['accounts'], ...(env ? { env } : {}) });
  const { broker } = system;
  try {
    const accounts = broker.getLocalService('accounts') as unknown as Accounts;
    const people = await Promise.all(
      Array.from({ length: users }, async (_, n) => {
        const phone = newPhone();
        const { _id: id } = await accounts.findOrCreate(phone, `Rider ${n}`);
        const meta = { user: { id, role: 'rider', sessionId: 'bench' } };
        const listed = [0, 1, 2].map((c) => ({ name: `Contact ${c}`, phone, relation: 'friend' }));
        await broker.call('accounts.setEmergencyContacts', { contacts: listed }, { meta });
        return { id, phone };
      }),
    );
    let lost = 0;
    const ask = async (n: number) => {
      const person = people[n % users];
      const answer: { contacts: { phone: string }[] } = await broker.call('accounts.emergencyContacts', {
        userId: person?.id,
      });
      if (answer.contacts.length !== 3 || answer.contacts.some(({ phone }) => phone !== person?.phone))
        lost++;
    };

    return await withRedis(system.config.redisUrl, async (redis) => {
      const measure = async (): Promise<Figures> => {
        // The first calls compile the code
        await callsPerS(calls, clients, ask);
        const { p50, p99, max } = (await callTimes(calls, perS, ask)).total();
        const [cpuBefore, redisBefore] = [await processCpuMs(process.pid), await redisCpuMs(redis)];
        const most = await callsPerS(calls, clients, ask);
        const [cpu, redisCpu] = [await processCpuMs(process.pid), await redisCpuMs(redis)];
        return {
          p50Ms: p50 ?? Number.NaN,
          p99Ms: p99 ?? Number.NaN,
          maxMs: max ?? Number.NaN,
          mostPerS: most,
          cpuUsEach: ((cpu - cpuBefore) / calls) * 1000,
          redisCpuUsEach: ((redisCpu - redisBefore) / calls) * 1000,
        };
      };
      const figures = await measure();
      accounts.keptContacts = noCache;
      const baseline = await measure();
      const p99 = figures['p99Ms'] ?? Number.NaN;
      return {
        name: 'contacts',
        lost,
        doubled: 0,
        figures,
        baseline,
        ratio: env ? { p99Ms: (baseline['p99Ms'] ?? Number.NaN) / p99 } : {},
        targets: [atMost('R8.5', 'contacts from the cache, p99, ms', p99, 5)],
        notes: [
          `Times: ${calls} calls of accounts.emergencyContacts, ${perS} a second; the most: ${calls} calls by ${clients} clients. ${users} users with three contacts each; caller, accounts and Redis on one machine.`,
          env
            ? 'Baseline: the same action without the cache, from MongoDB.'
            : 'Baseline: the same action without the cache, from NeDB, which is in the memory of the same process: no network, so no ratio. Set MONGO_URI for one.',
        ],
      };
    });
  } finally {
    await system.stop();
  }
};

export default contacts;
