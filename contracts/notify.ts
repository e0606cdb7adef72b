import { z } from 'zod';

export const notify = {
  actions: {
    /** Queues a message. Answered once it is in Redis: it will be sent or its failure is logged. */
    send: {
      params: z.object({
        channel: z.enum(['sms']),
        /** E.164 */
        to: z.string().regex(/^\+[1-9]\d{6,14}$/),
        template: z.enum(['otp']),
        data: z.record(z.string(), z.string()),
        /** The same key twice is sent once. */
        idempotencyKey: z.string().min(1).max(200),
        /** ms after which it is no longer worth sending. */
        expiresInMs: z.number().int().positive(),
      }),
      result: z.object({ notificationId: z.string() }),
    },
  },
  events: {},
};
