import { z } from 'zod';
import { isoTime, noParams, nothing, role, userId } from './common.ts';

/** As typed by a person; accounts turns it into E.164 (`PHONE_INVALID` where it cannot). */
const phone = z.string().trim().min(4).max(32);
const pin = z.string().regex(/^\d{4,6}$/, 'must be 4 to 6 digits');
const personName = z.string().trim().min(1).max(80);

const contactIn = z.object({ name: personName, phone, relation: z.string().trim().max(40).default('') });
/** An emergency contact as it is stored: the phone is E.164. */
export const contact = z.object({ name: z.string(), phone: z.string(), relation: z.string() });
export type Contact = z.infer<typeof contact>;

export const preferences = z.object({
  language: z.enum(['en', 'hi']).default('en'),
  timeZone: z.string().min(1).max(64).default('Asia/Kolkata'),
  /** Channels in the order in which they are tried. */
  channels: z
    .array(z.enum(['push', 'whatsapp', 'sms', 'email']))
    .max(4)
    .default(['push', 'whatsapp', 'sms', 'email']),
  quietHours: z
    .object({ from: z.string().regex(/^\d\d:\d\d$/), to: z.string().regex(/^\d\d:\d\d$/) })
    .nullable()
    .default(null),
});

const vehicle = z.object({
  plate: z.string().trim().min(2).max(20),
  model: z.string().trim().min(1).max(60),
});

/** What a user sees of their own account. PINs are only told to exist. */
export const profile = z.object({
  id: userId,
  role,
  name: z.string(),
  phone: z.string(),
  emergencyContacts: z.array(contact),
  preferences,
  hasPin: z.boolean(),
  driver: z.object({ vehicle, verified: z.boolean() }).nullable(),
  createdAt: isoTime,
});
export type Profile = z.infer<typeof profile>;

export const accounts = {
  actions: {
    /** Sends a code by SMS. The same answer for numbers that are known and that are not. */
    requestOtp: {
      params: z.object({ phone }),
      result: z.object({ expiresInS: z.number(), retryAfterS: z.number() }),
    },
    login: {
      params: z.object({
        phone,
        code: z.string().regex(/^\d{6}$/, 'must be 6 digits'),
        deviceId: z.string().min(1).max(128),
        name: personName.optional(),
      }),
      result: z.object({
        token: z.string(),
        expiresAt: isoTime,
        user: z.object({ id: userId, role, name: z.string() }),
      }),
    },
    logout: { params: noParams, result: nothing },
    /** Ends every session of the user, on every device. */
    logoutAll: { params: noParams, result: nothing },
    me: { params: noParams, result: profile },
    updateMe: { params: z.object({ name: personName }), result: profile },
    setEmergencyContacts: { params: z.object({ contacts: z.array(contactIn).max(5) }), result: profile },
    /** `currentPin` is needed once a PIN is set. */
    setPin: {
      params: z.object({ pin, duressPin: pin.optional(), currentPin: pin.optional() }),
      result: nothing,
    },
    setPreferences: { params: preferences, result: profile },
    setPushToken: {
      params: z.object({ token: z.string().min(8).max(4096), platform: z.enum(['android', 'ios']) }),
      result: nothing,
    },
    becomeDriver: { params: z.object({ vehicle }), result: profile },
    /** Whom to tell when the user is in danger; from the cache. */
    emergencyContacts: { params: z.object({ userId }), result: z.object({ contacts: z.array(contact) }) },
    /** May this driver accept trips, as far as documents go? */
    driverStatus: { params: z.object({ userId }), result: z.object({ verified: z.boolean() }) },
  },
  events: {
    /** Sessions ended: one (`sessionId`) or all. Gateways cut the sockets. */
    'session.revoked': z.object({ userId, sessionId: z.string().nullable() }),
    'contacts.changed': z.object({ userId }),
    'profile.changed': z.object({ userId }),
  },
};
