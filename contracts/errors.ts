import { z } from 'zod';

/**
 * The one catalogue of error codes. A code is stable: clients switch on it. `status` is the HTTP status;
 * sockets carry the same code in their acknowledgement. `message` is what a person may read.
 */
export const errorCatalogue = {
  // The door
  VALIDATION: { status: 400, message: 'Some fields are missing or are not what is expected.' },
  BAD_JSON: { status: 400, message: 'The body is not valid JSON.' },
  PAYLOAD_TOO_LARGE: { status: 413, message: 'The message is larger than is taken here.' },
  NOT_FOUND: { status: 404, message: 'There is nothing here.' },
  UNKNOWN_EVENT: { status: 404, message: 'No such event is known here.' },
  RATE_LIMITED: { status: 429, message: 'Too many requests. Wait a little, then try again.' },
  UNAUTHENTICATED: { status: 401, message: 'Sign in to do this.' },
  FORBIDDEN: { status: 403, message: 'Your role does not allow this.' },
  ORIGIN_REFUSED: { status: 403, message: 'This origin is not allowed to connect.' },
  SESSION_STORE_UNAVAILABLE: { status: 503, message: 'Sign-ins cannot be checked right now. Try again.' },
  UNAVAILABLE: { status: 503, message: 'This part of the service cannot answer right now. Try again.' },
  TIMEOUT: { status: 504, message: 'The answer took too long. Try again.' },
  INTERNAL: { status: 500, message: 'Something went wrong on our side.' },

  // Accounts
  PHONE_INVALID: {
    status: 400,
    message: 'This is not a valid phone number. Write it with its country code.',
  },
  OTP_RESEND_TOO_SOON: { status: 429, message: 'A code was sent a moment ago. Wait before you ask again.' },
  OTP_TOO_MANY: { status: 429, message: 'Too many codes were asked for. Try again later.' },
  OTP_COUNTRY_REFUSED: { status: 403, message: 'Codes are not sent to numbers of this country.' },
  OTP_INVALID: { status: 401, message: 'The code is wrong or has expired.' },
  OTP_LOCKED: { status: 429, message: 'Too many wrong codes. Ask for a new one later.' },
  WRONG_PIN: { status: 403, message: 'The PIN is wrong.' },
  PIN_LOCKED: { status: 429, message: 'Too many wrong PINs. Try again later.' },
  PINS_EQUAL: { status: 400, message: 'The PIN and the duress PIN must differ.' },
  USER_NOT_FOUND: { status: 404, message: 'There is no such user.' },

  // Trips
  BOOKING_NOT_FOUND: { status: 404, message: 'There is no such booking.' },
  TRIP_NOT_FOUND: { status: 404, message: 'There is no such trip.' },
  TRIP_FORBIDDEN: { status: 403, message: 'This trip is not yours to see or change.' },
  TRIP_WRONG_STATE: { status: 409, message: 'The trip is not in a state that allows this step.' },
  OWN_BOOKING: { status: 409, message: 'You cannot drive your own booking.' },
  DRIVER_NOT_VERIFIED: {
    status: 403,
    message: 'Your documents must be approved before you can accept trips.',
  },

  // Share links
  SHARE_INVALID: { status: 404, message: 'This link is not valid, or not any more.' },
  TOO_MANY_SHARES: { status: 429, message: 'This trip has as many links as it may have. Revoke one first.' },

  // Locations
  LOCATION_INVALID: { status: 400, message: 'The location update has missing or impossible values.' },
  LOCATION_AHEAD: { status: 400, message: 'The timestamp is more than 60 s ahead of the server.' },
  LOCATION_JUMP: { status: 409, message: 'The position is too far from the last one to be driven.' },
  LOCATION_NOT_DRIVER: { status: 403, message: "Only the trip's driver reports its locations." },
  LOCATION_TRIP_NOT_ACTIVE: { status: 409, message: 'The trip is not active.' },
  TOO_MANY_ROOMS: { status: 429, message: 'This connection watches as many trips as it may.' },

  // Safety checks
  SAFETY_NOT_ASKED: { status: 409, message: 'Nothing was asked about this trip.' },

  // SOS
  SOS_NOT_FOUND: { status: 404, message: 'There is no such alert.' },
  SOS_WRONG_STATE: { status: 409, message: 'The alert is not in a state that allows this step.' },

  // Callbacks of providers
  WEBHOOK_FORGED: { status: 403, message: 'This is not signed by whom it should come from.' },
  WEBHOOK_TOO_OLD: { status: 403, message: 'What is told here was signed too long ago, or ahead of time.' },
  WEBHOOK_UNREADABLE: { status: 400, message: 'The body is not what this provider sends.' },

  // Notifications
  TEMPLATE_UNKNOWN: { status: 404, message: 'There is no such message template.' },
  TEMPLATE_VARIABLE_MISSING: { status: 400, message: 'The message template needs a value that is missing.' },
  TEMPLATE_VARIABLE_INVALID: { status: 400, message: 'A value is not one that the message template takes.' },
  TEMPLATE_TOO_LONG: { status: 400, message: 'With these values the message is longer than it may be.' },
  NOTIFICATION_NOT_FOUND: { status: 404, message: 'There is no such notification.' },
} as const satisfies Record<string, { status: number; message: string }>;

export type ErrorCode = keyof typeof errorCatalogue;

/** What a REST client gets as `{error}` and a socket acknowledgement as `error`. */
export const publicError = z.object({
  code: z.enum(Object.keys(errorCatalogue) as [ErrorCode, ...ErrorCode[]]),
  message: z.string().describe('What a person may read'),
  requestId: z.exactOptional(z.string()).describe('Quote it when you ask for help'),
  fields: z
    .exactOptional(z.array(z.object({ path: z.string(), message: z.string() })))
    .describe('Which fields were refused and why; only with VALIDATION and LOCATION_INVALID'),
  retryAfterS: z
    .exactOptional(z.number())
    .describe('Seconds after which a retry makes sense; only with 429 and 503'),
});
export type PublicError = z.infer<typeof publicError>;
