import { z } from 'zod';
import { isoTime, mayRefuse, noParams, nothing, readAgainMs, role, userId } from './common.ts';

/** As typed by a person; accounts turns it into E.164 (`PHONE_INVALID` where it cannot). */
const phone = z.string().trim().min(4).max(32).describe('With its country code');
const pin = z
  .string()
  .regex(/^\d{4,6}$/, 'must be 4 to 6 digits')
  .describe('4 to 6 digits');
const personName = z.string().trim().min(1).max(80);

const contactIn = z.object({ name: personName, phone, relation: z.string().trim().max(40).default('') });
/** An emergency contact as it is stored: the phone is E.164. */
export const contact = z
  .object({ name: z.string(), phone: z.string().describe('E.164'), relation: z.string() })
  .meta({ id: 'EmergencyContact' });
export type Contact = z.infer<typeof contact>;

const timeOfDay = z
  .string()
  .regex(/^\d\d:\d\d$/)
  .describe('HH:MM in that time zone');

export const preferences = z.object({
  language: z.enum(['en', 'hi']).default('en'),
  timeZone: z.string().min(1).max(64).default('Asia/Kolkata'),
  channels: z
    .array(z.enum(['push', 'whatsapp', 'sms', 'email']))
    .max(4)
    .describe('In the order in which they are tried')
    .default(['push', 'whatsapp', 'sms', 'email']),
  quietHours: z.object({ from: timeOfDay, to: timeOfDay }).nullable().default(null),
});

const vehicle = z.object({
  plate: z.string().trim().min(2).max(20),
  model: z.string().trim().min(1).max(60),
});

const email = z.email().max(254);

/** Where somebody can be reached and when they want to be: for notifications alone. */
export const recipient = z.object({
  userId,
  name: z.string(),
  phone: z.string().describe('E.164'),
  email: z.string().nullable(),
  pushToken: z.string().nullable(),
  preferences,
  vehicle: vehicle.nullable(),
});
export type Recipient = z.infer<typeof recipient>;

/** What a user sees of their own account. PINs are only told to exist. */
export const profile = z
  .object({
    id: userId,
    role,
    name: z.string(),
    phone: z.string().describe('E.164'),
    email: z.string().nullable().describe('Where emails go; null: none is known'),
    emergencyContacts: z.array(contact),
    preferences,
    hasPin: z.boolean(),
    driver: z.object({ vehicle, verified: z.boolean() }).nullable(),
    createdAt: isoTime,
  })
  .meta({ id: 'Profile' });
export type Profile = z.infer<typeof profile>;

export const accounts = {
  description: 'Who people are: sign-in, sessions, profile, emergency contacts, PINs.',
  actions: {
    requestOtp: {
      summary: 'Sends a code by SMS. The same answer for numbers that are known and that are not.',
      errors: mayRefuse('PHONE_INVALID', 'OTP_COUNTRY_REFUSED', 'OTP_RESEND_TOO_SOON', 'OTP_TOO_MANY'),
      params: z.object({ phone }),
      result: z.object({ expiresInS: z.number(), retryAfterS: z.number() }),
    },
    login: {
      summary: 'Signs in with the code that was sent. A new number becomes a rider.',
      errors: mayRefuse('PHONE_INVALID', 'OTP_INVALID', 'OTP_LOCKED'),
      params: z.object({
        phone,
        code: z
          .string()
          .regex(/^\d{6}$/, 'must be 6 digits')
          .describe('6 digits'),
        deviceId: z.string().min(1).max(128),
        name: personName.optional(),
      }),
      result: z.object({
        token: z.string(),
        expiresAt: isoTime,
        user: z.object({ id: userId, role, name: z.string() }),
      }),
    },
    logout: { summary: 'Ends this session.', params: noParams, result: nothing },
    logoutAll: {
      summary: 'Ends every session of the user, on every device.',
      params: noParams,
      result: nothing,
    },
    me: {
      summary: 'The account of whoever calls.',
      params: noParams,
      result: profile,
      repeatAfterMs: readAgainMs,
    },
    updateMe: {
      summary: 'Changes the name, the email address, or both. Null takes the address away.',
      params: z
        .object({ name: personName.optional(), email: email.nullable().optional() })
        .refine(
          ({ name, email: address }) => name !== undefined || address !== undefined,
          'name or email is needed',
        ),
      result: profile,
    },
    setEmergencyContacts: {
      summary: 'Replaces the people who are told when the user is in danger.',
      errors: mayRefuse('PHONE_INVALID'),
      params: z.object({ contacts: z.array(contactIn).max(5) }),
      result: profile,
    },
    setPin: {
      summary: 'Sets the PIN and the duress PIN. The current PIN is needed once one is set.',
      errors: mayRefuse('PINS_EQUAL', 'WRONG_PIN', 'PIN_LOCKED'),
      params: z.object({ pin, duressPin: pin.optional(), currentPin: pin.optional() }),
      result: nothing,
    },
    setPreferences: {
      summary: 'Replaces language, time zone, channels and quiet hours.',
      params: preferences,
      result: profile,
    },
    setPushToken: {
      summary: "Says where this phone's push messages go.",
      params: z.object({ token: z.string().min(8).max(4096), platform: z.enum(['android', 'ios']) }),
      result: nothing,
    },
    becomeDriver: {
      summary:
        'Makes the user a driver, unverified until documents are approved. Sessions in use change at once.',
      params: z.object({ vehicle }),
      result: profile,
    },
    /** Whom to tell when the user is in danger; from the cache. */
    emergencyContacts: {
      params: z.object({ userId }),
      result: z.object({ contacts: z.array(contact) }),
      repeatAfterMs: readAgainMs,
    },
    /** How to reach these users; whoever does not exist is left out. */
    recipients: {
      params: z.object({ userIds: z.array(userId).min(1).max(1000) }),
      result: z.object({ recipients: z.array(recipient) }),
      repeatAfterMs: readAgainMs,
    },
    /** The push service does not know this installation any more; a newer token stays. */
    dropPushToken: { params: z.object({ userId, token: z.string() }), result: nothing },
    /** What an SOS needs to know of a user, from the DB: contacts sealed, PINs hashed. */
    card: {
      params: z.object({ userId }),
      result: z.object({
        name: z.string(),
        contacts: z.string(),
        pin: z.string().nullable(),
        duressPin: z.string().nullable(),
        language: preferences.shape.language,
      }),
      repeatAfterMs: readAgainMs,
    },
    /** May this driver accept trips, as far as documents go? */
    driverStatus: {
      params: z.object({ userId }),
      result: z.object({ verified: z.boolean() }),
      repeatAfterMs: readAgainMs,
    },
  },
  events: {
    /** Sessions ended: one (`sessionId`) or all. Gateways cut the sockets. */
    'session.revoked': z.object({ userId, sessionId: z.string().nullable() }),
    'contacts.changed': z.object({ userId }),
    'profile.changed': z.object({ userId }),
  },
};
