/**
 * Who people are: sign-in by code, sessions, profile, emergency contacts, PINs. Owns the users. Emits
 * session.revoked, contacts.changed and profile.changed. Never tells whether a number is known.
 */
import type { z } from 'zod';
import type { Contact, Profile, preferences, Recipient } from '../../contracts/accounts.ts';
import { preferences as preferencesSchema } from '../../contracts/accounts.ts';
import type { Role } from '../../contracts/common.ts';
import type { Meta } from '../../lib/context.ts';
import { defineService } from '../../lib/define-service.ts';
import { AppError } from '../../lib/errors.ts';
import { newId } from '../../lib/ids.ts';
import type { Caller } from '../../lib/permissions.ts';
import { hashPin, isPin, keyedHash } from '../../lib/pins.ts';
import { type RateLimit, rateLimit } from '../../lib/rate-limit.ts';
import { type Sealer, sealerOf } from '../../lib/sealed.ts';
import { type Card, cards, numberKeyOf } from '../../mixins/cards.ts';
import { sessions } from '../../mixins/sessions.ts';
import { type Change, store } from '../../mixins/store.ts';
import { type ContactsCache, contactsCache } from './contacts-cache.ts';
import { type LoginCodes, loginCodes } from './login-codes.ts';
import { countryOf } from './otp-defence.ts';
import { type OtpWatch, otpWatch } from './otp-watch.ts';
import { toE164 } from './phone.ts';

interface UserRecord {
  _id: string;
  /** Counts the changes; a copy elsewhere says of which version it is. None in records older than the count. */
  version?: number;
  /** Keyed hash of the number, for looking it up. */
  phoneHash: string;
  /** The number (E.164) and the contacts (JSON), sealed: not readable in the database, a backup or Redis. */
  phoneSealed: string;
  contactsSealed: string;
  /** The email address, sealed likewise; none in records older than it. */
  emailSealed?: string | null;
  role: Role;
  name: string;
  preferences: z.infer<typeof preferences>;
  pinHash: string | null;
  duressPinHash: string | null;
  driver: { vehicle: { plate: string; model: string }; verified: boolean } | null;
  pushToken: { token: string; platform: 'android' | 'ios' } | null;
  createdAt: string;
  /** True, from the same write as the change, until the card in the SOS Redis is as new. */
  cardPending?: boolean;
}

const toCard = (sealer: Sealer, user: UserRecord): Card => ({
  userId: user._id,
  version: user.version ?? 0,
  name: user.name,
  contacts: user.contactsSealed,
  pin: user.pinHash,
  duressPin: user.duressPinHash,
  language: user.preferences.language,
  number: numberKeyOf(user.phoneHash),
  devices: sealer.seal(JSON.stringify(user.pushToken ? [user.pushToken.token] : [])),
});

/** How often cards that are not in the SOS Redis yet are tried again, ms. */
const cardSweepMs = 5000;

const openContacts = (sealer: Sealer, sealed: string) => JSON.parse(sealer.open(sealed)) as Contact[];

const toProfile = (sealer: Sealer, user: UserRecord): Profile => ({
  id: user._id,
  role: user.role,
  name: user.name,
  phone: sealer.open(user.phoneSealed),
  email: user.emailSealed ? sealer.open(user.emailSealed) : null,
  emergencyContacts: openContacts(sealer, user.contactsSealed),
  preferences: user.preferences,
  hasPin: user.pinHash !== null,
  driver: user.driver,
  createdAt: user.createdAt,
});

const toRecipient = (sealer: Sealer, user: UserRecord): Recipient => ({
  userId: user._id,
  name: user.name,
  phone: sealer.open(user.phoneSealed),
  email: user.emailSealed ? sealer.open(user.emailSealed) : null,
  pushToken: user.pushToken?.token ?? null,
  preferences: user.preferences,
  vehicle: user.driver?.vehicle ?? null,
});

const caller = ({ user }: Meta): Caller => {
  if (!user) throw new AppError('UNAUTHENTICATED');
  return user;
};

/** A change is tried so often when others of the same user come first. */
const changeTries = 10;

export default defineService({
  name: 'accounts',
  mixins: [
    sessions(),
    cards(),
    store<UserRecord>('users', [{ fields: ['phoneHash'], unique: true }, { fields: ['cardPending'] }]),
  ],
  state: () => ({
    cardSweep: undefined as NodeJS.Timeout | undefined,
    codes: undefined as LoginCodes | undefined,
    otpWatch: undefined as OtpWatch | undefined,
    pinTries: undefined as RateLimit | undefined,
    keptContacts: undefined as ContactsCache | undefined,
    keptSealer: undefined as Sealer | undefined,
  }),

  methods: {
    sealer(): Sealer {
      this.keptSealer ??= sealerOf(this.config);
      return this.keptSealer;
    },
    contactsCache(): ContactsCache {
      this.keptContacts ??= contactsCache(this.redis);
      return this.keptContacts;
    },
    async userById(id: string): Promise<UserRecord> {
      const user = await this.store.get(id);
      if (!user) throw new AppError('USER_NOT_FOUND');
      return user;
    },
    async change(id: string, set: NonNullable<Change<UserRecord>['$set']>): Promise<UserRecord> {
      await this.store.update({ _id: id }, { $set: set, $inc: { version: 1 } });
      const user = await this.userById(id);
      if (user.cardPending) await this.saveCard(user);
      return user;
    },
    /** What fails is left to the sweep: the record says that it is pending. */
    async saveCard(user: UserRecord): Promise<void> {
      const { _id, version } = user;
      try {
        await this.cards.save(toCard(this.sealer(), user));
        await this.store.update(
          { _id, version: version ?? { $exists: false } },
          { $set: { cardPending: false } },
        );
      } catch (error) {
        this.logger.warn('A card waits for the SOS Redis', { userId: _id, error });
      }
    },
    async saveCards(): Promise<void> {
      for (const user of await this.store.find({ cardPending: true }, { limit: 500 }))
        await this.saveCard(user);
    },
    sweepCards(): void {
      this.cardSweep = setTimeout(() => {
        this.saveCards()
          .catch((error: unknown) => this.logger.warn('Pending cards could not be saved', { error }))
          .finally(() => this.cardSweep && this.sweepCards());
      }, cardSweepMs);
    },
    /** Whoever asks from here on gets these contacts, also when this process dies before the cache has them. */
    async changeContacts(id: string, contactsSealed: string): Promise<UserRecord> {
      for (let attempt = 0; attempt < changeTries; attempt++) {
        const { version } = await this.userById(id);
        await this.contactsCache().fence(id, (version ?? 0) + 1);
        const changed = await this.store.update(
          { _id: id, version: version ?? { $exists: false } },
          { $set: { contactsSealed, cardPending: true }, $inc: { version: 1 } },
        );
        if (changed === 0) continue;
        const user = await this.userById(id);
        await Promise.all([this.cacheContacts(user), this.saveCard(user)]);
        return user;
      }
      throw new AppError('UNAVAILABLE', { retryAfterS: 1 });
    },
    /** What is not in the cache is read from the DB: only slower. */
    async cacheContacts(user: UserRecord): Promise<void> {
      await this.contactsCache()
        .fill(user._id, user.version ?? 0, user.contactsSealed)
        .catch((error: unknown) => this.logger.warn('Contacts could not be cached', { error }));
    },
    /** The user with this number; made on first sight. Two first logins at once meet in the unique hash. */
    async findOrCreate(phone: string, name: string | undefined): Promise<UserRecord> {
      const phoneHash = keyedHash(this.config.hashSecret, phone);
      const known = await this.store.findOne({ phoneHash });
      if (known) return known;
      const user: UserRecord = {
        _id: newId('usr'),
        version: 1,
        phoneHash,
        phoneSealed: this.sealer().seal(phone),
        contactsSealed: this.sealer().seal('[]'),
        role: this.config.adminPhones.includes(phone) ? 'super-admin' : 'rider',
        name: name ?? '',
        preferences: preferencesSchema.parse({}),
        pinHash: null,
        duressPinHash: null,
        driver: null,
        pushToken: null,
        createdAt: new Date().toISOString(),
        cardPending: true,
      };
      if (await this.store.insert(user)) return user;
      const winner = await this.store.findOne({ phoneHash });
      if (!winner) throw new AppError('INTERNAL');
      return winner;
    },
    /** Metrics and alarm. Whoever signs in does not wait for it, nor fail by it. */
    async watchCodes(phone: string, what: 'requested' | 'used'): Promise<void> {
      const country = countryOf(phone);
      this.broker.metrics.increment('otp.total', { country, what });
      try {
        const spike = await this.otpWatch?.[what](country);
        if (!spike) return;
        this.broker.metrics.increment('otp.spikes.total', { country });
        this.logger.error('Codes are asked for and not used: this looks like pumping', { country, ...spike });
      } catch (error) {
        this.logger.warn('Codes could not be counted', { error });
      }
    },
    /** Numbers in ADMIN_PHONES are super-admins also when they were known before. */
    async withCurrentRole(user: UserRecord, phone: string): Promise<UserRecord> {
      if (user.role === 'super-admin' || !this.config.adminPhones.includes(phone)) return user;
      return this.change(user._id, { role: 'super-admin' });
    },
  },

  actions: {
    requestOtp: {
      permissions: 'public',
      rest: { method: 'POST', path: '/auth/otp', status: 202 },
      async handler(ctx) {
        const phone = toE164(ctx.params.phone, this.config.phoneRegion);
        const code = await this.codes?.issue(phone, ctx.meta.ip ?? 'internal');
        if (!code) throw new AppError('UNAVAILABLE');
        void this.watchCodes(phone, 'requested');
        const { otpTtlS, otpResendS } = this.config;
        await ctx.call('notify.send', {
          to: { phone },
          template: 'otp',
          data: { code },
          priority: 'high',
          channels: ['sms', 'whatsapp'],
          idempotencyKey: newId('ntf'),
          expiresInMs: otpTtlS * 1000,
        });
        return { expiresInS: otpTtlS, retryAfterS: otpResendS };
      },
    },

    login: {
      permissions: 'public',
      rest: { method: 'POST', path: '/auth/login' },
      async handler(ctx) {
        const phone = toE164(ctx.params.phone, this.config.phoneRegion);
        await this.codes?.use(phone, ctx.params.code);
        void this.watchCodes(phone, 'used');
        const user = await this.withCurrentRole(await this.findOrCreate(phone, ctx.params.name), phone);
        const { token, expiresAt } = await this.sessions.create(user._id, user.role, user.version ?? 0);
        await this.cacheContacts(user);
        // Also what is there already: the SOS Redis may have been replaced
        await this.saveCard(user);
        return {
          token,
          expiresAt: new Date(expiresAt).toISOString(),
          user: { id: user._id, role: user.role, name: user.name },
        };
      },
    },

    logout: {
      permissions: 'user',
      rest: { method: 'POST', path: '/auth/logout' },
      async handler(ctx) {
        const { id, sessionId } = caller(ctx.meta);
        await this.sessions.revoke(id, sessionId);
        await ctx.emit('session.revoked', { userId: id, sessionId });
        return null;
      },
    },

    logoutAll: {
      permissions: 'user',
      rest: { method: 'POST', path: '/auth/logout-all' },
      async handler(ctx) {
        const { id } = caller(ctx.meta);
        await this.sessions.revokeAll(id);
        await ctx.emit('session.revoked', { userId: id, sessionId: null });
        return null;
      },
    },

    me: {
      permissions: 'user',
      rest: { method: 'GET', path: '/me' },
      async handler(ctx) {
        return toProfile(this.sealer(), await this.userById(caller(ctx.meta).id));
      },
    },

    updateMe: {
      permissions: 'user',
      rest: { method: 'PATCH', path: '/me' },
      async handler(ctx) {
        const { id } = caller(ctx.meta);
        const { name, email } = ctx.params;
        const changed = await this.change(id, {
          ...(name === undefined ? {} : { name, cardPending: true }),
          ...(email === undefined ? {} : { emailSealed: email === null ? null : this.sealer().seal(email) }),
        });
        await ctx.emit('profile.changed', { userId: id });
        return toProfile(this.sealer(), changed);
      },
    },

    setEmergencyContacts: {
      permissions: 'user',
      rest: { method: 'PUT', path: '/me/emergency-contacts' },
      async handler(ctx) {
        const { id } = caller(ctx.meta);
        const emergencyContacts = ctx.params.contacts.map((contact) => ({
          ...contact,
          phone: toE164(contact.phone, this.config.phoneRegion),
        }));
        const contactsSealed = this.sealer().seal(JSON.stringify(emergencyContacts));
        const changed = await this.changeContacts(id, contactsSealed);
        await ctx.emit('contacts.changed', { userId: id });
        return toProfile(this.sealer(), changed);
      },
    },

    setPin: {
      permissions: 'user',
      rest: { method: 'PUT', path: '/me/pin' },
      async handler(ctx) {
        const { pin, duressPin, currentPin } = ctx.params;
        if (pin === duressPin) throw new AppError('PINS_EQUAL');
        const { hashSecret } = this.config;
        const user = await this.userById(caller(ctx.meta).id);
        if (user.pinHash !== null) {
          await this.pinTries?.(user._id);
          // Whoever forces the user to change the PIN sees it work, and changes nothing
          if (await isPin(hashSecret, user._id, currentPin ?? '', user.duressPinHash)) return null;
          if (!(await isPin(hashSecret, user._id, currentPin ?? '', user.pinHash)))
            throw new AppError('WRONG_PIN');
        }
        const hash = (value: string) => hashPin(hashSecret, user._id, value);
        // A change that names no duress PIN keeps the one there is: losing it silently could cost a life
        if (duressPin === undefined && (await isPin(hashSecret, user._id, pin, user.duressPinHash))) {
          throw new AppError('PINS_EQUAL');
        }
        const duressPinHash = duressPin === undefined ? user.duressPinHash : await hash(duressPin);
        await this.change(user._id, { pinHash: await hash(pin), duressPinHash, cardPending: true });
        return null;
      },
    },

    setPreferences: {
      permissions: 'user',
      rest: { method: 'PUT', path: '/me/preferences' },
      async handler(ctx) {
        const { id } = caller(ctx.meta);
        const changed = await this.change(id, { preferences: ctx.params, cardPending: true });
        await ctx.emit('profile.changed', { userId: id });
        return toProfile(this.sealer(), changed);
      },
    },

    setPushToken: {
      permissions: 'user',
      rest: { method: 'PUT', path: '/me/push-token' },
      async handler(ctx) {
        await this.change(caller(ctx.meta).id, { pushToken: ctx.params, cardPending: true });
        return null;
      },
    },

    becomeDriver: {
      permissions: ['rider', 'driver'],
      rest: { method: 'POST', path: '/me/driver' },
      async handler(ctx) {
        const user = await this.userById(caller(ctx.meta).id);
        const driver = { vehicle: ctx.params.vehicle, verified: user.driver?.verified ?? false };
        const changed = await this.change(user._id, { role: 'driver', driver });
        await this.sessions.setRole(user._id, changed.role, changed.version ?? 0);
        await ctx.emit('profile.changed', { userId: user._id });
        return toProfile(this.sealer(), changed);
      },
    },

    emergencyContacts: {
      permissions: 'internal',
      async handler(ctx) {
        const { userId } = ctx.params;
        const cached = await this.contactsCache()
          .read(userId)
          .catch(() => null);
        if (cached) return { contacts: openContacts(this.sealer(), cached) };
        const user = await this.userById(userId);
        await this.cacheContacts(user);
        return { contacts: openContacts(this.sealer(), user.contactsSealed) };
      },
    },

    recipients: {
      permissions: 'internal',
      async handler(ctx) {
        const users = await this.store.find({ _id: { $in: ctx.params.userIds } });
        return { recipients: users.map((user) => toRecipient(this.sealer(), user)) };
      },
    },

    dropPushToken: {
      permissions: 'internal',
      async handler(ctx) {
        const { userId: _id, token } = ctx.params;
        const dropped = await this.store.update(
          { _id, 'pushToken.token': token },
          { $set: { pushToken: null, cardPending: true }, $inc: { version: 1 } },
        );
        if (dropped > 0) this.logger.info('A dead push token was dropped', { userId: _id });
        return null;
      },
    },

    card: {
      permissions: 'internal',
      async handler(ctx) {
        return toCard(this.sealer(), await this.userById(ctx.params.userId));
      },
    },

    driverStatus: {
      permissions: 'internal',
      async handler(ctx) {
        const user = await this.userById(ctx.params.userId);
        return { verified: user.driver?.verified ?? false };
      },
    },
  },

  async started() {
    this.codes = loginCodes(this.redis, this.config);
    this.otpWatch = otpWatch(this.redis, { least: this.config.otpSpikeLeast });
    this.broker.metrics.register({
      type: 'counter',
      name: 'otp.total',
      labelNames: ['country', 'what'],
      description: 'Sign-in codes that were asked for and used, by country of the number',
    });
    this.broker.metrics.register({
      type: 'counter',
      name: 'otp.spikes.total',
      labelNames: ['country'],
      description: 'Times that codes were asked for in numbers and not used',
    });
    this.pinTries = rateLimit(this.redis, { name: 'pin', points: 5, durationS: 900, code: 'PIN_LOCKED' });
    this.sweepCards();
  },

  async stopped() {
    clearTimeout(this.cardSweep);
    this.cardSweep = undefined;
  },
});
