import type { Redis } from 'ioredis';
import type { Service } from 'moleculer';
import type { Mixin } from '../lib/define-service.ts';
import { redis } from './redis.ts';

/**
 * What an SOS needs to know of a user when nothing but the SOS Redis is alive. Contacts are sealed JSON, PINs hashed;
 * `version` grows with every change, so that an older card never replaces a newer one.
 */
export interface Card {
  userId: string;
  version: number;
  name: string;
  contacts: string;
  pin: string | null;
  duressPin: string | null;
}

export interface Cards {
  /** Resolves when the SOS Redis has this card or a newer one. */
  save(card: Card): Promise<void>;
  /** From the SOS Redis, else as this process saw it last; null when neither has it. */
  read(userId: string): Promise<Card | null>;
}

export const cardKey = (userId: string): string => `sos:card:${userId}`;

/** KEYS: card. ARGV: version, then fields and values. */
const saveScript = `
if tonumber(redis.call('HGET', KEYS[1], 'version') or '-1') > tonumber(ARGV[1]) then return 0 end
redis.call('HSET', KEYS[1], 'version', ARGV[1], unpack(ARGV, 2))
return 1`;

/** Cards that a process remembers: some 10 MB. */
const remembered = 20_000;

function cardsOn(connection: Redis): Cards {
  const seen = new Map<string, Card>();
  const remember = (card: Card) => {
    seen.delete(card.userId);
    seen.set(card.userId, card);
    const [oldest] = seen.keys();
    if (seen.size > remembered && oldest !== undefined) seen.delete(oldest);
  };
  return {
    async save(card) {
      const { userId, version, name, contacts, pin, duressPin } = card;
      const fields = ['name', name, 'contacts', contacts, 'pin', pin ?? '', 'duressPin', duressPin ?? ''];
      await connection.eval(saveScript, 1, cardKey(userId), version, ...fields);
      remember(card);
    },
    async read(userId) {
      try {
        const hash = await connection.hgetall(cardKey(userId));
        if (hash.contacts === undefined) return null;
        const card = {
          userId,
          version: Number(hash.version),
          name: hash.name ?? '',
          contacts: hash.contacts,
          pin: hash.pin || null,
          duressPin: hash.duressPin || null,
        };
        remember(card);
        return card;
      } catch (error) {
        const known = seen.get(userId);
        if (!known) throw error;
        return known;
      }
    },
  };
}

/** `this.cards`, on the SOS Redis. accounts writes them; doors and SOS workers read them. */
export const cards = (): Mixin<{ cards: Cards; sosRedis: Redis }> => ({
  mixins: [redis('sos')],
  created(this: Service & { sosRedis?: Redis }) {
    if (this.sosRedis) Object.assign(this, { cards: cardsOn(this.sosRedis) });
  },
});
