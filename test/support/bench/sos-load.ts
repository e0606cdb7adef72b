/** Users with cards in the SOS Redis, as accounts writes them, for benchmarks that press SOS for each. */
import type { Redis } from 'ioredis';
import type { Config } from '../../../lib/config.ts';
import { sealerOf } from '../../../lib/sealed.ts';
import { cardKey } from '../../../mixins/cards.ts';

export const contactsEach = 3;
const atOnce = 2000;

/** The number (E.164) of a user's contact; nobody else's. */
const phoneOf = (user: number, contact: number): string =>
  `+91${String(7_000_000_000 + user * contactsEach + contact)}`;

/** Writes the cards of users `prefix0` … with three contacts each. */
export async function writeCards(redis: Redis, config: Config, prefix: string, users: number): Promise<void> {
  const sealer = sealerOf(config);
  for (let start = 0; start < users; start += atOnce) {
    const pipeline = redis.pipeline();
    for (let n = start; n < Math.min(users, start + atOnce); n++) {
      const contacts = Array.from({ length: contactsEach }, (_, c) => ({
        name: `Contact ${c}`,
        phone: phoneOf(n, c),
        relation: 'friend',
      }));
      const sealed = sealer.seal(JSON.stringify(contacts));
      const fields = {
        version: 1,
        name: `Rider ${n}`,
        contacts: sealed,
        pin: '',
        duressPin: '',
        language: 'en',
      };
      pipeline.hset(cardKey(`${prefix}${n}`), fields);
    }
    const failed = (await pipeline.exec())?.find(([error]) => error);
    if (failed?.[0]) throw failed[0];
  }
}

/** The value below which a share `q` of the values lies; NaN of none. */
export function quantile(values: readonly number[], q: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.ceil(q * sorted.length) - 1)] ?? Number.NaN;
}
