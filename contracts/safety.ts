import { z } from 'zod';
import { epochMs, mayRefuse, nothing, readAgainMs, tripId, userId } from './common.ts';

/** What may be wrong with a trip. */
export const safetyKind = z.enum(['long-stop', 'route-deviation', 'overdue', 'signal-lost']);
export type SafetyKind = z.infer<typeof safetyKind>;

/** "Are you OK?" on the rider's screen. Told again until it is answered; the same `kind` and `answerBy` is the same question. */
export const safetyCheck = z.object({
  tripId,
  kind: safetyKind,
  /** Nobody has answered by then: admins are alarmed. ms. */
  answerBy: epochMs,
});
export type SafetyCheck = z.infer<typeof safetyCheck>;

export const safety = {
  description:
    'Notices when something is wrong with a trip, asks its rider, and alarms admins when nobody answers.',
  actions: {
    /**
     * The rider's answer to all that is open about the trip. `safe: false` alarms admins at once, also when an earlier
     * question was answered otherwise. SAFETY_NOT_ASKED when nothing was ever asked. For the trip's rider alone: whoever else
     * is on the trip must not learn whether there is a question.
     */
    answer: {
      summary: 'The answer to "are you OK?", for the rider of the trip.',
      errors: mayRefuse('TRIP_NOT_FOUND', 'TRIP_FORBIDDEN', 'SAFETY_NOT_ASKED'),
      params: z.object({ tripId, safe: z.boolean() }),
      result: nothing,
    },
    /** What the rider of a trip has not answered yet; nothing for anybody else. */
    open: {
      params: z.object({ tripId }),
      result: z.object({ checks: z.array(safetyCheck) }),
      repeatAfterMs: readAgainMs,
    },
  },
  events: {
    /** A question was asked, or is told again: for the devices of `userId` alone. */
    'safety.asked': safetyCheck.extend({ userId }),
  },
};
