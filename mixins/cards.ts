import type { Redis } from 'ioredis';
import type { Service } from 'moleculer';
import type { Mixin } from '../lib/define-service.ts';
import { type Language, languageOf } from '../lib/templates/variables.ts';
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
  /** In which their contacts are written to. */
  language: Language;
  /** `numberKeyOf` the user's own number: others have them as a contact. */
  number: string;
  /** JSON of the tokens of their installations of the app, sealed. */
  devices: string;
}

export interface Cards {
  /** Resolves when the SOS Redis has this card or a newer one. */
  save(card: Card): Promise<void>;
  /** From the SOS Redis, else as this process saw it last; null when neither has it. */
  read(userId: string): Promise<CardOfAlert | null>;
  /** The devices of those who have the app, by the key of their number. */
  devicesOf(numbers: readonly string[]): Promise<Map<string, string>>;
}

/** What an alert takes from the card of whoever raised it. */
export type CardOfAlert = Omit<Card, 'number' | 'devices'>;

export const cardKey = (userId: string): string => `sos:card:${userId}`;

/** What stands for a number where it must not be read: the beginning of its keyed hash. */
export const numberKeyOf = (phoneHash: string): string => phoneHash.slice(0, 16);

const userKey = (number: string): string => `sos:user-of:${number}`;

/** KEYS: card, user of the number. ARGV: version, user, then fields and values. */
const saveScript = `
if tonumber(redis.call('HGET', KEYS[1], 'version') or '-1') > tonumber(ARGV[1]) then return 0 end
redis.call('HSET', KEYS[1], 'version', ARGV[1], unpack(ARGV, 3))
redis.call('SET', KEYS[2], ARGV[2])
return 1`;

/** Cards that a process remembers: some 10 MB. */
const remembered = 20_000;

function cardsOn(connection: Redis): Cards {
  const seen = new Map<string, CardOfAlert>();
  const remember = (card: CardOfAlert) => {
    seen.delete(card.userId);
    seen.set(card.userId, card);
    const [oldest] = seen.keys();
    if (seen.size > remembered && oldest !== undefined) seen.delete(oldest);
  };
  return {
    async save(card) {
      const { userId, version, number, devices, ...told } = card;
      const { name, contacts, pin, duressPin, language } = told;
      const fields = { name, contacts, pin: pin ?? '', duressPin: duressPin ?? '', language, devices };
      await connection.eval(
        saveScript,
        2,
        cardKey(userId),
        userKey(number),
        version,
        userId,
        ...Object.entries(fields).flat(),
      );
      remember({ userId, version, ...told });
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
          language: languageOf(hash.language),
        };
        remember(card);
        return card;
      } catch (error) {
        const known = seen.get(userId);
        if (!known) throw error;
        return known;
      }
    },
    async devicesOf(numbers) {
      if (numbers.length === 0) return new Map();
      const users = await connection.mget(numbers.map(userKey));
      const found = numbers.flatMap((number, index) => {
        const userId = users[index];
        return userId ? [{ number, userId }] : [];
      });
      const devices = await Promise.all(
        found.map(({ userId }) => connection.hget(cardKey(userId), 'devices')),
      );
      return new Map(
        found.flatMap(({ number }, index) => {
          const sealed = devices[index];
          return sealed ? [[number, sealed] as const] : [];
        }),
      );
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
